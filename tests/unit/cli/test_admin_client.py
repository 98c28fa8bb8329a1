"""Commands that speak to a running server."""

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from carpool.cli import main
from carpool.gateway.config import GatewayConfig, KeyConfig
from tests.unit.gateway.serving import app_of, listening
from tests.unit.worker.echo import CHAT, EMBED, started

KEYS = (
    KeyConfig(f"sha256:{hashlib.sha256(b'sk-operator').hexdigest()}", "operator", ("admin",)),
    KeyConfig(f"sha256:{hashlib.sha256(b'sk-user').hexdigest()}", "user"),
)


async def carpool(*args: str) -> int:
    """Run a command while the server of the test goes on."""
    return await asyncio.to_thread(main, args)


async def test_models_are_loaded_and_unloaded_from_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("sk-operator\n")
    bad = replace(CHAT, name="bad", aliases=(), preload=False, options={"fail": "no such file"})
    async with (
        started(replace(EMBED, preload=False), bad) as (client, _),
        listening(app_of(client, GatewayConfig(keys=KEYS))) as url,
    ):
        monkeypatch.setenv("CARPOOL_API_KEY", "sk-operator")
        assert await carpool("models", "load", "embed", "--url", url) == 0
        assert capsys.readouterr().out == "embed: ready\n"
        assert await carpool("models", "load", "bad", "--url", url) == 2
        assert capsys.readouterr().err.splitlines()[-1] == "carpool: bad is failed: no such file"
        assert await carpool("models", "status", "--url", url) == 0
        assert capsys.readouterr().out.splitlines()[0].split("\t")[:2] == ["embed", "ready"]

        monkeypatch.setenv("CARPOOL_API_KEY", "sk-user")
        assert await carpool("models", "unload", "embed", "--url", url) == 2
        assert "does not have the scope `admin`" in capsys.readouterr().err
        from_file = ("--url", f"{url}/", "--key-file", str(key_file))
        assert await carpool("models", "unload", "embed", *from_file) == 0
        assert capsys.readouterr().out == "embed: unloaded\n"
        assert await carpool("models", "load", "nobody", *from_file) == 2
        assert capsys.readouterr().err == "carpool: The model `nobody` does not exist.\n"
        monkeypatch.delenv("CARPOOL_API_KEY")
        assert await carpool("models", "status", "--url", url) == 2
        assert "set CARPOOL_API_KEY or give --key-file" in capsys.readouterr().err


async def test_settings_are_shown_and_set_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    async with started() as (client, _), listening(app_of(client)) as url:
        assert await carpool("settings", "--url", url) == 0
        assert capsys.readouterr().out.splitlines() == [
            "device\tcpu",
            "gate_policy\tpriority",
            "load_on_demand\tfalse",
            "when_loading\trefuse",
        ]
        changes = ("gate_policy=wfq", "load_on_demand=true", "max_batch_size=2")
        assert await carpool("settings", "set", *changes, "--url", url) == 0
        assert "gate_policy\twfq\nload_on_demand\ttrue" in capsys.readouterr().out
        assert client.config.gate_policy == "wfq"

        of_one = ("--model", "parrot", "--url", url)
        assert await carpool("settings", "set", "max_concurrent_requests=3", "weight=2.5", *of_one) == 0
        assert capsys.readouterr().out.splitlines() == [
            "max_batch_size\t2",
            "batch_wait_ms\t0.0",
            "weight\t2.5",
            "max_concurrent_requests\t3",
        ]
        assert await carpool("settings", "set", "max_concurrent_requests=null", *of_one) == 0
        assert client.limit("echo") is None
        capsys.readouterr()
        assert await carpool("settings", "set", "gate_policy=luck", "--url", url) == 2
        assert "gate_policy" in capsys.readouterr().err
        assert await carpool("settings", "--model", "nobody", "--url", url) == 2
        assert capsys.readouterr().err == "carpool: The model `nobody` does not exist.\n"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("set",), "settings set needs NAME=VALUE"),
        (("set", "gate_policy"), "settings set takes NAME=VALUE, not 'gate_policy'"),
        (("show", "a=1"), "settings show takes no 'a=1'; set does"),
    ],
)
def test_settings_say_what_is_missing(
    args: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["settings", *args]) == 2
    assert capsys.readouterr().err == f"carpool: {told}\n"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("load",), "models load needs the name of a model"),
        (("fetch", "embed"), "models fetch takes no name, not 'embed'"),
        (("load", "x", "--url", "127.0.0.1:8000"), "--url 127.0.0.1:8000 must begin with http://"),
        (("load", "x", "--url", "http://[::1"), "--url http://[::1 is not a URL"),
        (("load", "x", "--url", "http://127.0.0.1:1"), "no server answers at http://127.0.0.1:1: "),
        (("load", "x", "--key-file", "/no/such/file"), "--key-file /no/such/file cannot be read: "),
    ],
)
def test_what_goes_wrong_is_one_line(
    args: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", *args]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    assert line.startswith(f"carpool: {told}")


def test_a_key_is_never_repeated(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARPOOL_API_KEY", "sk-a\nsk-b")
    assert main(["models", "status"]) == 2
    assert "sk-" not in capsys.readouterr().err
