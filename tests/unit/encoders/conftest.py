"""The starter embedding model, compiled once, and the PyTorch vectors it is compared with."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from carpool.encoders import SentenceTransformersConfig
from carpool.models.open import open_checkpoint
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.openvino.encoder import OpenVinoEncoder
from carpool.worker.config import available_cores


@dataclass(frozen=True)
class Reference:
    texts: list[str]
    token_counts: list[int]
    vectors: NDArray[np.float32]


@pytest.fixture(scope="session")
def minilm_tokenizer(minilm_path: Path) -> Tokenizer:
    return Tokenizer.from_checkpoint(open_checkpoint(minilm_path))


@pytest.fixture(scope="session")
def minilm(minilm_path: Path) -> Iterator[OpenVinoEncoder]:
    extra = SentenceTransformersConfig.read(minilm_path)
    encoder = OpenVinoEncoder(
        open_checkpoint(minilm_path),
        extra.pooling,
        num_threads=available_cores(),
        max_tokens=extra.max_tokens,
    )
    yield encoder
    encoder.close()


@pytest.fixture(scope="session")
def reference() -> Reference:
    path = Path(__file__).parent / "fixtures" / "all-minilm-l6-v2.json"
    rows = json.loads(path.read_text())
    return Reference(
        [row["text"] for row in rows],
        [row["tokens"] for row in rows],
        np.array([row["vector"] for row in rows], np.float32),
    )
