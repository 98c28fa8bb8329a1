"""The GGUF container: metadata and tensor directory of a memory-mapped file.

The format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The `gguf` package has a reader too,
but it needs 7 s of CPU for a vocabulary of 49,152 tokens and can be made to loop by a hostile array length;
this one needs 0.1 s and checks every number against the file's size before it is used.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Tensor, TensorFormat, WeightSize

MAX_DIMENSIONS = 4
"""ggml's own bound."""
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32

_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
"""Metadata value types with their `struct` format."""

_FORMATS = {
    0: (TensorFormat.F32, 1, 4),
    1: (TensorFormat.F16, 1, 2),
    2: (TensorFormat.Q4_0, 32, 18),
    3: (TensorFormat.Q4_1, 32, 20),
    6: (TensorFormat.Q5_0, 32, 22),
    7: (TensorFormat.Q5_1, 32, 24),
    8: (TensorFormat.Q8_0, 32, 34),
    12: (TensorFormat.Q4_K, 256, 144),
    13: (TensorFormat.Q5_K, 256, 176),
    14: (TensorFormat.Q6_K, 256, 210),
    27: (TensorFormat.I64, 1, 8),
    30: (TensorFormat.BF16, 1, 2),
}
"""ggml's type numbers: format, elements per block, bytes per block."""
_UNSUPPORTED = {
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 28: "F64",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tensor of the directory; `begin` and `end` are offsets into the file."""

    format: TensorFormat
    shape: tuple[int, ...]
    row_bytes: int
    begin: int
    end: int


class GgufFile:
    """An opened GGUF file. Raises `ModelFailed` for one that breaks the format or has unsupported types."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._bytes: NDArray[np.uint8] = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise ModelFailed(f"{path} cannot be read: {error}") from error
        cursor = _Cursor(path, self._bytes.data)
        if cursor.take(4) != b"GGUF":
            raise ModelFailed(f"{path} is not a GGUF file")
        version = cursor.scalar("<I")
        if version not in _VERSIONS:
            raise ModelFailed(f"{path} has GGUF version {version}; supported are 2 and 3, little-endian")
        tensor_count, value_count = cursor.scalar("<Q"), cursor.scalar("<Q")
        self._metadata: dict[str, Any] = {}
        for _ in range(value_count):
            key = cursor.string()
            if key in self._metadata:
                raise ModelFailed(f"{path} has the metadata key {key!r} twice")
            self._metadata[key] = cursor.value(cursor.scalar("<I"))
        self._entries = self._read_directory(cursor, tensor_count)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """All key-value pairs: numbers, booleans, strings and lists of one of these."""
        return self._metadata

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors, as in the file."""
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
        """The tensor of that name, which must be in `names`, under its name in the file."""
        entry = self._entries[name]
        data = self._bytes[entry.begin : entry.end].reshape(-1, entry.row_bytes)
        return Tensor(name, entry.format, entry.shape, data)

    def _read_directory(self, cursor: "_Cursor", count: int) -> dict[str, _Entry]:
        raw: dict[str, tuple[int, list[int], int]] = {}
        for _ in range(count):
            name = cursor.string()
            rank = cursor.scalar("<I")
            if not 1 <= rank <= MAX_DIMENSIONS or name in raw:
                raise ModelFailed(f"{self.path}: tensor {name!r} has {rank} dimensions or is there twice")
            dimensions = [cursor.scalar("<Q") for _ in range(rank)]
            raw[name] = (cursor.scalar("<I"), dimensions[::-1], cursor.scalar("<Q"))
        alignment = self._metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise ModelFailed(f"{self.path}: general.alignment must be a power of two")
        start = -(-cursor.offset // alignment) * alignment
        entries = {
            name: self._entry(name, number, shape, start + offset)
            for name, (number, shape, offset) in raw.items()
        }
        end = start
        for entry in sorted(entries.values(), key=lambda entry: entry.begin):
            if entry.begin < end:
                raise ModelFailed(f"{self.path}: tensors overlap")
            end = entry.end
        if end > len(self._bytes):
            raise ModelFailed(f"{self.path} ends before its tensors do; it may be half a download")
        return entries

    def _entry(self, name: str, number: int, shape: list[int], begin: int) -> _Entry:
        if number not in _FORMATS:
            supported = ", ".join(format_ for format_, _, _ in _FORMATS.values())
            type_name = _UNSUPPORTED.get(number, f"number {number}")
            raise ModelFailed(
                f"{self.path}: tensor {name!r} has type {type_name}; supported types are {supported}"
            )
        tensor_format, block_elements, block_bytes = _FORMATS[number]
        if 0 in shape or shape[-1] % block_elements:
            raise ModelFailed(
                f"{self.path}: tensor {name!r} has shape {shape}, impossible for {tensor_format}"
            )
        row_bytes = shape[-1] // block_elements * block_bytes
        return _Entry(
            tensor_format, tuple(shape), row_bytes, begin, begin + math.prod(shape[:-1]) * row_bytes
        )


class _Cursor:
    """Reads forward through the header; every read is checked against the end of the file."""

    def __init__(self, path: Path, view: memoryview) -> None:
        self._path = path
        self._view = view
        self.offset = 0

    def take(self, size: int) -> bytes:
        begin = self.offset
        if size > len(self._view) - begin:
            raise ModelFailed(f"{self._path} ends inside its header; it may be half a download")
        self.offset = begin + size
        return self._view[begin : self.offset].tobytes()

    def scalar(self, struct_format: str) -> Any:
        return struct.unpack(struct_format, self.take(struct.calcsize(struct_format)))[0]

    def string(self) -> str:
        try:
            return self.take(self.scalar("<Q")).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelFailed(f"{self._path}: a string in the header is not UTF-8") from error

    def value(self, value_type: int) -> Any:
        if value_type in _SCALARS:
            return self.scalar(_SCALARS[value_type])
        if value_type == _STRING:
            return self.string()
        if value_type == _ARRAY:
            item_type, count = self.scalar("<I"), self.scalar("<Q")
            if item_type == _STRING:
                return [self.string() for _ in range(count)]
            if item_type in _SCALARS:
                letter = _SCALARS[item_type][1]
                data = self.take(count * struct.calcsize(_SCALARS[item_type]))
                return list(struct.unpack(f"<{count}{letter}", data))
        raise ModelFailed(f"{self._path}: the header has a value of unknown type {value_type}")
