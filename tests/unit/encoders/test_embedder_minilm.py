"""The embedder on the starter model, against stored vectors of PyTorch in fp32."""

from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from carpool.encoders import Embedder, EncoderConfig
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.openvino.encoder import OpenVinoEncoder
from tests.unit.encoders.conftest import Reference

pytestmark = pytest.mark.model


@pytest_asyncio.fixture
async def embedder(minilm: OpenVinoEncoder, minilm_tokenizer: Tokenizer) -> AsyncIterator[Embedder]:
    async with Embedder(minilm, minilm_tokenizer, EncoderConfig(), name="all-minilm-l6-v2") as embedder:
        yield embedder


async def test_vectors_are_those_of_pytorch(embedder: Embedder, reference: Reference) -> None:
    embeddings = await embedder.embed(reference.texts, truncate=True)
    assert embeddings.token_counts == reference.token_counts
    cosines = (embeddings.vectors * reference.vectors).sum(axis=1)
    assert cosines.min() > 0.999
    assert np.linalg.norm(embeddings.vectors, axis=1) == pytest.approx(1, abs=1e-2)


async def test_a_text_has_the_same_vector_alone_and_in_any_company(
    embedder: Embedder, reference: Reference
) -> None:
    together = (await embedder.embed(reference.texts, truncate=True)).vectors
    backwards = (await embedder.embed(reference.texts[::-1], truncate=True)).vectors[::-1]
    alone = np.concatenate(
        [(await embedder.embed([text], truncate=True)).vectors for text in reference.texts]
    )
    for vectors in (backwards, alone):
        assert (together * vectors).sum(axis=1).min() > 0.9999


async def test_2048_inputs_come_back_in_order(embedder: Embedder) -> None:
    distinct = [
        "red",
        "green",
        "blue",
        "a bus stop",
        "three cats asleep",
        "the price of a ticket to the coast",
    ]
    each = (await embedder.embed(distinct)).vectors
    inputs = [distinct[index * 5 % 6] for index in range(2_048)]
    vectors = (await embedder.embed(inputs)).vectors
    nearest = (vectors @ each.T).argmax(axis=1)
    assert nearest.tolist() == [index * 5 % 6 for index in range(2_048)]
