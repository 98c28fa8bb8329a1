"""Request ids, the log line, and the end of requests that nobody foresaw."""

import logging
import re

import pytest

from tests.unit.gateway.serving import CHAT_PATH, Service, chat, events


@pytest.mark.parametrize("offered", ["abc", "A.b_c-1", "x" * 128])
async def test_a_clients_request_id_is_kept(offered: str) -> None:
    async with Service().http() as http:
        for path in ("/health/live", "/nothing"):
            reply = await http.get(path, headers={"x-request-id": offered})
            assert reply.headers.get_list("x-request-id") == [offered]
        reply = await http.post(CHAT_PATH, json=chat(), headers={"x-request-id": offered})
        assert reply.json()["id"] == f"chatcmpl-{offered}"


@pytest.mark.parametrize("offered", ["", "a b", "x" * 129, 'a"b', "ä", "a;b", "<script>"])
async def test_one_that_is_not_fit_to_be_repeated_is_replaced(offered: str) -> None:
    async with Service().http() as http:
        reply = await http.get("/health/live", headers=[(b"x-request-id", offered.encode())])
    assert re.fullmatch(r"req-[0-9a-f]{24}", reply.headers["x-request-id"])


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unforeseen_error_is_500_without_its_words(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service()
    service.client.failure = RuntimeError("secret of the house")  # type: ignore[assignment]
    async with service.http() as http:
        reply = await http.post(CHAT_PATH, json=chat("my private words", stream=stream))
        assert (await http.get("/health/live")).status_code == 200
    error = events(reply.text)[-1]["error"] if stream else reply.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "secret" not in reply.text
    assert "Traceback" not in reply.text
    assert reply.headers["x-request-id"] in caplog.text
    assert "secret of the house" in caplog.text  # with its traceback, for the operator
    assert "my private words" not in caplog.text


async def test_one_line_per_request_without_prompts_keys_or_queries(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "carpool.access")
    async with Service().http(authorization="Bearer sk-mine") as http:
        await http.post(CHAT_PATH, json=chat("private words"), headers={"x-request-id": "id-1"})
        await http.get("/v1/models/a%0Ab?key=sk-mine", headers={"x-request-id": "id-2"})
    lines = [record.getMessage() for record in caplog.records if record.name == "carpool.access"]
    assert len(lines) == 2
    assert re.fullmatch(
        r"method=POST path=/v1/chat/completions status=200 ms=\d+\.\d key=- id=id-1", lines[0]
    )
    assert re.fullmatch(
        r"method=GET path=/v1/models/a%0Ab status=404 ms=\d+\.\d key=- id=id-2 error=not_found",
        lines[1],
    )
    assert "private" not in caplog.text
    assert "sk-mine" not in caplog.text
