"""Directories with a graph that is there already: ONNX, or OpenVINO's own format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Tensor, WeightSize
from carpool.models.safetensors import read_architecture, read_json_object

_FOLDERS = ("", "openvino", "onnx")
_PREFERRED = ("openvino_model.xml", "model.onnx")
"""As Optimum and sentence-transformers write them."""


class GraphDirectory:
    """A directory with config.json and a graph; implements `Checkpoint`, but has no tensors to give.

    Raises `ModelFailed` for one without config.json or without an architecture in it.
    """

    def __init__(self, directory: Path, graph: Path) -> None:
        self.graph = graph
        """The ONNX file, or OpenVINO's .xml, whose .bin is beside it."""
        self._path = directory
        self._config = read_json_object(directory / "config.json")
        self._architecture = read_architecture(directory, self._config)

    @property
    def path(self) -> Path:
        """The directory."""
        return self._path

    @property
    def architecture(self) -> str:
        """The first of config.json's `architectures`."""
        return self._architecture

    @property
    def config(self) -> Mapping[str, Any]:
        """The content of config.json."""
        return self._config

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
