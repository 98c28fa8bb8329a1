"""Directories with a graph that is there already: ONNX, or OpenVINO's own format."""

from pathlib import Path

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Tensor, WeightSize
from carpool.models.directory import ModelDirectory

_FOLDERS = ("", "openvino", "onnx")
_PREFERRED = ("openvino_model.xml", "model.onnx")
"""As Optimum and sentence-transformers write them."""


class GraphDirectory(ModelDirectory):
    """A directory with config.json and a graph; implements `Checkpoint`, but has no tensors to give.

    Raises `ModelFailed` for one without config.json or without an architecture in it.
    """

    def __init__(self, directory: Path, graph: Path) -> None:
        super().__init__(directory)
        self.graph = graph
        """The ONNX file, or OpenVINO's .xml, whose .bin is beside it."""

    @property
    def size(self) -> WeightSize:
        """Of the graph's files."""
        files = {self.graph, self.graph.with_suffix(".bin")}
        return WeightSize(0, sum(file.stat().st_size for file in files if file.exists()))

    def __contains__(self, name: object) -> bool:
        return False

    def tensor(self, name: str) -> Tensor:
        """Raises `ModelFailed`."""
        raise ModelFailed(f"{self._path} has a graph and no tensor {name!r}")


def find_graph(directory: Path) -> Path | None:
    """The graph of a directory or of its folders `openvino` and `onnx`, or None.

    The file of the usual name, else the only one. Raises `ModelFailed` where there are several others.
    """
    folders = [directory / folder for folder in _FOLDERS]
    for folder in folders:
        for name in _PREFERRED:
            if (folder / name).is_file():
                return folder / name
    others = [
        path
        for folder in folders
        for pattern in ("*.xml", "*.onnx")
        for path in sorted(folder.glob(pattern))
        if path.suffix == ".onnx" or path.with_suffix(".bin").exists()
    ]
    if len(others) > 1:
        names = ", ".join(str(path.relative_to(directory)) for path in others)
        raise ModelFailed(f"{directory} holds several graphs ({names}); name one of them model.onnx")
    return others[0] if others else None
