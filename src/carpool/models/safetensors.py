"""Hugging Face directories: config.json and safetensors files, read by header and memory map.

The format is https://github.com/huggingface/safetensors#format: eight bytes of header length, a JSON header,
then the tensors' bytes without holes. Files come from strangers, so every number in a header is checked
before it is used.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Tensor, TensorFormat, WeightSize
from carpool.models.directory import ModelDirectory, read_json_object

MAX_HEADER_BYTES = 100_000_000
"""The bound of the reference implementation."""
MAX_RANK = 8

_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
_SUPPORTED = (TensorFormat.F32, TensorFormat.F16, TensorFormat.BF16, TensorFormat.I64)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tensor of a header; `begin` and `end` are offsets into the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """One memory-mapped safetensors file. Raises `ModelFailed` for a file that breaks the format."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._bytes: NDArray[np.uint8] = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise ModelFailed(f"{path} cannot be read: {error}") from error
        self._entries = self._read_header()

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self._entries)

    @property
    def size(self) -> WeightSize:
        """Of all tensors."""
        entries = self._entries.values()
        return WeightSize(
            sum(math.prod(entry.shape) for entry in entries),
            sum(entry.end - entry.begin for entry in entries),
        )

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name, which must be in `names`. Raises `ModelFailed` for an unsupported type."""
        entry = self._entries[name]
        if entry.dtype not in _SUPPORTED:
            supported = ", ".join(_SUPPORTED)
            raise self._broken(f"tensor {name!r} has type {entry.dtype}; supported are {supported}")
        rows = math.prod(entry.shape[:-1])
        row_bytes = math.prod(entry.shape[-1:]) * _ITEM_BYTES[entry.dtype]
        data = self._bytes[entry.begin : entry.end].reshape(rows, row_bytes)
        return Tensor(name, TensorFormat(entry.dtype), entry.shape, data)

    def _read_header(self) -> dict[str, _Entry]:
        total = len(self._bytes)
        header_bytes = int.from_bytes(self._bytes[:8].tobytes(), "little")
        if total < 8 or header_bytes > min(total - 8, MAX_HEADER_BYTES):
            raise self._broken("the header is longer than the file or than 100 MB")
        try:
            header = json.loads(
                self._bytes[8 : 8 + header_bytes].tobytes(), object_pairs_hook=_without_duplicates
            )
        except (ValueError, RecursionError) as error:
            raise self._broken(f"the header is not JSON: {error}") from error
        if not isinstance(header, dict):
            raise self._broken("the header is not a JSON object")
        header.pop("__metadata__", None)
        start = 8 + header_bytes
        entries = {name: self._entry(name, value, start) for name, value in header.items()}
        end = start
        for entry in sorted(entries.values(), key=lambda entry: (entry.begin, entry.end)):
            if entry.begin != end:
                raise self._broken("tensors overlap or leave holes")
            end = entry.end
        if end != total:
            raise self._broken(f"the header accounts for {end} bytes, the file has {total}")
        return entries

    def _entry(self, name: str, value: Any, start: int) -> _Entry:
        match value:
            case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]}:
                numbers = [begin, end, *shape]
            case _:
                raise self._broken(f"the header's entry of tensor {name!r} is malformed")
        if len(shape) > MAX_RANK or any(type(number) is not int or number < 0 for number in numbers):
            raise self._broken(f"tensor {name!r} has a malformed shape or offset")
        if begin > end:
            raise self._broken(f"tensor {name!r} ends before it begins")
        item_bytes = _ITEM_BYTES.get(dtype)
        if item_bytes is not None and math.prod(shape) * item_bytes != end - begin:
            raise self._broken(f"tensor {name!r} has shape {shape} of {dtype} but {end - begin} bytes")
        return _Entry(dtype, tuple(shape), start + begin, start + end)

    def _broken(self, what: str) -> ModelFailed:
        return ModelFailed(f"{self._path}: {what}")


class SafetensorsCheckpoint(ModelDirectory):
    """A directory with config.json and safetensors files, sharded or not; implements `Checkpoint`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._file_of = _open_files(directory)

    @property
    def size(self) -> WeightSize:
        """Of all its files together."""
        sizes = [file.size for file in set(self._file_of.values())]
        return WeightSize(sum(size.num_elements for size in sizes), sum(size.num_bytes for size in sizes))

    def __contains__(self, name: object) -> bool:
        return name in self._file_of

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name. Raises `ModelFailed` where there is none or its type is unsupported."""
        file = self._file_of.get(name)
        if file is None:
            raise ModelFailed(f"{self._path} has no tensor {name!r}")
        return file.tensor(name)


def _open_files(directory: Path) -> dict[str, SafetensorsFile]:
    """Which file holds each tensor: by the index, else model.safetensors, else every safetensors file."""
    index = directory / "model.safetensors.index.json"
    if index.exists():
        return _open_shards(directory, index)
    single = directory / "model.safetensors"
    paths = [single] if single.exists() else sorted(directory.glob("*.safetensors"))
    if not paths:
        raise ModelFailed(f"{directory} has no safetensors file")
    file_of: dict[str, SafetensorsFile] = {}
    for path in paths:
        file = SafetensorsFile(path)
        for name in file.names:
            if name in file_of:
                raise ModelFailed(f"{directory}: tensor {name!r} is in two files and there is no index")
            file_of[name] = file
    return file_of


def _open_shards(directory: Path, index: Path) -> dict[str, SafetensorsFile]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFailed(f"{index} has no weight_map")
    files: dict[str, SafetensorsFile] = {}
    for file_name in weight_map.values():
        if not isinstance(file_name, str) or Path(file_name).name != file_name:
            raise ModelFailed(f"{index} names {file_name!r}, which is not a file beside it")
        if file_name not in files:
            files[file_name] = SafetensorsFile(directory / file_name)
    for name, file_name in weight_map.items():
        if name not in files[file_name].names:
            raise ModelFailed(f"{index} places tensor {name!r} in {file_name}, which has none of that name")
    return {name: files[file_name] for name, file_name in weight_map.items()}


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name appears twice")
    return result
