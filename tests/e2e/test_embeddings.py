"""Embeddings by the real starter model."""

import base64

import numpy as np
import openai

from tests.e2e.server import Server

MODEL = "all-minilm-l6-v2"
TEXTS = ["A man rides a horse.", "Someone is riding a horse.", "The stock market fell today."]


def test_float_base64_and_client_agree(server: Server) -> None:
    with server.client() as client:
        floats = client.post("/v1/embeddings", json={"model": MODEL, "input": TEXTS}).json()
        coded = client.post(
            "/v1/embeddings", json={"model": MODEL, "input": TEXTS, "encoding_format": "base64"}
        ).json()
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as official:
        typed = official.embeddings.create(model=MODEL, input=TEXTS)

    vectors = np.array([row["embedding"] for row in floats["data"]], np.float32)
    decoded = np.stack(
        [np.frombuffer(base64.b64decode(row["embedding"]), np.float32) for row in coded["data"]]
    )
    assert vectors.shape == (3, 384)
    assert [row["index"] for row in floats["data"]] == [0, 1, 2]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(vectors, decoded, atol=1e-6)
    np.testing.assert_allclose(vectors, np.array([row.embedding for row in typed.data]), atol=1e-6)
    similar, other = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    assert similar > 0.8 > 0.3 > other
    assert (
        floats["usage"]["prompt_tokens"] == floats["usage"]["total_tokens"] == typed.usage.prompt_tokens == 24
    )


def test_2048_inputs_keep_their_order(server: Server) -> None:
    texts = [f"sentence number {i}" for i in range(2048)]
    probe = [0, 1, 1023, 2047]
    with server.client() as client:
        many = client.post("/v1/embeddings", json={"model": MODEL, "input": texts}).json()["data"]
        few = client.post("/v1/embeddings", json={"model": MODEL, "input": [texts[i] for i in probe]}).json()[
            "data"
        ]
    assert [row["index"] for row in many] == list(range(2048))
    for row, i in zip(few, probe, strict=True):
        assert float(np.dot(row["embedding"], many[i]["embedding"])) > 0.999
