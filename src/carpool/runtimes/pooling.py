"""How an encoder's token vectors become one vector."""

from dataclasses import dataclass
from enum import StrEnum


class PoolingMode(StrEnum):
    """What is taken of the token vectors; padding never counts."""

    MEAN = "mean"
    CLS = "cls"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Pooling:
    """The last layers of an embedding model. The default is what sentence-transformers assumes as well."""

    mode: PoolingMode = PoolingMode.MEAN
    normalize: bool = False
    """Whether vectors are scaled to length 1."""
