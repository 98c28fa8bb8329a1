"""Tokenising off the event loop, slice by slice, so that a large call holds up nobody."""

import asyncio
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

_SMALL_INPUTS = 8
_SMALL_CHARS = 1_024
"""A call up to these sizes is tokenised in place: it takes less time than handing it to a thread and back."""

_SLICE_INPUTS = 64
_SLICE_CHARS = 32_768
"""A larger call is handed to the thread in slices of these sizes."""


class TokenizerThread:
    """A thread that ends with the object."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")

    async def map(
        self, work: Callable[[Sequence[object], int], list[Result]], inputs: Sequence[object]
    ) -> list[Result]:
        """What `work` returns for the slices of the inputs, together; it is told each slice's first index."""
        if len(inputs) <= _SMALL_INPUTS and sum(map(_size, inputs)) <= _SMALL_CHARS:
            return work(inputs, 0)
        loop = asyncio.get_running_loop()
        results: list[Result] = []
        for part in _slices(inputs):
            results += await loop.run_in_executor(self._thread, work, part, len(results))
        return results


def _slices(inputs: Sequence[object]) -> Iterator[Sequence[object]]:
    """Cut inputs so that none of the parts but a long single input takes long."""
    start = size = 0
    for index, each in enumerate(inputs):
        if index > start and (index - start == _SLICE_INPUTS or size >= _SLICE_CHARS):
            yield inputs[start:index]
            start, size = index, 0
        size += _size(each)
    yield inputs[start:]


def _size(each: object) -> int:
    """Characters or token ids, roughly the time it takes."""
    return len(each) if isinstance(each, Sized) else 1
