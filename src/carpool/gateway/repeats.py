"""The short way of a popular question: a body that came before, byte for byte, and has an exact answer.

Reading such a body again leads to the same query, and encoding the answer again to the same reply but for
its id and time. Everything else is as for any request: the key, the bound on the body, the place, the
headers, the metrics, and whether the answer still stands in the cache.
"""

import time
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from carpool.cache.config import Mode
from carpool.cache.entry import Entry
from carpool.cache.lookup import Lookup
from carpool.cache.query import Query
from carpool.errors import ModelNotFound
from carpool.gateway.cache_control import cache_headers
from carpool.gateway.call import Headers
from carpool.gateway.exchange import JSON, Exchange
from carpool.gateway.reply import Tokens
from carpool.gateway.services import Services
from carpool.worker.states import ModelState

_MAX_REPLY_BYTES = 32 * 1024
"""Larger replies are encoded each time."""
_SHARE_OF_CACHE = 16
"""All that a route remembers takes this part of `cache.max_bytes` at most, besides the cache's own."""
_OVERHEAD_BYTES = 2048
"""About what the objects and tables around a reply take."""
_LONG_BODY_BYTES = 1024
"""Shorter ones are remembered as they are: they are quicker compared than hashed."""

_Key = tuple[str, Mode | None, bool, bytes | str]
"""All that leads to the query: tenant, what is set for the key, and the body: its SHA-256 if it is long."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """What one body leads to."""

    query: Query
    entry: "weakref.ref[Entry]"
    """Lets go of it, and of this with it, when the cache does."""
    state: ModelState
    headers: Headers
    """But for the age."""
    tokens: Tokens
    opening: bytes
    """The reply up to the request's id; then, up to the time; then, to the end."""
    middle: bytes
    rest: bytes

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        texts = (self.opening, self.middle, self.rest, self.query.turn or "")
        return _OVERHEAD_BYTES + _LONG_BODY_BYTES + sum(map(len, texts))


class Repeats:
    """Remembers the bodies of a route that had an exact answer, as many as it has room for."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._repeats: OrderedDict[_Key, Repeat] = OrderedDict()  # least recently used first
        self._size_bytes = 0
        cache = services.cache
        self._max_bytes = 0 if cache is None else cache.config.max_bytes // _SHARE_OF_CACHE

    def __len__(self) -> int:
        return len(self._repeats)

    async def answer(self, exchange: Exchange, body: bytes) -> bool:
        """Answer the request, if it is a repeat whose answer still stands; False: nothing was sent."""
        if (cache := self._services.cache) is None or exchange.header(b"cache-control") is not None:
            return False
        key = _key(exchange, body)
        repeat = self._repeats.get(key)
        if repeat is None:
            return False
        entry = repeat.entry()
        age_s = cache.repeat(repeat.query, entry) if entry and self._same_model(repeat) else None
        if age_s is None:
            self._drop(key)
            return False
        self._repeats.move_to_end(key)
        request_id = exchange.call.request_id.encode()
        tokens = repeat.tokens
        self._services.metrics.answered(repeat.state.name, "exact", tokens.prompt, tokens.completion)
        await exchange.reply_unattended(
            b"%b%b%b%d%b" % (repeat.opening, request_id, repeat.middle, time.time(), repeat.rest),
            [*repeat.headers, (b"x-carpool-cache-age", b"%d" % age_s)],
        )
        return True

    def remember(
        self,
        exchange: Exchange,
        state: ModelState,
        body: bytes,
        query: Query | None,
        lookup: Lookup,
        tokens: Tokens,
        reply: bytes,
    ) -> None:
        """Note what a body led to. `reply` is its reply, encoded."""
        if (
            query is None
            or lookup.entry is None
            or len(reply) > _MAX_REPLY_BYTES
            or exchange.header(b"cache-control") is not None
        ):
            return
        key = _key(exchange, body)
        opening, middle, rest = _apart(reply, exchange.call.request_id.encode())
        headers = [*JSON, *(each for each in cache_headers(lookup) if each[0] != b"x-carpool-cache-age")]
        entry = weakref.ref(lookup.entry, partial(self._gone, key))
        self._drop(key)
        self._repeats[key] = repeat = Repeat(query, entry, state, headers, tokens, opening, middle, rest)
        self._size_bytes += repeat.size_bytes
        while self._size_bytes > self._max_bytes:
            self._drop(next(iter(self._repeats)))

    def _gone(self, key: _Key, entry: "weakref.ref[Entry]") -> None:
        """The cache has dropped an entry; what was remembered of it goes, unless it was another one's."""
        if (repeat := self._repeats.get(key)) is not None and repeat.entry is entry:
            self._drop(key)

    def _drop(self, key: _Key) -> None:
        if (repeat := self._repeats.pop(key, None)) is not None:
            self._size_bytes -= repeat.size_bytes

    def _same_model(self, repeat: Repeat) -> bool:
        """Whether the body would still lead to the same model, in the same mode of the cache."""
        try:
            state = self._services.client.resolve(repeat.state.name)
        except ModelNotFound:
            return False
        return (state.revision, state.cache) == (repeat.state.revision, repeat.state.cache)


def _key(exchange: Exchange, body: bytes) -> _Key:
    told = body if len(body) < _LONG_BODY_BYTES else sha256(body).hexdigest()
    call = exchange.call  # not the key's name: whose settings it has may change while the server runs
    return call.tenant, call.cache, call.per_user, told


def _apart(reply: bytes, request_id: bytes) -> tuple[bytes, bytes, bytes]:
    """What stands before, between and after the id and the time of a reply.

    A reply begins `{"id":"chatcmpl-<request id>","object":"chat.completion","created":<seconds>,`; neither
    has a quotation mark or a comma in it.
    """
    id_end = reply.index(b'"', len(b'{"id":"'))
    time_begin = reply.index(b'"created":', id_end) + len(b'"created":')
    return reply[: id_end - len(request_id)], reply[id_end:time_begin], reply[reply.index(b",", time_begin) :]
