"""`carpool doctor`: what this machine can do, and what stands in the way."""

import argparse
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

from carpool import __version__
from carpool.cli.options import Commands, add_config, settings_of
from carpool.models.reference import ModelReference, Source
from carpool.worker.config import available_cores

_USEFUL = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("doctor", help="show what this machine can do")
    add_config(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the machine's facts; 1 if it cannot run Carpool. Raises `StartError` for bad settings."""
    worker = settings_of(arguments).worker_config()
    flags = _cpu_flags()
    native_bf16 = bool({"amx_bf16", "avx512_bf16"} & flags)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    existing = next(path for path in (worker.model_dir, *worker.model_dir.parents) if path.exists())
    facts = {
        "carpool": f"{__version__}, Python {platform.python_version()}, OpenVINO {version('openvino')}",
        "processor": f"{available_cores()} cores, {' '.join(f for f in _USEFUL if f in flags) or 'no AVX2'}",
        "computes in": "bf16" if native_bf16 else "f32 (no native bf16)",
        "memory": f"{memory / 2**30:.1f} GiB",
        "model directory": f"{worker.model_dir}, {shutil.disk_usage(existing).free / 2**30:.1f} GiB free",
    }
    for model in worker.models:
        source = ModelReference.parse(model.reference).source
        facts[f"model {model.name}"] = (
            f"{model.reference} ({'a local path' if source is Source.PATH else source})"
        )
    for name, value in facts.items():
        print(f"{name:32} {value}")
    return 0 if "avx2" in flags else 1


def _cpu_flags() -> set[str]:
    for text in Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("flags"):
            return set(text.partition(":")[2].split())
    return set()
