"""The list of models, and whether they are up."""

from tests.unit.gateway.local_client import LocalClient
from tests.unit.gateway.serving import Service, chat


async def test_the_list_tells_what_is_worth_knowing() -> None:
    async with Service().http() as http:
        body = (await http.get("/v1/models")).json()
    assert body["object"] == "list"
    parrot, vectors = body["data"]
    assert (parrot["id"], parrot["object"], parrot["owned_by"]) == ("parrot", "model", "carpool")
    assert isinstance(parrot["created"], int)
    assert parrot["aliases"] == ["org/parrot"]
    assert (parrot["task"], parrot["max_model_len"], parrot["phase"]) == ("generate", 64, "ready")
    assert parrot["details"]["chat_template"] == "fallback"
    assert vectors["dimensions"] == 8


async def test_one_model_by_id_and_by_an_alias_with_a_slash() -> None:
    async with Service().http() as http:
        assert (await http.get("/v1/models/vectors")).json()["id"] == "vectors"
        assert (await http.get("/v1/models/org/parrot")).json()["id"] == "parrot"
        assert (await http.get("/v1/models/org%2Fparrot")).json()["id"] == "parrot"
        missing = await http.get("/v1/models/org/none")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_ready_only_when_every_model_is_up() -> None:
    service = Service(client=LocalClient(ready=False))
    async with service.http() as http:
        assert (await http.get("/health/live")).json() == {"status": "live"}
        reply = await http.get("/health/ready")
        assert reply.status_code == 503
        assert reply.json() == {
            "status": "loading",
            "models": [
                {"id": "parrot", "phase": "queued", "percent": 0.0},
                {"id": "vectors", "phase": "queued", "percent": 0.0},
            ],
        }
        service.client.become_ready()
        service.client.set_state("vectors", phase="compiling", percent=62.54)
        reply = await http.get("/health/ready")
        assert (reply.status_code, reply.json()["models"][1]["percent"]) == (503, 62.5)
        service.client.become_ready()
        assert (await http.get("/health/ready")).json()["status"] == "ready"


async def test_a_failed_model_is_not_ready_and_only_the_list_says_why() -> None:
    service = Service()
    service.client.set_state("vectors", phase="failed", error="/secret/path is not there")
    async with service.http() as http:
        reply = await http.get("/health/ready")
        assert (reply.status_code, reply.json()["status"]) == (503, "failed")
        assert "secret" not in reply.text
        assert "secret" in (await http.get("/v1/models/vectors")).text


async def test_draining_refuses_new_requests() -> None:
    service = Service()
    service.app.state.drain.begin()
    async with service.http() as http:
        assert (await http.get("/health/live")).status_code == 200
        assert (await http.get("/health/ready")).json()["status"] == "draining"
        reply = await http.post("/v1/chat/completions", json=chat())
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "draining")
