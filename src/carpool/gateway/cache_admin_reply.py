"""What the admin routes of the answer cache reply."""

from typing import Literal

import msgspec

from carpool.cache.acceptance import NEVER, Acceptance, Standing
from carpool.cache.catalogue import Kept
from carpool.cache.judge import Case
from carpool.cache.service import AnswerCache


class WrongShare(msgspec.Struct, frozen=True):
    """A share of wrong answers, from 0 to 1."""

    expected: float
    """By the calibration's own data."""
    lower: float | None
    """By verdicts here, at any time with 95 % confidence; None while there are none that count."""
    upper: float | None

    def of_part(self, part: float) -> "WrongShare":
        """The same wrong answers as a share of everything of which `part` is the former whole."""
        lower, upper = (None if bound is None else bound * part for bound in (self.lower, self.upper))
        return WrongShare(self.expected * part, lower, upper)


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """What `policy: verified` does for a tenant and a model now, and what is known of it."""

    level: float | None
    """Probability from which on an answer is served by meaning; None: none is."""
    standing: Standing
    audits: int
    """Verdicts that count, on what the level serves."""
    wrong: int
    """Those that were wrong."""
    wrong_of_hits: WrongShare
    """Wrong hits / hits by meaning."""
    wrong_of_all: WrongShare
    """Wrong hits / lookups: the same times the share of hits by meaning since the start."""

    @classmethod
    def of(cls, found: Acceptance, part: float) -> "InForce":
        """`part`: hits by meaning / lookups."""
        known = found.standing != "not audited"
        lower, upper = found.interval
        share = WrongShare(found.expected, lower if known else None, upper if known else None)
        return cls(
            level=None if found.level >= NEVER else found.level,
            standing=found.standing,
            audits=found.audits,
            wrong=found.wrong,
            wrong_of_hits=share,
            wrong_of_all=share.of_part(part),
        )


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's use of a model."""

    tenant: str
    model: str
    lookups: dict[str, int]
    """By outcome, since the start: exact, joined, semantic, miss, bypass."""
    in_force: InForce | None
    """None where nothing is verified."""


class CacheStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the cache holds, what it is set to, and how often it is wrong."""

    entries: int
    vectors: int
    """Entries that can be found by meaning."""
    bytes: int
    in_flight: int
    max_entries: int
    max_bytes: int
    ttl_s: float
    mode: str
    store: str
    store_up: bool
    """Whether the store took the last change; if not, answers are kept in memory only."""
    policy: Literal["verified", "threshold", "exact only"]
    """`exact only`: `verified` is set, but no calibration fits the embedder."""
    max_wrong: float | None
    """Of `verified`."""
    threshold: float | None
    """Of `threshold`."""
    embedder: str
    audits_pending: int | None
    """None where nothing is audited."""
    traffic: list[Traffic]

    @classmethod
    def of(cls, cache: AnswerCache) -> "CacheStatus":
        """What is known now."""
        stats, config, verification = cache.stats(), cache.config, cache.verification
        by_pair = verification.acceptance.all() if verification.acceptance else {}
        verified = config.policy == "verified"
        return cls(
            entries=stats.entries,
            vectors=stats.vectors,
            bytes=stats.size_bytes,
            in_flight=stats.in_flight,
            max_entries=config.max_entries,
            max_bytes=config.max_bytes,
            ttl_s=config.ttl_s,
            mode=config.mode,
            store=config.store or "",
            store_up=cache.keeper.store_up,
            policy="exact only" if verified and verification.acceptance is None else config.policy,
            max_wrong=config.max_wrong if verified else None,
            threshold=None if verified else config.threshold,
            embedder=config.embedder,
            audits_pending=len(verification.audits.pending()) if verification.audits else None,
            traffic=[
                _traffic(*pair, stats.lookups.get(pair, {}), by_pair.get(pair))
                for pair in sorted({*stats.lookups, *by_pair})
            ],
        )


class CachedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A stored answer."""

    digest: str
    """Of the exact request, in hexadecimal digits."""
    tenant: str
    model: str
    question: str | None
    """None where it is never matched by meaning: of such requests only the digest is kept."""
    answer: str
    created: float
    """Unix seconds."""
    age_s: float
    hits: int
    """Times that it was used in this process."""
    cost_ms: float
    """How long the model took, which is what a hit saves."""
    prompt_tokens: int
    completion_tokens: int
    bytes: int
    request_id: str

    @classmethod
    def of(cls, kept: Kept, age_s: float) -> "CachedAnswer":
        """An entry with its answer decoded."""
        entry = kept.entry
        answer = entry.answer
        return cls(
            digest=entry.exact.hex(),
            tenant=entry.tenant,
            model=entry.model,
            question=entry.turn,
            answer=answer.text,
            created=entry.created,
            age_s=age_s,
            hits=kept.hits,
            cost_ms=entry.cost_ms,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            bytes=kept.size_bytes,
            request_id=answer.request_id,
        )


class CachedAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """Stored answers, newest first."""

    object: Literal["list"] = "list"
    data: list[CachedAnswer]


class Invalidated(msgspec.Struct, frozen=True):
    """What an invalidation did."""

    entries: int
    """How many were selected."""
    dry_run: bool
    """If so, they are still there."""


class PendingAudit(msgspec.Struct, frozen=True, kw_only=True):
    """A judgement of the cache that waits for a person's verdict."""

    id: str
    tenant: str
    model: str
    question: str
    stored_question: str
    stored_answer: str
    probability: float
    """The calibrated one, of the stored answer serving the question."""
    served: bool
    """False: it was a near miss, and the model answered."""

    @classmethod
    def of(cls, case: Case) -> "PendingAudit":
        """A case."""
        return cls(
            id=case.id,
            tenant=case.tenant,
            model=case.model,
            question=case.asked,
            stored_question=case.stored,
            stored_answer=case.answer,
            probability=case.probability,
            served=case.served,
        )


class PendingAudits(msgspec.Struct, frozen=True, kw_only=True):
    """Judgements that wait for a verdict, oldest first."""

    object: Literal["list"] = "list"
    data: list[PendingAudit]


class Judged(msgspec.Struct, frozen=True):
    """A verdict that was counted."""

    id: str
    wrong: bool


def _traffic(tenant: str, model: str, lookups: dict[str, int], found: Acceptance | None) -> Traffic:
    total = sum(lookups.values())
    part = lookups.get("semantic", 0) / total if total else 0.0
    return Traffic(
        tenant=tenant,
        model=model,
        lookups=lookups,
        in_force=None if found is None else InForce.of(found, part),
    )
