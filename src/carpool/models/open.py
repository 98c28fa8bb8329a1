"""Opening whatever a local path holds."""

from pathlib import Path

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint
from carpool.models.gguf import GgufCheckpoint
from carpool.models.graph_directory import GraphDirectory, find_graph
from carpool.models.safetensors import SafetensorsCheckpoint

_PICKLE_SUFFIXES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a GGUF file or a directory with config.json and safetensors files, or with a graph instead.

    Raises `ModelFailed` with one sentence for everything else; pickle files are never opened, because reading
    one can run code.
    """
    if not path.exists():
        raise ModelFailed(f"{path} does not exist")
    if path.suffix.lower() == ".gguf":
        return GgufCheckpoint(path)
    if not path.is_dir():
        raise ModelFailed(f"{path} is neither a directory nor a .gguf file{_pickle_note([path])}")
    if any(path.glob("*.safetensors")):
        return SafetensorsCheckpoint(path)
    if (graph := find_graph(path)) is not None:
        return GraphDirectory(path, graph)
    raise ModelFailed(f"{path} has no safetensors file{_pickle_note(sorted(path.iterdir()))}")


def _pickle_note(paths: list[Path]) -> str:
    for path in paths:
        is_openvino = path.suffix == ".bin" and path.with_suffix(".xml").exists()
        if path.suffix.lower() in _PICKLE_SUFFIXES and not is_openvino:
            return f"; {path.name} is a pickle file, which is never opened because reading one can run code"
    return ""
