"""A random share of the cache's judgements is judged again: by people, and by a plug behind the requests."""

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import msgspec

from carpool.cache.acceptance import AcceptancePolicy
from carpool.cache.judge import HUMAN, Case, Judge
from carpool.errors import NotFound
from carpool.telemetry import Registry

_MAX_PENDING = 1000
"""Cases that wait for people; the oldest goes first. Not on disk: they hold questions and answers."""
_MAX_QUEUED = 64
"""Cases that wait for the plug; beyond, samples are not given to it."""

_log = logging.getLogger(__name__)


class Verdict(msgspec.Struct, frozen=True):
    """One line of the file of verdicts."""

    time: float
    """Unix seconds."""
    case: str
    tenant: str
    model: str
    calibration: str
    """Whose probability it is: SHA-256."""
    embedder: str
    """Whose cosines: model and revision."""
    probability: float
    judge: str
    wrong: bool


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Verdict)


class Audits:
    """Samples cases at `rate`, collects verdicts on them and tells the policy.

    `calibration` and `embedder` name what the probabilities come from; former verdicts on those of others do
    not count. `path`: where verdicts are appended, as JSON lines without texts; None keeps them in memory.
    `draw` gives uniform random numbers from 0 to 1.

    A case goes to people and to the plug. It counts once, and a person's verdict goes before the plug's.
    """

    def __init__(
        self,
        policy: AcceptancePolicy,
        *,
        calibration: str,
        embedder: str,
        rate: float,
        registry: Registry,
        path: Path | None = None,
        judge: Judge | None = None,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._policy = policy
        self._calibration = calibration
        self._embedder = embedder
        self._rate = rate
        self._path = path
        self._judge = judge
        self._draw = draw
        self._clock = clock
        self._pending: OrderedDict[str, Case] = OrderedDict()
        self._by_plug: dict[str, Verdict] = {}
        """The plug's verdicts on cases that still wait for people."""
        self._queued: asyncio.Queue[Case] = asyncio.Queue(_MAX_QUEUED)
        self._unjudged: set[str] = set()
        """The cases that wait for the plug, and that no person has judged meanwhile."""
        self._task: asyncio.Task[None] | None = None
        self._verdicts = registry.counter(
            "carpool_cache_verdicts_total", "Audited judgements of the cache, by judge and verdict"
        )

    def start(self) -> None:
        """Read the verdicts of former runs and let the plug begin."""
        if self._path is not None and self._path.exists():
            unreadable = foreign = 0
            by_plug: dict[str, Verdict] = {}
            for line in self._path.read_bytes().splitlines():
                try:
                    verdict = _decoder.decode(line)
                except msgspec.DecodeError:
                    unreadable += 1
                    continue
                if (verdict.calibration, verdict.embedder) != (self._calibration, self._embedder):
                    foreign += 1
                    continue
                self._count(verdict, by_plug.pop(verdict.case, None))
                if verdict.judge != HUMAN:
                    by_plug[verdict.case] = verdict
            if foreign:
                _log.info("cache: %d verdicts are of another calibration or embedder", foreign)
            if unreadable:
                _log.error("cache: skipped %d unreadable verdicts of %s", unreadable, self._path)
        if self._judge is not None:
            self._task = asyncio.create_task(self._run(self._judge))

    async def stop(self) -> None:
        """Let go of what is being judged."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def sampled(self) -> bool:
        """Whether the next case is in the sample. Every case is as likely, whatever became of it."""
        return self._draw() < self._rate

    def offer(self, case: Case) -> None:
        """Take in a case that was sampled."""
        self._pending[case.id] = case
        if len(self._pending) > _MAX_PENDING:
            gone, _ = self._pending.popitem(last=False)
            self._by_plug.pop(gone, None)
        if self._task is not None and not self._queued.full():
            self._unjudged.add(case.id)
            self._queued.put_nowait(case)

    def pending(self) -> list[Case]:
        """The cases that wait for people, oldest first."""
        return list(self._pending.values())

    def judge(self, case_id: str, *, wrong: bool) -> None:
        """A person's verdict on a pending case. Raises `NotFound` if it does not wait (any more)."""
        case = self._pending.pop(case_id, None)
        if case is None:
            raise NotFound(f"No audit {case_id!r} waits for a verdict.")
        self._unjudged.discard(case.id)
        self._keep(case, HUMAN, wrong)

    async def _run(self, judge: Judge) -> None:
        while True:
            case = await self._queued.get()
            if case.id not in self._unjudged:
                continue
            try:
                wrong = await judge.is_wrong(case)
            except Exception as error:  # an audit that fails costs nobody an answer
                _log.warning("cache: %s gives no verdict: %s", judge.name, str(error) or repr(error))
                wrong = None
            if case.id not in self._unjudged:  # a person was quicker
                continue
            self._unjudged.remove(case.id)
            if wrong is None:
                self._verdicts.add(judge=judge.name, verdict="none")
            else:
                self._keep(case, judge.name, wrong)

    def _keep(self, case: Case, judge: str, wrong: bool) -> None:
        verdict = Verdict(
            self._clock(),
            case.id,
            case.tenant,
            case.model,
            self._calibration,
            self._embedder,
            case.probability,
            judge,
            wrong,
        )
        self._count(verdict, self._by_plug.pop(case.id, None))
        if case.id in self._pending:
            self._by_plug[case.id] = verdict
        self._verdicts.add(judge=judge, verdict="wrong" if wrong else "right")
        if self._path is not None:
            try:
                with self._path.open("ab") as file:
                    file.write(_encoder.encode(verdict) + b"\n")
            except OSError as error:
                _log.error("cache: a verdict is kept in memory only: %s", error)

    def _count(self, verdict: Verdict, earlier: Verdict | None) -> None:
        """Count a verdict, with the plug's on the same case, if there was one before."""
        for each, tell in ((verdict, self._policy.record), (earlier, self._policy.outrank)):
            if each is not None:
                tell(each.tenant, each.model, each.probability, each.judge, wrong=each.wrong)
