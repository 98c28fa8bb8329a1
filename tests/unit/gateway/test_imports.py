"""The gateway's process is light: the libraries of the models stay in the workers."""

import subprocess
import sys


def test_neither_openvino_nor_torch_is_imported() -> None:
    code = (
        "import sys, carpool.gateway.app, carpool.gateway.config\n"
        "heavy = {'openvino', 'torch', 'transformers', 'gguf'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
