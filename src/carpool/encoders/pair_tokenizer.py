"""A query and its documents to token-id pairs, checked and cut to the model's window."""

from collections.abc import Sequence
from functools import partial

from carpool.errors import InvalidRequest
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.encoder import TokenPair

from .input_tokenizer import fault_of, too_long
from .tokenizer_thread import TokenizerThread


class PairTokenizer:
    """Tokenises the query once and each document once, and puts them together as the model was trained.

    `max_tokens` counts special tokens. Raises `ModelFailed` for a tokenizer that knows no pairs.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._template = tokenizer.pair_template
        self._room = max_tokens - self._template.num_tokens
        self._thread = TokenizerThread()

    async def tokenize(self, query: str, documents: Sequence[str], truncate: bool) -> list[TokenPair]:
        """One pair for each document, in order.

        A pair that is too long is cut where it is longest, as the tokenizers library's `longest_first` does,
        or without `truncate` refused. Raises `InvalidRequest` for a text that is empty or no Unicode, and
        `ContextLengthExceeded`; `param` is `query` or `documents[i]`.
        """
        if fault := _fault(query):
            raise InvalidRequest(f"query {fault}.", param="query")
        [(query_ids, is_whole)] = await self._thread.map(self._encode, [query])
        # A document of one token must fit beside it.
        if not truncate and (len(query_ids) >= self._room or not is_whole):
            least = self._template.num_tokens + len(query_ids) + 1
            raise too_long("query", least, False, self._max_tokens, " with any document")
        return await self._thread.map(partial(self._pair, query_ids, truncate), documents)

    def _encode(self, texts: Sequence[object], _: int = 0) -> list[tuple[list[int], bool]]:
        # One token too many is enough to know, and a long text takes seconds to encode.
        known = [str(text) for text in texts]
        return self._tokenizer.encode_beginnings(known, self._room + 1, add_special_tokens=False)

    def _pair(
        self, query_ids: list[int], truncate: bool, part: Sequence[object], first_index: int
    ) -> list[TokenPair]:
        for index, each in enumerate(part, first_index):
            if fault := _fault(each):
                raise InvalidRequest(f"documents[{index}] {fault}.", param=f"documents[{index}]")
        template, room = self._template, self._room
        pairs = []
        for index, (ids, is_whole) in enumerate(self._encode(part), first_index):
            if not truncate and (len(query_ids) + len(ids) > room or not is_whole):
                total = template.num_tokens + len(query_ids) + len(ids)
                raise too_long(f"documents[{index}]", total, is_whole, self._max_tokens, " with the query")
            first, second = _longest_first(len(query_ids), len(ids), room)
            pair = [*template.before, *query_ids[:first], *template.between, *ids[:second], *template.after]
            pairs.append(TokenPair(pair, len(template.before) + first + template.between_first))
        return pairs


def _fault(text: object) -> str | None:
    return fault_of(text, 0) if isinstance(text, str) else "is not a string"


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each text stay: the shorter one's all, unless both are longer than half the room."""
    if first + second <= room:
        return first, second
    shorter = min(first, second)
    if shorter <= room // 2:
        return (first, room - first) if first <= second else (room - second, second)
    half = room // 2
    return (half, room - half) if first <= second else (room - half, half)
