"""A served model as the cache's embedder: vectors of two revisions of it never meet."""

import pytest

from carpool.errors import ModelFailed
from carpool.gateway.served_embedder import ServedEmbedder
from carpool.inference_engine import Priority
from tests.unit.gateway.local_client import LocalClient


async def test_it_is_asked_before_everybody_else() -> None:
    client = LocalClient()
    embedder = ServedEmbedder("vectors", client)
    assert (embedder.served, embedder.id) == (True, "pypi:vectors==1")
    assert (await embedder.embed(["hello", "there"])).shape == (2, client.dimensions)
    assert [request.priority for request in client.embeds] == [Priority.REALTIME]


async def test_one_that_was_loaded_from_other_files_makes_no_vectors() -> None:
    client = LocalClient()
    embedder = ServedEmbedder("vectors", client)
    await embedder.embed(["hello"])
    client.set_state("vectors", revision="files:2")
    with pytest.raises(ModelFailed, match="restart the server"):
        await embedder.embed(["hello"])
    assert ServedEmbedder("vectors", client).id == "files:2"


async def test_one_that_is_not_fetched_yet_has_an_id_that_never_comes_again() -> None:
    client = LocalClient()
    client.set_state("vectors", revision=None)
    embedder, other = (ServedEmbedder("vectors", client) for _ in range(2))
    assert embedder.id != other.id
    client.set_state("vectors", revision="files:1")
    await embedder.embed(["hello"])
    client.set_state("vectors", revision="files:2")
    with pytest.raises(ModelFailed):
        await embedder.embed(["hello"])


def test_one_that_is_not_configured_is_not_served() -> None:
    assert not ServedEmbedder("nobody", LocalClient()).served
