"""A stored answer with what is needed to find it."""

import math
import zlib
from dataclasses import dataclass

import msgspec
import numpy as np

from carpool.cache.answer import Answer
from carpool.cache.index import Vector, normalised
from carpool.cache.query import Query

_OVERHEAD_BYTES = 1024
"""About what the objects and tables around an entry take."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Answer)


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
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
    cost_ms: float = 0.0
    """How long the model took to answer, which is what a hit saves."""

    @classmethod
    def of(cls, query: Query, answer: Answer, cost_ms: float = 0.0) -> "Entry":
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
            cost_ms,
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


class _Stored(msgspec.Struct, array_like=True):
    """A record as stores keep it."""

    exact: bytes
    partition: bytes
    tenant: str
    model: str
    turn: str | None
    created: float
    cost_ms: float
    answer: bytes
    embedder: str | None
    vector: bytes | None


_stored_decoder = msgspec.msgpack.Decoder(_Stored)


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """An entry and the unit vector of its question, as a store keeps them."""

    entry: Entry
    vector: Vector | None

    def encode(self, embedder: str) -> bytes:
        """The record as bytes, CRC-32 first. `embedder` names the model that the vector is of."""
        entry, vector = self.entry, self.vector
        data = _encoder.encode(
            _Stored(
                entry.exact,
                entry.partition,
                entry.tenant,
                entry.model,
                entry.turn,
                entry.created,
                entry.cost_ms,
                entry.encoded,
                None if vector is None else embedder,
                None if vector is None else vector.astype("<f4").tobytes(),
            )
        )
        return zlib.crc32(data).to_bytes(4, "little") + data

    @classmethod
    def decode(cls, exact: bytes, data: bytes, embedder: str) -> "Record":
        """The record kept under a digest, without its vector if that is another embedder's.

        Raises `ValueError` for bytes that are not what `encode` made of a record of this digest.
        """
        if zlib.crc32(data[4:]).to_bytes(4, "little") != data[:4]:
            raise ValueError("its checksum is wrong")
        stored = _stored_decoder.decode(memoryview(data)[4:])
        if stored.exact != exact:
            raise ValueError("it is of another request")
        if not (math.isfinite(stored.created) and math.isfinite(stored.cost_ms)):
            raise ValueError("its time is not a number")
        vector = None
        if stored.vector is not None and stored.embedder == embedder:
            vector = normalised(np.frombuffer(stored.vector, dtype="<f4"))
        entry = Entry(
            stored.exact,
            stored.partition,
            stored.tenant,
            stored.model,
            stored.turn,
            stored.created,
            _decoder.decode(stored.answer).completion_tokens,
            stored.answer,
            stored.cost_ms,
        )
        return cls(entry, vector)
