"""`carpool cache` against the application on a real port."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from carpool.cache.calibration import Calibration
from carpool.cache.config import CacheConfig
from carpool.cache.labelled import Pair
from carpool.cache.memory import MemoryStore
from carpool.cache.service import AnswerCache
from carpool.cli import main
from carpool.gateway.config import GatewayConfig, KeyConfig, Scope
from carpool.telemetry import Registry
from tests.e2e.server import free_port
from tests.unit.cache.bag_of_words import BagOfWords
from tests.unit.cache.questions import labelled_pairs
from tests.unit.gateway.local_client import LocalClient
from tests.unit.gateway.serving import CHAT_PATH, Service, chat
from tests.unit.gateway.words_client import WordsClient

GUITAR = "How can I learn to play the guitar at home?"
SAME = "how can I learn to play the guitar at home"
NEAR = "Can I learn to play the guitar at home?"
BEES = "How do bees make honey?"


class Shell:
    """Runs commands against one server."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self._capsys = capsys

    async def run(self, *arguments: str) -> str:
        """What a command prints that does as it is told."""
        status, out, err = await self.result(*arguments)
        assert (status, err) == (0, "")
        return out

    async def result(self, *arguments: str) -> tuple[int, str, str]:
        """Its exit status, and what it prints to either side."""
        try:
            status = await asyncio.to_thread(main, ["cache", *arguments, "--url", self.url])
        except SystemExit as end:  # argparse's way
            status = int(str(end.code))
        printed = self._capsys.readouterr()
        return status, printed.out, printed.err


@asynccontextmanager
async def serving(
    capsys: pytest.CaptureFixture[str],
    *questions: str,
    keys: tuple[KeyConfig, ...] = (),
    client: LocalClient | None = None,
    **settings: Any,
) -> AsyncIterator[Shell]:
    """A server that was asked these questions."""
    config = CacheConfig(lookup_budget_ms=10_000, audit_rate=1.0, **settings)
    cache = AnswerCache(config, embed=BagOfWords(), store=MemoryStore(), registry=Registry())
    service = Service(GatewayConfig(keys=keys), client, cache=cache)
    async with service.http() as http:
        for question in questions:
            await http.post(CHAT_PATH, json=chat(question))
            await cache.flush()
    async with service.listening() as url:
        yield Shell(url, capsys)


async def test_stats_as_a_table_and_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(capsys, GUITAR, GUITAR, SAME, BEES) as shell:
        text = await shell.run("stats")
        assert "2 of 100,000; 2 can be found by meaning" in text
        assert "verified: at most 3.0 % of the hits by meaning wrong" in text
        assert "1 wait for a verdict" in text
        *_, header, row = text.splitlines()
        assert header.split()[:5] == ["tenant", "model", "exact", "joined", "semantic"]
        assert row.split()[:7] == ["local", "parrot", "1", "0", "1", "2", "0"]
        assert "not audited" in row
        assert row.count("%") == 2
        status = json.loads(await shell.run("stats", "--json"))
        assert (status["entries"], status["traffic"][0]["lookups"]["semantic"]) == (2, 1)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"policy": "threshold"}, "threshold: cosine above 0.8"),
        ({"embedder": "another"}, "no calibration for the embedder another"),
    ],
)
async def test_stats_without_verification(
    capsys: pytest.CaptureFixture[str], settings: dict[str, Any], told: str
) -> None:
    async with serving(capsys, GUITAR, **settings) as shell:
        text = await shell.run("stats")
    assert told in text
    assert "verdict" not in text
    assert "%" not in text.splitlines()[-1]


async def test_inspect_shows_texts_that_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(capsys, GUITAR, "Is \x1b]0;owned\x07 green\na colour?") as shell:
        text = await shell.run("inspect")
        assert "\x1b" not in text
        assert "\x07" not in text
        assert text.index("green a colour?") < text.index(GUITAR)
        assert "2 shown" in text
        assert "1 shown" in await shell.run("inspect", "--limit", "1")
        (entry,) = json.loads(await shell.run("inspect", "--limit", "1", "--json"))["data"]
        assert GUITAR not in await shell.run("inspect", "--digest", entry["digest"])
        assert "no such entries" in await shell.run("inspect", "--older-than", "1d", "--tenant", "local")


