"""The starter model, loaded once for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from carpool.models.open import open_checkpoint
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.openvino.config import DecoderConfig, KvCachePrecision, WeightFormat
from carpool.runtimes.openvino.decoder import OpenVinoDecoder, load_decoder
from carpool.worker.config import available_cores


@pytest.fixture(scope="session")
def tokenizer(smollm2_path: Path) -> Tokenizer:
    return Tokenizer.from_checkpoint(open_checkpoint(smollm2_path))


@pytest.fixture(scope="session")
def u8_decoder(smollm2_path: Path) -> Iterator[OpenVinoDecoder]:
    """With u8 keys and values in 1 GiB."""
    config = DecoderConfig(kv_cache_precision=KvCachePrecision.U8, kv_cache_bytes=1 << 30)
    decoder = load_decoder(open_checkpoint(smollm2_path), config, num_threads=available_cores())
    yield decoder
    decoder.close()


@pytest.fixture(scope="session")
def f32_decoder(smollm2_path: Path) -> Iterator[OpenVinoDecoder]:
    """In f32 throughout, so that equal sums give equal tokens."""
    config = DecoderConfig(
        weights=WeightFormat.F32, kv_cache_precision=KvCachePrecision.F32, kv_cache_bytes=512 << 20
    )
    decoder = load_decoder(open_checkpoint(smollm2_path), config, num_threads=available_cores())
    yield decoder
    decoder.close()
