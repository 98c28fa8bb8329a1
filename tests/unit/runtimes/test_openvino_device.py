"""OpenVINO in a process where models are loaded side by side."""

import subprocess
import sys

FIRST_GRAPHS_AT_ONCE = """
import sys, threading
from openvino import Type, opset15
import carpool.runtimes.openvino.device

begin = threading.Barrier(4)

def build():
    begin.wait()
    opset15.constant(1.0, Type.f32)

sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=build, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_that_build_the_first_graphs_at_once_do_not_wait_for_each_other() -> None:
    subprocess.run([sys.executable, "-c", FIRST_GRAPHS_AT_ONCE], check=True, timeout=60)


def test_openvino_tells_nobody_that_it_is_used() -> None:
    script = (
        "import sys, threading, carpool.runtimes.openvino.device, openvino.tools.ovc\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
        "assert openvino.tools.ovc.telemetry.__class__.__module__ == 'openvino.tools.ovc.telemetry_stub'\n"
        "assert threading.active_count() == 1\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
