"""Recognises that a device or the host ran out of memory, without importing any framework."""

from __future__ import annotations


def is_out_of_memory(error: BaseException) -> bool:
    """True for `MemoryError` and for what frameworks raise instead.

    PyTorch and CuPy have an `OutOfMemoryError`; others raise a `RuntimeError` (or a subclass) that says so
    in its text ("out of memory", ONNX Runtime's "Failed to allocate memory").
    """
    if isinstance(error, MemoryError):
        return True
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "failed to allocate memory" in text
    )
