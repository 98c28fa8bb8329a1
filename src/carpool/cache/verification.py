"""The policy in force with what verifies it: the calibration, the verdicts and their figures."""

import logging
from pathlib import Path
from typing import Self

from carpool.cache.acceptance import Acceptance, AcceptancePolicy
from carpool.cache.audit import Audits
from carpool.cache.calibration import Calibration
from carpool.cache.config import CacheConfig
from carpool.cache.judge import Judge
from carpool.cache.policy import ExactPolicy, Policy, ThresholdPolicy, VerifiedPolicy
from carpool.telemetry import Registry

_log = logging.getLogger(__name__)


class Verification:
    """`policy` decides; `audits` and `acceptance` are None where nothing is verified."""

    def __init__(
        self, policy: Policy, audits: Audits | None = None, acceptance: AcceptancePolicy | None = None
    ) -> None:
        self.policy = policy
        self.audits = audits
        self.acceptance = acceptance

    @classmethod
    def of(
        cls,
        config: CacheConfig,
        registry: Registry,
        verdicts: Path | None,
        judge: Judge | None,
        embedder_id: str,
        calibration: Calibration | None = None,
    ) -> Self:
        """What the settings ask for, with the given calibration in place of the configured one.

        Former verdicts count if they are on cosines of the embedder that `embedder_id` names. Raises
        `StartError` if `config.calibration` is no calibration.
        """
        if config.policy == "threshold":
            return cls(ThresholdPolicy(config.threshold))
        if calibration is None and config.calibration is not None:
            calibration = Calibration.read(config.calibration)
        elif calibration is None:
            calibration = Calibration.shipped(config.embedder)
        if calibration is None or calibration.embedder != config.embedder:
            _log.warning(
                "cache: no calibration for %s: questions are matched by repetition only", config.embedder
            )
            return cls(ExactPolicy())
        qualities = {judge.name: judge.quality} if judge else {}
        acceptance = AcceptancePolicy(
            calibration.levels, config.max_wrong, qualities, _Figures(registry).show
        )
        audits = Audits(
            acceptance,
            calibration=calibration.digest,
            embedder=embedder_id,
            rate=config.audit_rate,
            registry=registry,
            path=verdicts,
            judge=judge,
        )
        return cls(VerifiedPolicy(calibration, acceptance), audits, acceptance)

    def start(self) -> None:
        """Read former verdicts, begin to audit."""
        if self.audits is not None:
            self.audits.start()

    async def stop(self) -> None:
        """End the audit that runs."""
        if self.audits is not None:
            await self.audits.stop()


class _Figures:
    """What is in force, as metrics."""

    def __init__(self, registry: Registry) -> None:
        self._level = registry.gauge(
            "carpool_cache_level", "Probability from which on an answer is served by meaning"
        )
        self._share = registry.gauge(
            "carpool_cache_wrong_share", "Wrong hits / hits by meaning: expected, and bounds by verdicts"
        )
        self._audits = registry.gauge("carpool_cache_audits", "Verdicts on what the level in force serves")

    def show(self, tenant: str, model: str, found: Acceptance) -> None:
        self._level.set(found.level, tenant=tenant, model=model)
        for name, value in (
            ("expected", found.expected),
            ("lower", found.interval.lower),
            ("upper", found.interval.upper),
        ):
            self._share.set(value, tenant=tenant, model=model, bound=name)
        self._audits.set(found.audits, tenant=tenant, model=model)
