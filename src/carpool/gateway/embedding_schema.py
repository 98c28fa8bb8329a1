"""The body of an embeddings request."""

from typing import Literal

import msgspec

from carpool.gateway.inputs import Inputs
from carpool.gateway.sampling_schema import Label, ModelName, Positive


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Inputs to be turned into vectors."""

    model: ModelName
    input: Inputs
    encoding_format: Literal["float", "base64"] | None = None
    """base64: of little-endian float32."""
    dimensions: Positive | None = None
    """Keep so many leading dimensions, scaled to unit length again."""
    truncate: bool | None = None
    """Cut inputs that are longer than the model's window; without it they are refused, as at OpenAI."""
    user: Label | None = None
    """Accepted and without effect here."""
