"""Inputs of an embedding call to token ids, checked and cut to the model's window."""

import asyncio
from collections.abc import Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor

from carpool.errors import ContextLengthExceeded, InvalidRequest
from carpool.models.tokenizer import Tokenizer

Inputs = Sequence[str] | Sequence[Sequence[int]]
"""Texts, or token-id sequences that are taken as they are, without special tokens added."""

_SMALL_INPUTS = 8
_SMALL_CHARS = 1_024
"""A call up to these sizes is tokenised in place: it takes less time than handing it to a thread and back."""

_SLICE_INPUTS = 64
_SLICE_CHARS = 32_768
"""A larger call is handed to the thread in slices of these sizes."""


class InputTokenizer:
    """Tokenises large calls in a thread of its own, slice by slice, so that they hold up nobody.

    `max_tokens` counts special tokens; `prompt` is put before every text. The thread ends with the object.
    """

    def __init__(
        self, tokenizer: Tokenizer, max_tokens: int, *, prompt: str = "", lower_case: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._prompt = prompt
        self._lower_case = lower_case
        self._closing_ids = tokenizer.encode("")[1:]  # what follows a text, such as [SEP]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")

    async def tokenize(self, inputs: Inputs, truncate: bool) -> list[list[int]]:
        """Token ids of each input, in order.

        Raises `InvalidRequest` for an input that is empty, not of the right type or not in the vocabulary,
        and `ContextLengthExceeded` for one that is too long and not to be truncated; `param` is `input` with
        the input's index.
        """
        if not inputs:
            raise InvalidRequest("There is no input.", param="input")
        if len(inputs) <= _SMALL_INPUTS and sum(map(_size, inputs)) <= _SMALL_CHARS:
            return self._tokenize_slice(inputs, 0, truncate)
        loop = asyncio.get_running_loop()
        token_ids: list[list[int]] = []
        for part in _slices(inputs):
            token_ids += await loop.run_in_executor(
                self._thread, self._tokenize_slice, part, len(token_ids), truncate
            )
        return token_ids

    def _tokenize_slice(self, part: Inputs, first_index: int, truncate: bool) -> list[list[int]]:
        for index, each in enumerate(part, first_index):
            if fault := self._fault(each):
                raise InvalidRequest(f"input[{index}] {fault}.", param=f"input[{index}]")
        texts = {index: self._prepared(each) for index, each in enumerate(part) if isinstance(each, str)}
        # One token too many is enough to know, and a long text takes seconds to encode.
        enough = self._max_tokens + 1
        prefixes = {index: self._tokenizer.sufficient_prefix(text, enough) for index, text in texts.items()}
        encoded = iter(self._tokenizer.encode_batch(list(prefixes.values())))
        token_ids = [next(encoded) if isinstance(each, str) else list(each) for each in part]
        for index, ids in enumerate(token_ids):
            if len(ids) <= self._max_tokens:
                continue
            if not truncate:
                name = f"input[{first_index + index}]"
                least = "at least " if prefixes.get(index) != texts.get(index) else ""
                raise ContextLengthExceeded(
                    f"{name} has {least}{len(ids)} tokens, the model takes {self._max_tokens}.", param=name
                )
            closing = self._closing_ids if isinstance(part[index], str) else []
            token_ids[index] = ids[: self._max_tokens - len(closing)] + closing
        return token_ids

    def _fault(self, each: object) -> str | None:
        match each:
            case "":
                return "is an empty string"
            case str():
                return None if _is_unicode(each) else "holds unpaired surrogates, which are not valid Unicode"
            case [] | ():
                return "is an empty list"
            case [*ids]:
                vocabulary = range(self._tokenizer.vocab_size)
                valid = all(type(id_) is int and id_ in vocabulary for id_ in ids)
                return None if valid else f"has a token id that is no integer from 0 to {vocabulary.stop - 1}"
        return "is neither a string nor a list of token ids"

    def _prepared(self, text: str) -> str:
        text = self._prompt + text
        return text.lower() if self._lower_case else text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeError:
        return False
    return True


def _slices(inputs: Inputs) -> Iterator[Inputs]:
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
