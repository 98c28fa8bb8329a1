"""`carpool bench chat` against the application on a real port."""

import asyncio
import json

import pytest

from carpool.cli import main
from tests.e2e.server import free_port
from tests.unit.gateway.serving import Service


async def bench(capsys: pytest.CaptureFixture[str], url: str, *arguments: str) -> tuple[int, str, str]:
    """Exit status and what is printed to either side."""
    status = await asyncio.to_thread(main, ["bench", "chat", "--url", url, "--tokens", "80", *arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


async def test_every_planted_repeat_is_counted_and_hits(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service(cached=True)
    async with service.listening() as url:
        status, out, err = await bench(capsys, url, "--users", "4", "--requests", "40", "--json")
    report = json.loads(out)
    assert (status, err) == (0, "")
    assert report["answered"] == 40
    assert 0 < report["repeats"] == report["repeats_hit"] < 40
    assert report["latency_ms"]["all"]["count"] == 40
    assert report["latency_ms"]["exact"]["count"] == report["repeats"]
    assert report["latency_ms"]["miss"]["count"] == len(service.client.generates) == 40 - report["repeats"]


async def test_all_repeats_and_none(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service(cached=True)
    async with service.listening() as url:
        _, every, _ = await bench(capsys, url, "--users", "4", "--requests", "30", "--repeats", "1", "--json")
        asked = len(service.client.generates)
        _, none, _ = await bench(capsys, url, "--users", "4", "--requests", "30", "--repeats", "0")
    assert json.loads(every)["repeats_hit"] == 30
    assert asked == 20  # asked once before the clock runs
    assert len(service.client.generates) == asked + 30  # what earlier runs left is not found
    assert "wrong hits: 0 of 0 by meaning" in none
    assert "planted" not in none


async def test_failures_are_told_and_make_it_fail(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service()
    async with service.listening() as url:
        status, out, _ = await bench(capsys, url, "--users", "2", "--requests", "6", "--model", "nobody")
    assert status == 1
    assert "failed: 6 x 404 " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--users", "0"], "--users must be at least 1"),
        (["--repeats", "1.5"], "--repeats must be from 0 to 1"),
        (["--repeats", "nan"], "--repeats must be from 0 to 1"),
        (["--requests", "100000", "--model", "parrot"], "different questions: --requests must not be more"),
        ([], "no server answers"),
    ],
)
async def test_what_cannot_be_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    status, out, err = await bench(capsys, f"http://127.0.0.1:{free_port()}", *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
