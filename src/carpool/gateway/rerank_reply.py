"""The bodies of rerank replies, written in slices that each hold the event loop for under 2 ms."""

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

_RESULTS_PER_SLICE = 1024
_CHARS_PER_SLICE = 256 * 1024

_encoder = msgspec.json.Encoder()


class RankedDocument(msgspec.Struct, frozen=True):
    """The text of a document."""

    text: str


class RankedResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A document's place in the request, and its score; the higher the better."""

    index: int
    relevance_score: float
    document: RankedDocument | None = None


class RerankUsage(msgspec.Struct, frozen=True):
    """What a request took."""

    prompt_tokens: int
    total_tokens: int


class RerankTokens(msgspec.Struct, frozen=True):
    """What a request took, as Cohere tells it."""

    input_tokens: int


class RerankMeta(msgspec.Struct, frozen=True):
    """Cohere's place for it."""

    tokens: RerankTokens


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """A reply in Cohere's and Jina's shape. It is written by hand so that it can be sent in slices."""

    id: str
    object: Literal["list"] = "list"
    model: str
    results: list[RankedResult]
    usage: RerankUsage
    meta: RerankMeta


class TeiResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A text's place in the request, and its score; a reply in TEI's shape is a list of them."""

    index: int
    score: float
    text: str | None = None


def ranked(scores: NDArray[np.float32], top_n: int | None) -> list[int]:
    """The documents' indexes, best first, equal ones in the order they came in."""
    order: list[int] = np.argsort(-scores, kind="stable")[:top_n].tolist()
    return order


def ranking_slices(
    request_id: str,
    model: str,
    scores: NDArray[np.float32],
    order: Sequence[int],
    documents: Sequence[str] | None,
    num_tokens: int,
) -> Iterator[bytes]:
    """The parts of a `Ranking`; `documents` to have them repeated."""
    results = (
        RankedResult(
            index=index,
            relevance_score=float(scores[index]),
            document=None if documents is None else RankedDocument(documents[index]),
        )
        for index in order
    )
    opening = b'{"id":%b,"object":"list","model":%b,"results":[' % (
        _encoder.encode(request_id),
        _encoder.encode(model),
    )
    usage, meta = RerankUsage(num_tokens, num_tokens), RerankMeta(RerankTokens(num_tokens))
    closing = b'],"usage":%b,"meta":%b}' % (_encoder.encode(usage), _encoder.encode(meta))
    return _slices(opening, results, closing, _sizes(order, documents))


def tei_slices(
    scores: NDArray[np.float32], order: Sequence[int], texts: Sequence[str] | None
) -> Iterator[bytes]:
    """The parts of a list of `TeiResult`; `texts` to have them repeated."""
    results = (
        TeiResult(index=index, score=float(scores[index]), text=None if texts is None else texts[index])
        for index in order
    )
    return _slices(b"[", results, b"]", _sizes(order, texts))


def _sizes(order: Sequence[int], documents: Sequence[str] | None) -> Iterator[int]:
    """The characters of each result that come from the request."""
    return (0 if documents is None else len(documents[index]) for index in order)


def _slices(
    opening: bytes, results: Iterator[msgspec.Struct], closing: bytes, sizes: Iterator[int]
) -> Iterator[bytes]:
    part: list[msgspec.Struct] = []
    chars = 0
    for result, size in zip(results, sizes, strict=True):
        if part and (len(part) == _RESULTS_PER_SLICE or chars + size > _CHARS_PER_SLICE):
            yield opening + _encoder.encode(part)[1:-1]
            opening, part, chars = b",", [], 0
        part.append(result)
        chars += size
    yield opening + _encoder.encode(part)[1:-1] + closing
