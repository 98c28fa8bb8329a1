"""The bodies of rerank requests, in two shapes that their fields tell apart.

Cohere's and Jina's has `documents`, text-embeddings-inference's has `texts`:
https://docs.cohere.com/reference/rerank, https://huggingface.github.io/text-embeddings-inference/.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from carpool.gateway.sampling_schema import Label, ModelName, Positive
from carpool.gateway.validation import Unsupported, require_default


@dataclass(frozen=True, slots=True)
class Question:
    """What either shape asks."""

    query: str
    documents: list[str]
    documents_field: str
    """What the shape calls them."""
    model: str | None
    """None: whoever can."""
    truncate: bool
    raw: bool
    top_n: int | None
    with_text: bool
    """Repeat the documents in the reply."""
    max_tokens_per_doc: int | None


class RerankDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document as an object."""

    text: str


class RerankRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Documents to be put in order by how well they answer a query; Cohere's and Jina's shape."""

    query: str
    documents: Annotated[list[str | RerankDocument], Meta(min_length=1)]
    model: ModelName | None = None
    """None: the one reranker that is served, else the one embedding model."""
    top_n: Positive | None = None
    """Tell only so many, the best ones; None: all."""
    return_documents: bool | None = None
    truncate: bool | None = None
    """Cut what does not fit the model, as Cohere and Jina do; false: refuse it. None: true."""
    max_tokens_per_doc: Positive | None = None
    """Accepted where it asks for no more than the cut to the model's window."""
    user: Label | None = None
    """Accepted and without effect here."""

    # Accepted with the values that ask for nothing.
    max_chunks_per_doc: int | None = None
    rank_fields: Any = None
    priority: int | None = None

    def question(self) -> Question:
        """What it asks. Raises `Unsupported`."""
        require_default("max_chunks_per_doc", self.max_chunks_per_doc, (None, 1))
        require_default("rank_fields", self.rank_fields, (None, ["text"]))
        require_default("priority", self.priority, (None, 0))
        return Question(
            query=self.query,
            documents=[each if isinstance(each, str) else each.text for each in self.documents],
            documents_field="documents",
            model=self.model,
            truncate=self.truncate is not False,
            raw=False,
            top_n=self.top_n,
            with_text=bool(self.return_documents),
            max_tokens_per_doc=self.max_tokens_per_doc,
        )


class TeiRerankRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Texts to be put in order by how well they answer a query; text-embeddings-inference's shape."""

    query: str
    texts: Annotated[list[str], Meta(min_length=1)]
    model: ModelName | None = None
    """Not of the original; None: the one reranker that is served, else the one embedding model."""
    raw_scores: bool | None = None
    """Logits, where a reranker puts a sigmoid behind them."""
    return_text: bool | None = None
    truncate: bool | None = None
    """Cut what does not fit the model; without it, it is refused."""
    truncation_direction: Literal["left", "Left", "right", "Right"] | None = None
    """Texts are cut at their end: right."""

    def question(self) -> Question:
        """What it asks. Raises `Unsupported`."""
        if self.truncate:
            require_default("truncation_direction", self.truncation_direction, (None, "right", "Right"))
        return Question(
            query=self.query,
            documents=self.texts,
            documents_field="texts",
            model=self.model,
            truncate=bool(self.truncate),
            raw=bool(self.raw_scores),
            top_n=None,
            with_text=bool(self.return_text),
            max_tokens_per_doc=None,
        )


class _Shape(msgspec.Struct):
    texts: msgspec.Raw | UnsetType = UNSET


_shape = msgspec.json.Decoder(_Shape)


def is_tei(body: bytes) -> bool:
    """Whether a body is in text-embeddings-inference's shape. What is no object is in neither."""
    try:
        return _shape.decode(body).texts is not UNSET
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def check_window(question: Question, max_tokens: int | None) -> None:
    """Raise `Unsupported` for a bound on documents that is tighter than the model's window, in tokens."""
    bound = question.max_tokens_per_doc
    if bound is not None and max_tokens is not None and bound < max_tokens:
        raise Unsupported(
            f"`max_tokens_per_doc` below the model's window of {max_tokens} tokens is not supported.",
            param="max_tokens_per_doc",
        )
