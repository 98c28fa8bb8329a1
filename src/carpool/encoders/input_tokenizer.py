"""Inputs of an embedding call to token ids, checked and cut to the model's window."""

from collections.abc import Sequence
from functools import partial

from carpool.errors import ContextLengthExceeded, InvalidRequest
from carpool.models.tokenizer import Tokenizer

from .tokenizer_thread import TokenizerThread

Inputs = Sequence[str] | Sequence[Sequence[int]]
"""Texts, or token-id sequences that are taken as they are, without special tokens added."""


class InputTokenizer:
    """Checks, tokenises and cuts. `max_tokens` counts special tokens; `lower_case` is for texts."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, *, lower_case: bool = False) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._lower_case = lower_case
        self._closing_ids = tokenizer.encode("")[1:]  # what follows a text, such as [SEP]
        self._thread = TokenizerThread()

    async def tokenize(
        self, inputs: Inputs, truncate: bool, *, prompt: str = "", name: str = "input[{}]"
    ) -> list[list[int]]:
        """Token ids of each input, in order; `prompt` is put before every text.

        Raises `InvalidRequest` for an input that is empty, not of the right type or not in the vocabulary,
        and `ContextLengthExceeded` for one that is too long and not to be truncated; `param` is `name` with
        the input's index put in.
        """
        return await self._thread.map(partial(self._tokenize, truncate, prompt, name), inputs)

    def _tokenize(
        self, truncate: bool, prompt: str, name: str, part: Sequence[object], first_index: int
    ) -> list[list[int]]:
        for index, each in enumerate(part, first_index):
            if fault := fault_of(each, self._tokenizer.vocab_size):
                raise InvalidRequest(f"{name.format(index)} {fault}.", param=name.format(index))
        texts = [self._prepared(prompt + each) for each in part if isinstance(each, str)]
        # One token too many is enough to know, and a long text takes seconds to encode.
        encoded = iter(self._tokenizer.encode_beginnings(texts, self._max_tokens + 1))
        token_ids = []
        for index, each in enumerate(part, first_index):
            is_text = isinstance(each, str)
            ids, is_whole = next(encoded) if is_text else (list(each), True)  # type: ignore[call-overload]
            if len(ids) > self._max_tokens or not is_whole:
                if not truncate:
                    raise too_long(name.format(index), len(ids), is_whole, self._max_tokens)
                closing = self._closing_ids if is_text else []
                ids = ids[: self._max_tokens - len(closing)] + closing
            token_ids.append(ids)
        return token_ids

    def _prepared(self, text: str) -> str:
        return text.lower() if self._lower_case else text


def fault_of(each: object, vocab_size: int) -> str | None:
    """What is wrong with an input, if anything is: how a sentence about it goes on."""
    match each:
        case "":
            return "is an empty string"
        case str():
            return None if _is_unicode(each) else "holds unpaired surrogates, which are not valid Unicode"
        case [] | ():
            return "is an empty list"
        case [*ids]:
            vocabulary = range(vocab_size)
            valid = all(type(id_) is int and id_ in vocabulary for id_ in ids)
            return None if valid else f"has a token id that is no integer from 0 to {vocab_size - 1}"
    return "is neither a string nor a list of token ids"


def too_long(
    param: str, num_tokens: int, is_whole: bool, max_tokens: int, company: str = ""
) -> ContextLengthExceeded:
    """The refusal of an input with `num_tokens` tokens, or more if that is not the whole of it."""
    if num_tokens > max_tokens:
        excess = f"has {'' if is_whole else 'at least '}{num_tokens} tokens"
    else:
        excess = "is far too long"
    return ContextLengthExceeded(
        f"{param}{company} {excess}; the model takes {max_tokens} tokens.", param=param
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeError:
        return False
    return True
