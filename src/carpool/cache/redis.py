"""The store that several gateways share: plain Redis or Valkey from version 7 on, without modules.

    carpool:1:entry:<64 hex digits>   a record (see `entry.Record.encode`), with its expiry
    carpool:1:log                     a stream, one item for each change: who made it, and what
    carpool:1:epoch                   a random name of this data set; gone when Redis has lost its data

Every gateway holds all entries in its own catalogue and searches there. It follows the log, and reads all
anew when it has lost the connection or fallen behind. While Redis cannot be reached nothing waits for it: a
gateway goes on with what it holds, and what it learns meanwhile is put there afterwards.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec
import redis.asyncio as redis_asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from carpool.cache.entry import Record
from carpool.cache.own_changes import OwnChanges
from carpool.cache.store import Listener
from carpool.errors import StartError

_PREFIX = "carpool:1:"
"""Raise the number when the meaning of what is stored changes."""
_ENTRY = f"{_PREFIX}entry:".encode()
_LOG = f"{_PREFIX}log"
_EPOCH = f"{_PREFIX}epoch"
_LOG_LENGTH = 20_000
"""Changes that the log keeps, about; who is further behind reads all anew."""
_GROUP = 256
"""Changes written, and records read, at once."""
_NEVER_MS = 10**14
"""The latest expiry, in Unix milliseconds: some thousand years on."""
_BLOCK_MS = 1000
_TIMEOUT_S = 3.0
"""After this Redis does not answer; longer than `_BLOCK_MS`."""
_RETRY_S = (0.1, 1.0)
"""The first wait before another try to connect, and the longest; it doubles."""

_log = logging.getLogger(__name__)

_Future = asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _Change:
    key: bytes
    data: bytes | None
    """None: the entry is dropped."""
    expires_ms: int
    future: _Future


class _Behind(Exception):
    """The log has lost changes that were not read."""


class RedisStore:
    """See `store.Store`. `embedder` names the model whose vectors are written; others' are not read."""

    def __init__(self, url: str, embedder: str, ttl_s: float) -> None:
        """Raises `StartError` for an URL that is none."""
        self._embedder = embedder
        self._ttl_s = ttl_s
        self._name = urlsplit(url).netloc.rpartition("@")[2] or url  # without the password
        self._me = secrets.token_bytes(8)
        self._epoch: bytes | None = None
        self._up = False
        self._closing = False
        self._unsaved: set[bytes] = set()
        """Entries that Redis has not confirmed."""
        self._undeleted: set[bytes] = set()
        """Entries whose deletion it has not confirmed."""
        self._own = OwnChanges()
        self._writing = asyncio.Lock()
        """Held while a group is on its way to Redis."""
        self._changes: asyncio.Queue[_Change | None] = asyncio.Queue()
        self._writer: asyncio.Task[None] | None = None
        self._follower: asyncio.Task[None] | None = None
        # redis-py's own retries would hold up what waits; who is told of an error here tries again.
        try:
            self._client: Any = redis_asyncio.Redis.from_url(
                url,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                client_name="carpool",
            )
        except ValueError:  # it may quote the password
            raise StartError("cache.url (or REDIS_URL) is not a URL that redis-py understands") from None

    async def load(self, listener: Listener) -> Sequence[Record]:
        """Tell the listener what is there, if Redis answers; in any case follow it from then on."""
        first = asyncio.Event()
        self._follower = asyncio.create_task(self._follow(listener, first))
        self._writer = asyncio.create_task(self._write())
        await first.wait()
        return ()

    def put(self, record: Record) -> _Future:
        """Queue a record for the writer."""
        entry = record.entry
        self._undeleted.discard(entry.exact)
        expires_ms = min(int((entry.created + self._ttl_s) * 1000), _NEVER_MS)
        return self._queue(entry.exact, record.encode(self._embedder), expires_ms)

    def delete(self, keys: Sequence[bytes]) -> _Future:
        """Queue deletions for the writer."""
        futures = [self._queue(key, None, 0) for key in keys]
        return futures[0] if len(futures) == 1 else asyncio.ensure_future(_all(futures))

    async def close(self) -> None:
        """Write what is queued, if Redis takes it, and let go."""
        if self._writer is not None and self._follower is not None:
            self._changes.put_nowait(None)
            await asyncio.wait([self._writer], timeout=2 * _TIMEOUT_S)
            self._up, self._closing = False, True  # redis-py may lose a cancellation
            for task in (self._writer, self._follower):
                task.cancel()
            await asyncio.gather(self._writer, self._follower, return_exceptions=True)
        await self._client.aclose()

    def _queue(self, key: bytes, data: bytes | None, expires_ms: int) -> _Future:
        future: _Future = asyncio.get_running_loop().create_future()
        (self._unsaved if data is not None else self._undeleted).add(key)
        if data is None:
            self._unsaved.discard(key)
        if self._up:
            self._own.queued(key)
            self._changes.put_nowait(_Change(key, data, expires_ms, future))
        else:
            future.set_exception(OSError(f"redis at {self._name} cannot be reached"))
        return future

    async def _write(self) -> None:
        """Write groups of changes, each group at once."""
        while group := await self._next_group():
            async with self._writing:
                await self._write_or_reject(group)

    async def _write_or_reject(self, group: Sequence[_Change]) -> None:
        try:
            await self._write_group(group)
        except (RedisError, OSError) as error:
            reason = OSError(f"redis at {self._name} does not take it: {_told(error)}")
            if not isinstance(error, ResponseError):  # then it is there, and only refuses
                self._up = False
            for change in group:
                self._own.refused(change.key)
                _reject(change.future, reason)
            return
        for change in group:
            if self._own.written(change.key):
                (self._undeleted if change.data is None else self._unsaved).discard(change.key)
            if not change.future.done():
                change.future.set_result(None)

    async def _write_group(self, group: Sequence[_Change]) -> None:
        async with self._client.pipeline(transaction=True) as pipe:
            for change in group:
                if change.data is None:
                    pipe.delete(_name(change.key))
                else:
                    pipe.set(_name(change.key), change.data, pxat=change.expires_ms)
                item = {"by": self._me, "kept": int(change.data is not None), "key": change.key}
                pipe.xadd(_LOG, item, maxlen=_LOG_LENGTH, approximate=True)
            await pipe.execute()

    async def _next_group(self) -> list[_Change]:
        """What waits now, at least one change; empty when the store closes."""
        group: list[_Change] = []
        change = await self._changes.get()
        while change is not None:
            group.append(change)
            if len(group) == _GROUP or self._changes.empty():
                return group
            change = self._changes.get_nowait()
        if group:
            self._changes.put_nowait(None)  # these first, the end on the next turn
        return group

    async def _follow(self, listener: Listener, first: asyncio.Event) -> None:
        """Keep the listener up to date until the store closes."""
        wait_s, longest_s = _RETRY_S
        while not self._closing:
            try:
                position = await self._read_all(listener)
                self._up = True
                listener.reachable(None)
                await self._put_back(listener)
                first.set()
                wait_s = _RETRY_S[0]
                while self._up:
                    position = await self._read_log(listener, position)
            except _Behind:
                continue
            except (RedisError, OSError) as error:
                listener.reachable(OSError(f"redis at {self._name}: {_told(error)}"))
            self._up = False
            first.set()
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, longest_s)

    async def _read_all(self, listener: Listener) -> bytes:
        """Make the listener hold what Redis holds; returns the log's position from which to follow."""
        epoch, position = await self._begin_anew()
        found = await self._scan(listener)
        missing = [key for key in listener.held() if key not in found and not self._is_own(key)]
        if epoch == self._epoch:
            listener.removed(missing)  # others have dropped them meanwhile
        else:
            self._unsaved.update(missing)  # Redis has lost them, or never had them
        self._epoch = epoch
        return position

    async def _begin_anew(self) -> tuple[bytes, bytes]:
        """The epoch, and the log's end, from where on own changes will be read in it."""
        async with self._writing:
            fresh = secrets.token_hex(8).encode()
            epoch = await self._client.set(_EPOCH, fresh, nx=True, get=True) or fresh
            last = await self._client.xrevrange(_LOG, count=1)
            self._own.follow_anew()
        return bytes(epoch), bytes(last[0][0]) if last else b"0-0"

    async def _scan(self, listener: Listener) -> set[bytes]:
        """Tell the listener of all entries; returns their keys, but for own ones."""
        found: set[bytes] = set()
        cursor = 0
        while True:
            cursor, names = await self._client.scan(cursor, match=_ENTRY + b"*", count=_GROUP)
            found.update(await self._fetch(listener, [key for name in names if (key := _key(name))]))
            if cursor == 0:
                return found

    def _is_own(self, key: bytes) -> bool:
        """Whether Redis does not know the last that happened to an entry here."""
        return key in self._own or key in self._unsaved or key in self._undeleted

    async def _put_back(self, listener: Listener) -> None:
        """Write what Redis has missed."""
        for key in list(self._undeleted):
            self.delete([key]).add_done_callback(_forget)
        for key in list(self._unsaved):
            if key in self._own:
                continue
            if (record := listener.record(key)) is not None:
                self.put(record).add_done_callback(_forget)
            else:
                self._unsaved.discard(key)
            await asyncio.sleep(0)

    async def _read_log(self, listener: Listener, position: bytes) -> bytes:
        """Wait for changes, and apply those of others. Raises `_Behind`."""
        reply = await self._client.xread({_LOG: position}, count=_GROUP, block=_BLOCK_MS)
        if not reply:
            return position
        ((_, items),) = reply
        if len(items) == _GROUP:
            oldest = await self._client.xrange(_LOG, count=1)
            if oldest and _place(oldest[0][0]) > _place(position) and position != b"0-0":
                raise _Behind
        newest: dict[bytes, bool] = {}
        for _, item in items:
            if (key := item.get(b"key")) is None:
                continue
            if item.get(b"by") == self._me:
                self._own.read(key)
            elif key not in self._own:  # else an own change stands behind it
                newest[key] = item.get(b"kept") == b"1"
        listener.removed([key for key, kept in newest.items() if not kept])
        await self._fetch(listener, [key for key, kept in newest.items() if kept])
        return bytes(items[-1][0])

    async def _fetch(self, listener: Listener, keys: Sequence[bytes]) -> list[bytes]:
        """Read entries and tell the listener, but for own ones.

        Returns the keys of those that are there, readable and not older than an own one.
        """
        if not keys:
            return []
        records = []
        found = await self._client.mget([_name(key) for key in keys])
        for key, data in zip(keys, found, strict=True):
            if data is None or key in self._own or key in self._undeleted:
                continue
            try:
                record = Record.decode(key, data, self._embedder)
            except (ValueError, msgspec.DecodeError) as error:
                _log.error("cache: dropped the unreadable entry %s of redis: %s", key.hex(), error)
                await self._client.delete(_name(key))
                continue
            mine = listener.record(key) if key in self._unsaved else None
            if mine is not None and mine.entry.created > record.entry.created:
                continue
            self._unsaved.discard(key)
            records.append(record)
        listener.added(records)
        return [record.entry.exact for record in records]


def _name(key: bytes) -> bytes:
    return _ENTRY + key.hex().encode()


def _key(name: bytes) -> bytes | None:
    """The digest in an entry's name; None if somebody else's name has this form."""
    with contextlib.suppress(ValueError):
        return bytes.fromhex(name.removeprefix(_ENTRY).decode("ascii"))
    return None


def _place(position: bytes) -> tuple[int, int]:
    time_ms, _, number = position.partition(b"-")
    return int(time_ms), int(number)


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _reject(future: _Future, error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _forget(future: _Future) -> None:
    """Nobody waits for this change; what failed is tried again with the next connection."""
    if not future.cancelled():
        future.exception()


async def _all(futures: Sequence[_Future]) -> None:
    await asyncio.gather(*futures)
