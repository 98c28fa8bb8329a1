"""`/admin/cache`: what the answer cache holds and how it does, for operators.

These routes take no place among the requests to models: they answer when the server is full, too.
"""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from carpool.cache.audit import Audits
from carpool.cache.service import AnswerCache
from carpool.errors import NotFound, Unavailable
from carpool.gateway.cache_admin_reply import (
    CachedAnswer,
    CachedAnswers,
    CacheStatus,
    Invalidated,
    Judged,
    PendingAudit,
    PendingAudits,
)
from carpool.gateway.cache_admin_schema import (
    AuditQuery,
    EntryQuery,
    Invalidation,
    Selection,
    VerdictRequest,
)
from carpool.gateway.call import Headers
from carpool.gateway.exchange import JSON, Exchange
from carpool.gateway.models import json_response
from carpool.gateway.services import Services
from carpool.gateway.validation import BodyReader, QueryReader

_NDJSON: Headers = [(b"content-type", b"application/x-ndjson")]
_EXPORT_BYTES = 64 * 1024
"""About what is collected of an export before it is sent."""

_selection = QueryReader(Selection)
_entry_query = QueryReader(EntryQuery)
_audit_query = QueryReader(AuditQuery)
_invalidation = BodyReader(msgspec.json.Decoder(Invalidation))
_verdict = BodyReader(msgspec.json.Decoder(VerdictRequest))


class CacheAdmin:
    """The endpoints. Each raises `NotFound` where there is no cache."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def status(self, _: Request) -> Response:
        """`GET /admin/cache`."""
        return json_response(CacheStatus.of(self._cache))

    async def entries(self, request: Request) -> Response:
        """`GET /admin/cache/entries`."""
        cache, query = self._cache, _entry_query.read(request.scope["query_string"])
        found = await cache.keeper.newest(query.selector, query.limit)
        return json_response(
            CachedAnswers(data=[CachedAnswer.of(kept, cache.age_s(kept.entry.created)) for kept in found])
        )

    async def export(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /admin/cache/export`: the selected entries, one JSON object a line."""
        cache, exchange = self._cache, Exchange(scope, receive, send)
        selector = _selection.read(scope["query_string"]).selector
        async with exchange.attended():
            await exchange.start(_NDJSON)
            lines = bytearray()
            async for kept in cache.keeper.select(selector):
                answer = CachedAnswer.of(kept, cache.age_s(kept.entry.created))
                lines += msgspec.json.encode(answer) + b"\n"
                if len(lines) >= _EXPORT_BYTES:
                    await exchange.write(bytes(lines))
                    lines.clear()
            await exchange.finish(bytes(lines))

    async def invalidate(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /admin/cache/invalidate`. Raises `Unavailable` if the store cannot be written."""
        cache, exchange = self._cache, self._exchange(scope, receive, send)
        request: Invalidation = _invalidation.read(await self._body(exchange))
        request.check()
        try:
            count = await cache.invalidate(request.selector, dry_run=request.dry_run)
        except OSError as error:
            raise Unavailable(
                f"They are gone from memory, but not from the store: {error}. Send this again when the store "
                "works, or they may come back with the next start."
            ) from None
        await _reply(exchange, Invalidated(count, request.dry_run))

    async def audits(self, request: Request) -> Response:
        """`GET /admin/cache/audits`."""
        query: AuditQuery = _audit_query.read(request.scope["query_string"])
        cases = [
            case
            for case in self._audits.pending()
            if query.tenant in (None, case.tenant) and query.model in (None, case.model)
        ]
        return json_response(PendingAudits(data=[PendingAudit.of(case) for case in cases[: query.limit]]))

    async def judge(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /admin/cache/audits/{audit_id}`. Raises `NotFound` if it waits for no verdict."""
        exchange, audits = self._exchange(scope, receive, send), self._audits
        request: VerdictRequest = _verdict.read(await self._body(exchange))
        audit_id: str = scope["path_params"]["audit_id"]
        audits.judge(audit_id, wrong=request.wrong)
        await _reply(exchange, Judged(audit_id, request.wrong))

    @property
    def _cache(self) -> AnswerCache:
        if self._services.cache is None:
            raise NotFound("This server has no answer cache.")
        return self._services.cache

    @property
    def _audits(self) -> Audits:
        cache = self._cache
        if cache.verification.audits is None:
            reason = (
                "cache.policy is `threshold`"
                if cache.config.policy == "threshold"
                else f"there is no calibration for the embedder {cache.config.embedder}"
            )
            raise NotFound(f"Nothing is audited here: {reason}.")
        return cache.verification.audits

    def _exchange(self, scope: Scope, receive: Receive, send: Send) -> Exchange:
        return Exchange(scope, receive, send, self._services.config.request_timeout_s)

    async def _body(self, exchange: Exchange) -> bytes:
        return await exchange.body(self._services.config.max_body_bytes)


async def _reply(exchange: Exchange, body: Any) -> None:
    await exchange.reply(msgspec.json.encode(body), JSON)