async def test_invalidate(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(capsys, GUITAR, BEES) as shell:
        status, _, err = await shell.result("invalidate", "--dry-run")
        assert (status, err) == (2, "carpool: give a condition such as --tenant, or --all\n")
        assert await shell.run("invalidate", "--tenant", "x") == "0 entries were dropped\n"
        assert await shell.run("invalidate", "--all", "--dry-run") == "2 entries would be dropped\n"
        done = json.loads(await shell.run("invalidate", "--model", "parrot", "--older-than", "0s", "--json"))
        assert done == {"entries": 2, "dry_run": False}
        assert await shell.run("invalidate", "--all") == "0 entries were dropped\n"


async def test_what_waits_for_a_verdict_and_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(capsys, GUITAR, SAME, NEAR) as shell:
        text = await shell.run("audits")
        assert "2 shown, oldest first" in text
        assert text.index("served") < text.index("near miss")
        for told in (f"question  {SAME}", f"question  {NEAR}", f"stored    {GUITAR}", f"answer    {GUITAR}"):
            assert told in text
        hit, near = (line.split(",")[0] for line in text.splitlines() if "probability" in line)
        assert hit in await shell.run("audits", "--limit", "1", "--tenant", "local", "--model", "parrot")
        assert await shell.run("audits", "--model", "another") == "nothing waits for a verdict\n"
        (listed, _) = json.loads(await shell.run("audits", "--json"))["data"]
        assert (listed["id"], listed["served"]) == (hit, True)
        told = await shell.run("verdict", hit, "different")
        assert told == f"{hit}: the stored answer counts as wrong\n"
        assert json.loads(await shell.run("verdict", near, "same", "--json")) == {"id": near, "wrong": False}
        assert await shell.run("audits") == "nothing waits for a verdict\n"
        (traffic,) = json.loads(await shell.run("stats", "--json"))["traffic"]
        assert (traffic["in_force"]["audits"], traffic["in_force"]["wrong"]) == (
            1,
            1,
        )  # near misses are apart
        for unknown in (hit, "no such?audit"):
            status, _, err = await shell.result("verdict", unknown, "same")
            assert status == 2
            assert err == f"carpool: No audit {unknown!r} waits for a verdict.\n"
        status, _, err = await shell.result("verdict", hit, "maybe")
        assert status == 2
        assert "same" in err


async def test_questions_under_audit_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(capsys, GUITAR, SAME.replace(" ", " \x1b\x07")) as shell:
        text = await shell.run("audits")
        assert "1 shown" in text
        assert "\x1b" not in text
        assert "\x07" not in text


async def test_export_to_a_file_or_to_the_next_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    async with serving(capsys, GUITAR, BEES) as shell:
        lines = (await shell.run("export")).splitlines()
        assert {json.loads(line)["question"] for line in lines} == {GUITAR, BEES}
        assert await shell.run("export", "--out", str(out)) == ""
        assert len(out.read_text().splitlines()) == 2
        assert out.stat().st_mode & 0o077 == 0
        status, _, err = await shell.result("export", "--out", str(tmp_path / "none" / "answers.jsonl"))
        assert (status, len(err.splitlines())) == (2, 1)
        assert "cannot be written" in err
        status, _, err = await shell.result("export", "--digest", "x", "--out", str(tmp_path / "other"))
        assert status == 2
        assert "digest" in err
    assert set(tmp_path.glob("*")) == {out}  # noqa: ASYNC240


async def test_the_key_comes_from_a_file_or_the_environment(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scopes: dict[str, Scope] = {"sk-run": "admin", "sk-ask": "inference"}
    keys = tuple(
        KeyConfig(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}", text, (scope,))
        for text, scope in scopes.items()
    )
    path = tmp_path / "key"
    path.write_text("sk-run\n")
    monkeypatch.delenv("CARPOOL_API_KEY", raising=False)
    async with serving(capsys, keys=keys) as shell:
        status, _, err = await shell.result("stats")
        assert status == 2
        assert "CARPOOL_API_KEY" in err
        assert len(err.splitlines()) == 1
        assert "entries" in await shell.run("stats", "--key-file", str(path))
        monkeypatch.setenv("CARPOOL_API_KEY", "sk-run")
        assert "entries" in await shell.run("stats")
        for key, told in (("sk-ask", "scope `admin`"), ("sk-no", "does not know"), ("a\nb", "holds no key")):
            monkeypatch.setenv("CARPOOL_API_KEY", key)
            status, _, err = await shell.result("stats")
            assert status == 2
            assert told in err
            assert key not in err
        status, _, err = await shell.result("stats", "--key-file", str(tmp_path / "none"))
        assert (status, len(err.splitlines())) == (2, 1)
        status, _, err = await shell.result("stats", "--key", "sk-run")
        assert status == 2
        assert "unrecognized arguments" in err


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"http://127.0.0.1:{free_port()}", "no server answers"),
        ("127.0.0.1:8000", "http://"),
        ("http://localhost:port", "not a URL"),
    ],
    ids=["nobody listens", "no scheme", "no number"],
)
async def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str], url: str, told: str) -> None:
    for command in ("stats", "inspect", "export"):
        status, out, err = await Shell(url, capsys).result(command)
        assert (status, out) == (2, "")
        assert told in err
        assert len(err.splitlines()) == 1


