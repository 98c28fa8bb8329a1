"""A stored answer with what is needed to find it."""

from dataclasses import dataclass

import msgspec

from carpool.cache.answer import Answer
from carpool.cache.index import Vector
from carpool.cache.query import Query

_OVERHEAD_BYTES = 1024
"""About what the objects and tables around an entry take."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Answer)


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """An answer under its digests. The answer is kept encoded: compact, and its size is known."""

    exact: bytes
    partition: bytes
    tenant: str
    model: str
    turn: str | None
    """The question, where it may be matched by meaning."""
    created: float
    completion_tokens: int
    encoded: bytes

    @classmethod
    def of(cls, query: Query, answer: Answer) -> "Entry":
        """The entry of a query's answer."""
        encoded = _encoder.encode(answer)
        return cls(
            query.exact,
            query.partition,
            query.tenant,
            query.model,
            query.turn,
            answer.created,
            answer.completion_tokens,
            encoded,
        )

    @property
    def answer(self) -> Answer:
        """The answer. Raises `msgspec.DecodeError` if the bytes are none."""
        return _decoder.decode(self.encoded)

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, its vector not counted."""
        return _OVERHEAD_BYTES + len(self.encoded) + len(self.turn or "") * 2

    def fits(self, max_tokens: int | None) -> bool:
        """Whether a request with this bound would have got all of the answer."""
        return max_tokens is None or self.completion_tokens <= max_tokens


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """An entry and the unit vector of its question, as a store keeps them."""

    entry: Entry
    vector: Vector | None
