"""Keys that come and go while the server runs."""

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from carpool.errors import StartError
from carpool.gateway.config import GatewayConfig, KeyConfig
from carpool.gateway.key_file import KeyFile
from carpool.gateway.key_ring import KeyRing
from tests.unit.gateway.serving import CHAT_PATH, Service, chat


def key(name: str, **fields: str | int) -> KeyConfig:
    return KeyConfig(f"sha256:{hashlib.sha256(f'sk-{name}'.encode()).hexdigest()}", name, **fields)  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "new" / "keys.json")


async def status(service: Service, name: str | None) -> int:
    headers = {} if name is None else {"authorization": f"Bearer sk-{name}"}
    async with service.http(**headers) as http:
        return (await http.get("/v1/models")).status_code


async def test_a_running_server_heeds_the_file_at_once(file: KeyFile) -> None:
    service = Service(GatewayConfig(keys=(key("fixed"),), keys_file=file.path))
    assert await status(service, "web") == 401
    file.add(key("web"))
    assert await status(service, "web") == 200
    file.add(key("other"))
    file.remove("web")
    assert [await status(service, name) for name in ("web", "other", "fixed")] == [401, 200, 200]


async def test_limits_of_the_file_hold_and_outlive_its_changes(file: KeyFile) -> None:
    service = Service(GatewayConfig(keys_file=file.path))

    async def asked(name: str) -> int:
        async with service.http(authorization=f"Bearer sk-{name}") as http:
            return (await http.post(CHAT_PATH, json=chat())).status_code

    file.add(key("slow", requests_per_minute=1))
    file.add(key("free"))
    assert [await asked("slow"), await asked("slow"), await asked("free")] == [200, 429, 200]
    file.remove("free")
    assert await asked("slow") == 429, "its minute goes on"
    file.remove("slow")
    file.add(key("slow", requests_per_minute=2))
    assert [await asked("slow"), await asked("slow"), await asked("slow")] == [200, 200, 429]


async def test_the_first_key_closes_a_keyless_server_for_good(file: KeyFile) -> None:
    service = Service(GatewayConfig(keys_file=file.path))
    assert await status(service, None) == 200
    file.add(key("web"))
    assert [await status(service, name) for name in (None, "web")] == [401, 200]
    file.remove("web")
    assert [await status(service, name) for name in (None, "web")] == [401, 401]
    file.path.unlink()
    assert await status(service, None) == 401


async def test_a_public_server_is_closed_whatever_the_file_says(file: KeyFile) -> None:
    file.add(key("web"))
    service = Service(GatewayConfig(host="0.0.0.0", keys_file=file.path))
    file.path.unlink()
    assert [await status(service, name) for name in (None, "web")] == [401, 401]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text('{"keys": [{"name": "x"}]}'),
        lambda path: path.write_text('{"keys": [{"name": "x", "hash": "sha256:00"}]}'),
        lambda path: path.chmod(0o666) or path.touch(),
    ],
)
async def test_a_damaged_file_changes_nothing_and_is_told(
    file: KeyFile, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(damage)
    file.add(key("web"))
    service = Service(GatewayConfig(keys_file=file.path))
    damage(file.path)
    assert [await status(service, name) for name in (None, "web")] == [401, 200]
    told = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(told) == 1
    assert str(file.path) in told[0].getMessage()
    with pytest.raises(StartError, match="keys"):
        KeyRing(GatewayConfig(keys_file=file.path))


def test_the_file_is_its_owners_and_holds_no_key(file: KeyFile) -> None:
    file.add(key("web", tenant="shop"))
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert "sk-web" not in file.path.read_text()
    assert file.read() == (key("web", tenant="shop"),)
    with pytest.raises(StartError, match="there is a key 'web'"):
        file.add(key("web"))
    with pytest.raises(StartError, match="there is no key 'nobody'"):
        file.remove("nobody")
    assert [path.name for path in sorted(file.path.parent.iterdir())] == ["keys.json", "keys.json.lock"]


def test_keys_that_are_created_side_by_side_are_all_there(file: KeyFile) -> None:
    names = [f"key-{i}" for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: file.add(key(name)), names))
    assert sorted(each.name for each in file.read()) == sorted(names)


def test_a_name_in_both_places_is_refused(file: KeyFile) -> None:
    file.add(key("web"))
    with pytest.raises(StartError, match="web is there twice"):
        KeyRing(GatewayConfig(keys=(key("web"),), keys_file=file.path))
