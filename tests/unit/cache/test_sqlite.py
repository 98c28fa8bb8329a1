import asyncio
import logging
import os
import signal
import sqlite3
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from carpool.cache.entry import Entry, Record
from carpool.cache.index import normalised
from carpool.cache.sqlite import SqliteStore
from carpool.errors import StartError
from tests.unit.cache.bag_of_words import answer, ask, embed_text
from tests.unit.cache.listener import SILENT


def record(question: str, text: str = "An answer.", created: float = 1.0) -> Record:
    entry = Entry.of(ask(question), answer(text, created=created, pieces=[text[:2], text[2:]]))
    return Record(entry, normalised(embed_text(question)))


def moved_aside(folder: Path) -> list[Path]:
    return list(folder.glob("*.unusable-*"))


async def write(path: Path, *records: Record, embedder: str = "e1") -> None:
    store = SqliteStore(path, embedder)
    await store.load(SILENT)
    await asyncio.gather(*[store.put(one) for one in records])
    await store.close()


async def read(path: Path, embedder: str = "e1") -> list[Record]:
    store = SqliteStore(path, embedder)
    records = list(await store.load(SILENT))
    await store.close()
    return records


async def test_everything_comes_back_oldest_first(tmp_path: Path) -> None:
    path = tmp_path / "made" / "cache.sqlite3"
    new, old, bare = record("new", created=3.0), record("old", created=1.0), record("bare", created=2.0)
    await write(path, new, old, Record(bare.entry, None))
    found = await read(path)
    assert [one.entry.turn for one in found] == ["old", "bare", "new"]
    for one, kept in zip(found, (old, bare, new), strict=True):
        for name in ("exact", "partition", "tenant", "model", "created", "completion_tokens", "encoded"):
            assert getattr(one.entry, name) == getattr(kept.entry, name)
        assert one.entry.answer == kept.entry.answer
    assert found[1].vector is None
    assert found[2].vector is not None
    assert new.vector is not None
    assert np.array_equal(found[2].vector, new.vector)


async def test_changes_apply_in_order(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite3"
    store = SqliteStore(path, "e1")
    await store.load(SILENT)
    one = record("one")
    changes = [store.put(one), store.delete([one.entry.exact]), store.put(record("one", "Again."))]
    other = record("other")
    changes += [store.put(other), store.delete([other.entry.exact, b"unknown"])]
    await asyncio.gather(*changes)
    await store.close()
    assert [found.entry.answer.text for found in await read(path)] == ["Again."]


async def test_what_is_queued_at_the_close_is_written(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite3"
    store = SqliteStore(path, "e1")
    await store.load(SILENT)
    changes = [store.put(record(f"question {number}")) for number in range(2000)]
    await store.close()
    await asyncio.gather(*changes)
    assert len(await read(path)) == 2000


async def test_vectors_of_another_embedder_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite3"
    await write(path, record("question"), embedder="e1")
    (other,) = await read(path, "e2")
    assert other.vector is None
    (same,) = await read(path, "e1")
    assert same.vector is not None


async def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite3"
    store = SqliteStore(path, "e1")
    await store.load(SILENT)
    await store.put(record("question"))
    for name in os.listdir(tmp_path):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    await store.close()


WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from carpool.cache.sqlite import SqliteStore
from tests.unit.cache.listener import SILENT
from tests.unit.cache.test_sqlite import record

async def main():
    store = SqliteStore(Path(sys.argv[1]), "e1")
    await store.load(SILENT)
    async def one(number):
        await store.put(record(f"question {number}", f"answer {number}"))
        print(number, flush=True)
    for start in itertools.count(step=20):
        await asyncio.gather(*[one(number) for number in range(start, start + 20)])

asyncio.run(main())
"""


async def test_no_acknowledged_entry_is_lost_by_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite3"
    acknowledged: set[str] = set()
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(path), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(101):
            acknowledged.add((await process.stdout.readline()).decode().strip())
        process.send_signal(signal.SIGKILL)
        rest = (await process.stdout.read()).decode()
        acknowledged.update(rest.split("\n")[:-1])
        assert await process.wait() == -signal.SIGKILL
        texts = {found.entry.answer.text for found in await read(path)}
        assert {f"answer {number}" for number in acknowledged} <= texts
    assert len(acknowledged) > 100


@pytest.mark.parametrize("damage", ["header", "middle", "truncated"])
async def test_a_damaged_file_is_moved_aside(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.sqlite3"
    await write(path, *[record(f"question {number}", "text " * 200) for number in range(200)])
    data = bytearray(path.read_bytes())
    if damage == "header":
        data[:64] = os.urandom(64)
    elif damage == "middle":
        data[8192:-8192] = b"\xff" * (len(data) - 16384)
    else:
        del data[len(data) // 2 :]
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert await read(path) == []
    (line,) = caplog.messages
    assert "is damaged" in line
    assert "\n" not in line
    (aside,) = moved_aside(tmp_path)
    assert aside.read_bytes() == bytes(data)
    await write(path, record("new"))
    assert len(await read(path)) == 1


async def test_another_schema_version_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite3"
    await write(path, record("old"))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    assert await read(path) == []
    assert len(moved_aside(tmp_path)) == 1


async def test_unreadable_rows_are_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cache.sqlite3"
    good, flipped, text = record("good"), record("flipped"), record("text")
    await write(path, good, flipped, text)
    with sqlite3.connect(path) as connection:
        (data,) = connection.execute(
            "SELECT record FROM entries WHERE exact = ?", (flipped.entry.exact,)
        ).fetchone()
        # One bit within the answer's text: the row reads well, but it is not what was stored.
        at = data.index(b"An answer")
        change = "UPDATE entries SET record = ? WHERE exact = ?"
        connection.execute(change, (data[:at] + b"@" + data[at + 1 :], flipped.entry.exact))
        connection.execute(change, ("text", text.entry.exact))
    connection.close()
    assert [found.entry.turn for found in await read(path)] == ["good"]
    assert "dropped 2 unreadable entries" in caplog.text
    caplog.clear()
    await read(path)
    assert caplog.text == ""


async def test_the_file_of_another_application_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StartError, match="another application"):
        await read(path)
    assert path.read_bytes() == before


async def test_a_path_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"cache\.path"):
        await read(tmp_path / "file" / "cache.sqlite3")


async def test_a_failing_write_is_reported_and_the_next_one_works(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite3"
    store = SqliteStore(path, "e1")
    await store.load(SILENT)
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE entries RENAME TO away")
    with pytest.raises(OSError, match="cannot be written"):
        await store.put(record("lost"))
    with connection:
        connection.execute("ALTER TABLE away RENAME TO entries")
    connection.close()
    await store.put(record("kept"))
    await store.close()
    assert [found.entry.turn for found in await read(path)] == ["kept"]
