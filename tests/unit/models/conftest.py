"""Tiny checkpoints, made by each test that needs one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.models.tiny_llama import TinyLlama

WriteSafetensors = Callable[..., Path]


@pytest.fixture
def tiny_llama() -> TinyLlama:
    return TinyLlama()


@pytest.fixture
def write_safetensors() -> WriteSafetensors:
    """`write(path, header, data)` writes a safetensors file, valid or not."""

    def write(path: Path, header: Any, data: bytes, header_length: int | None = None) -> Path:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        length = len(text) if header_length is None else header_length
        path.write_bytes(length.to_bytes(8, "little") + text + data)
        return path

    return write