async def test_a_server_that_is_another_one(capsys: pytest.CaptureFixture[str]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        status, _, err = await Shell(f"http://127.0.0.1:{port}", capsys).result("stats")
    assert status == 2
    assert "does not answer like a Carpool server" in err


@pytest.mark.parametrize("text", ["soon", "-1d", "1w", ""])
async def test_ages_that_are_none(capsys: pytest.CaptureFixture[str], text: str) -> None:
    status, _, err = await Shell("http://127.0.0.1:9", capsys).result("inspect", f"--older-than={text}")
    assert status == 2
    assert "is not an age" in err


def write_pairs(path: Path, pairs: list[Pair]) -> str:
    path.write_text("".join(json.dumps({**msgspec.to_builtins(pair), "note": 1}) + "\n" for pair in pairs))
    return str(path)


async def test_calibrate_and_eval(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    train = write_pairs(tmp_path / "train.jsonl", labelled_pairs(200))
    test = write_pairs(tmp_path / "test.jsonl", labelled_pairs(60, seed=1))
    out = tmp_path / "mine.json"
    async with serving(capsys, client=WordsClient(), embedder="vectors") as shell:
        text = await shell.run("calibrate", train, "--out", str(out))
        assert "for vectors, fitted to" in text
        assert Calibration.read(out).embedder == "vectors"
        text = await shell.run("eval", test, "--calibration", str(out), "--max-wrong", "0.1")
        assert "180 questions, of which 60 repeat an earlier one" in text
        assert "verified, max_wrong 0.1" in text
        assert text.count("cosine 0.") == 5
        found = json.loads(await shell.run("eval", test, "--json"))
        assert found["contestants"][0]["name"] == "exact only"
        assert "exact only" in await shell.run("eval", test)
        status, _, err = await shell.result("calibrate", test, "--out", str(out))
        assert status == 2
        assert "100 of each are needed" in err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"first": "a", "second": "b", "same": true}\n\n{"first": "a"}\n', "line 3"),
        ("[1]\n", "line 1"),
        ("5\n", "line 1"),
        ("first\tsecond\n", "line 1"),
        ("\xff", "not UTF-8"),
    ],
)
async def test_files_that_hold_no_pairs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(text, encoding="latin-1")
    status, _, err = await Shell("http://127.0.0.1:9", capsys).result("eval", str(path))
    assert (status, len(err.splitlines())) == (2, 1)
    assert told in err
