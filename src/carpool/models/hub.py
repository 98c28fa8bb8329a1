"""Models of the Hugging Face hub, without pickle files and without code."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import snapshot_download
from huggingface_hub.utils.tqdm import tqdm

from carpool.errors import ModelFailed
from carpool.models.reference import ModelReference

_PATTERNS = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.jinja", "*.model"]
"""GGUF, ONNX and OpenVINO files are in many repositories several times over; a GGUF file is named instead."""


def fetch_repository(
    reference: ModelReference, target: Path, on_bytes: Callable[[int, int | None], None]
) -> None:
    """Put the model files of a hub repository into the new directory `target`.

    Files are collected beside `target` and stay there to be resumed if the download breaks off. The hub's own
    environment variables (HF_ENDPOINT, HF_TOKEN) apply. Raises `ModelFailed`.
    """
    unfinished = target.with_name(f"{target.name}.unfinished")
    try:
        snapshot_download(
            reference.name,
            revision=reference.revision,
            local_dir=unfinished,
            allow_patterns=[reference.file] if reference.file else _PATTERNS,
            tqdm_class=_progress_class(on_bytes),
        )
    except (httpx2.HTTPError, OSError, ValueError) as error:  # the hub's own errors derive from these
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ModelFailed(f"{reference} cannot be fetched: {reason}") from error
    if not any(path.suffix in {".safetensors", ".gguf"} for path in unfinished.rglob("*")):
        wanted = reference.file or "safetensors file, and pickle files are never fetched"
        raise ModelFailed(f"{reference} has no {wanted}")
    unfinished.rename(target)


def _progress_class(on_bytes: Callable[[int, int | None], None]) -> type[tqdm]:
    """A silent progress bar, of the class that the hub client wants, which reports bytes.

    The client shows the same bytes in several bars (received, written); the one that is furthest counts.
    """
    lock = threading.Lock()
    furthest = 0

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
            self._counts_bytes = kwargs.get("unit") == "B"
            self._received = 0

        def update(self, n: float | None = 1) -> None:
            nonlocal furthest
            if not self._counts_bytes:
                return
            with lock:
                self._received += int(n or 0)
                if self._received > furthest:
                    furthest = self._received
                    on_bytes(furthest, int(self.total) if self.total else None)

    return Bar
