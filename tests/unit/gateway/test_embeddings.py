"""Embeddings: formats, dimensions, token ids, large calls."""

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from carpool.cache.config import CacheConfig
from carpool.gateway.config import EmbeddingsConfig, GatewayConfig
from carpool.gateway.embedding_reply import body_slices, shortened
from carpool.inference_engine import Priority
from tests.unit.encoders import tiny_checkpoints
from tests.unit.gateway.local_client import LocalClient, vector_of
from tests.unit.gateway.real_worker import EMBEDDER, Outcome, RealService, http, tiny_models
from tests.unit.gateway.serving import Service

PATH = "/v1/embeddings"


async def embed(service: Service, **fields: Any) -> Any:
    async with service.http() as http:
        reply = await http.post(PATH, json={"model": "vectors", **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_one_text_and_several() -> None:
    one = await embed(Service(), input="a")
    assert one["object"] == "list"
    assert one["model"] == "vectors"
    assert one["usage"] == {"prompt_tokens": 1, "total_tokens": 1}
    several = await embed(Service(), input=["a", "bcd"])
    assert [(row["object"], row["index"]) for row in several["data"]] == [("embedding", 0), ("embedding", 1)]
    assert several["usage"]["prompt_tokens"] == 4
    assert several["data"][0] == one["data"][0]


async def test_floats_and_base64_are_the_very_vectors() -> None:
    texts = ["a", "b", "c"]
    expected = np.stack([vector_of(text, 8) for text in texts])
    floats = await embed(Service(), input=texts)
    np.testing.assert_array_equal(np.array([r["embedding"] for r in floats["data"]], np.float32), expected)
    coded = await embed(Service(), input=texts, encoding_format="base64")
    decoded = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in coded["data"]]
    np.testing.assert_array_equal(np.stack(decoded), expected)


async def test_fewer_dimensions_have_unit_length_again() -> None:
    row = np.array((await embed(Service(), input="a", dimensions=3))["data"][0]["embedding"])
    head = vector_of("a", 8)[:3]
    np.testing.assert_allclose(row, head / np.linalg.norm(head), rtol=1e-6)
    assert len((await embed(Service(), input="a", dimensions=8))["data"][0]["embedding"]) == 8


async def test_too_many_dimensions_are_refused_also_where_they_were_not_known_before() -> None:
    service = Service()
    service.client.set_state("vectors", dimensions=None)  # as of a model that the request lets load
    async with service.http() as http:
        reply = await http.post("/v1/embeddings", json={"model": "vectors", "input": "a", "dimensions": 9})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "dimensions")
    assert "has 8 dimensions, so 9 are too many" in reply.json()["error"]["message"]


def test_a_vector_of_zeros_stays_one() -> None:
    np.testing.assert_array_equal(shortened(np.zeros((1, 4), np.float32), 2), np.zeros((1, 2), np.float32))


async def test_token_ids_are_refused_by_name_or_taken_as_the_models_own() -> None:
    async with Service().http() as http:
        refused = await http.post(PATH, json={"model": "vectors", "input": [1, 2]})
    assert refused.status_code == 400
    assert "check_embedding_ctx_length=False" in refused.json()["error"]["message"]
    service = Service(GatewayConfig(embeddings=EmbeddingsConfig(token_ids="own")))
    await embed(service, input=[1, 2])
    await embed(service, input=[[1, 2], [3]])
    assert [list(call.inputs) for call in service.client.embeds] == [[[1, 2]], [[1, 2], [3]]]


async def test_own_token_ids_that_the_model_has_not_are_refused_with_their_index(tmp_path: Path) -> None:
    vocabulary = tiny_checkpoints.BY_NAME["bert-mean"].full_config["vocab_size"]
    own = EmbeddingsConfig(token_ids="own")
    models = tiny_models(tmp_path)[2:]
    async with RealService(models, CacheConfig(mode="off"), tmp_path, embeddings=own) as service:

        async def asked(ids: list[list[int]]) -> Outcome:
            return await service.send(http(PATH, {"model": EMBEDDER, "input": ids}))

        refused, served = await asyncio.gather(
            asked([[1], [vocabulary - 1], [2, vocabulary], [vocabulary]]), asked([[1], [vocabulary - 1]])
        )
        await service.quiet()
    assert (refused.status, refused.json()["error"]["param"]) == (400, "input[2]")
    assert f"0 to {vocabulary - 1}" in refused.json()["error"]["message"]
    assert served.status == 200
    assert len(served.json()["data"]) == 2


async def test_a_user_is_accepted_and_changes_nothing() -> None:
    service = Service()
    assert await embed(service, input="a", user="ann") == await embed(service, input="a")
    named, unnamed = service.client.embeds
    assert msgspec.structs.replace(named, timeout_s=0) == msgspec.structs.replace(unnamed, timeout_s=0)


async def test_large_calls_give_way_to_small_ones() -> None:
    service = Service()
    await embed(service, input="a")
    await embed(service, input=["a"] * 64)
    assert [call.priority for call in service.client.embeds] == [Priority.INTERACTIVE, Priority.BULK]
    assert service.client.embeds[0].tenant == "local"


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 384), (21, 384), (22, 384), (200, 384), (2, 100_000)])
def test_slices_join_to_one_body(shape: tuple[int, int], coded: bool) -> None:
    vectors = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    body = json.loads(b"".join(body_slices(vectors, 'a"model', 7, coded)))
    assert [row["index"] for row in body["data"]] == list(range(shape[0]))
    assert body["model"] == 'a"model'
    np.testing.assert_array_equal(np.stack([_vector(row["embedding"]) for row in body["data"]]), vectors)


def _vector(value: Any) -> NDArray[np.float32]:
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value), "<f4")
    return np.array(value, np.float32)


async def test_a_large_call_keeps_others_moving() -> None:
    """While 2,048 vectors are written as floats, small requests are answered all along.

    A loop that was blocked for the whole body would answer none of them before the end.
    """
    service = Service(client=LocalClient(dimensions=384))
    texts = [f"text {i}" for i in range(2048)]
    answered = 0

    async def small(http: httpx2.AsyncClient) -> None:
        nonlocal answered
        while True:
            assert (await http.get("/health/live")).status_code == 200
            answered += 1

    async with service.listening() as url, httpx2.AsyncClient(base_url=url, timeout=60) as http:
        service.client.going.clear()
        others = asyncio.create_task(small(http))
        request = http.stream("POST", PATH, json={"model": "vectors", "input": texts})
        async with asyncio.timeout(60):
            service.client.going.set()
            async with request as reply:
                assert "content-length" not in reply.headers
                before = answered
                chunks = [chunk async for chunk in reply.aiter_bytes()]
                during = answered - before
        others.cancel()
    data = json.loads(b"".join(chunks))["data"]
    assert [row["index"] for row in data] == list(range(2048))
    np.testing.assert_array_equal(_vector(data[2047]["embedding"]), vector_of("text 2047", 384))
    assert during >= 10


async def test_no_slice_of_the_body_takes_long() -> None:
    """The longest of the slices is a small part of the whole."""
    vectors = np.random.default_rng(0).standard_normal((2048, 384)).astype(np.float32)
    times = []
    began = time.perf_counter()
    for _ in body_slices(vectors, "m", 1, coded=False):
        times.append(time.perf_counter() - began)
        began = time.perf_counter()
    assert len(times) >= 45
    assert sorted(times)[len(times) // 2] < sum(times) / 30
