"""`carpool keys`."""

import hashlib
from pathlib import Path

import pytest

from carpool.cli import main
from carpool.gateway.key_file import KeyFile
from carpool.settings import load

HASH = "sha256:" + "0" * 64


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyFile:
    monkeypatch.setenv("CARPOOL_KEYS_FILE", str(tmp_path / "keys.json"))
    return KeyFile(tmp_path / "keys.json")


def test_a_key_is_created_listed_and_revoked(file: KeyFile, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--tenant", "shop", "--scope", "inference", "--scope", "metrics", "--cache-scope", "user")
    assert main(["keys", "create", "--name", "web", *options]) == 0
    text = capsys.readouterr().out.splitlines()[0].removeprefix("The key, shown once: ")
    (kept,) = file.read()
    assert kept.hash == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    assert (kept.tenant, kept.scopes, kept.cache_scope) == ("shop", ("inference", "metrics"), "user")

    assert main(["keys", "list"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    name, tenant, scopes, created, origin = line.split("\t")
    assert (name, tenant, scopes, origin) == ("web", "shop", "inference,metrics", str(file.path))
    assert created.endswith("Z")
    assert text not in line
    assert kept.hash not in line

    assert main(["keys", "create", "--name", "web"]) == 2
    assert "there is a key 'web'" in capsys.readouterr().err
    assert main(["keys", "revoke", "web"]) == 0
    assert file.read() == ()
    assert main(["keys", "revoke", "web"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_key_has_limits(file: KeyFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--max-concurrent-requests", "3", "--requests-per-minute", "60")
    assert main(["keys", "create", "--name", "web", *options]) == 0
    (kept,) = file.read()
    assert (kept.max_concurrent_requests, kept.requests_per_minute) == (3, 60)

    capsys.readouterr()
    assert main(["keys", "create", "--name", "other", *options, "--print"]) == 0
    config = tmp_path / "carpool.yaml"
    config.write_text(capsys.readouterr().out.partition("For the settings file:")[2])
    (printed,) = load(config=config, environ={}).gateway_config().keys
    assert (printed.max_concurrent_requests, printed.requests_per_minute) == (3, 60)

    assert main(["keys", "create", "--name", "none", "--requests-per-minute", "0"]) == 2
    assert "requests_per_minute of none must be at least 1" in capsys.readouterr().err


def test_keys_of_the_settings_file_are_listed_and_left_alone(
    file: KeyFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "carpool.yaml"
    config.write_text(f"keys: [{{name: web, hash: '{HASH}'}}]\n")
    assert main(["keys", "list", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "web\tweb\tinference\t-\tsettings\n"
    for command in (("create", "--name", "web"), ("revoke", "web")):
        assert main(["keys", *command, "--config", str(config)]) == 2
        assert "in the settings file" in capsys.readouterr().err
    assert not file.path.exists()


def test_the_file_opens_a_public_address(file: KeyFile, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create"]) == 0
    environ = {"CARPOOL_KEYS_FILE": str(file.path), "CARPOOL_HOST": "0.0.0.0"}
    assert load(environ=environ | {"CARPOOL_AUTH__REQUIRED": "true"}).gateway_config().keys_file == file.path
