"""What was read in the pairs that the labels call wrong: whether one answer serves both questions.

A language model read them. It saw the two texts, in random order of the pairs, and neither the contestants
that serve a pair nor any score.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.cache_stream.data import pair_digest
from carpool.cache.confidence import Interval, wilson_interval

_SAMPLED = ("GPTCache",)
"""Wrong too often to compete: the thousands of hits that it alone serves are read by a random sample."""


def is_read_in_full(contestant: str) -> bool:
    """Whether all of a contestant's wrong hits are read, or a random sample of them."""
    return not contestant.startswith(_SAMPLED)


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many of some pairs are wrong: `found` among those read, and a share of the unread ones.

    The share is that of `drawn` pairs, drawn at random, of which `drawn_wrong` are wrong; if none were drawn,
    all unread ones count as wrong.
    """

    pairs: int
    read: int
    found: int
    drawn: int
    drawn_wrong: int

    @property
    def wrong(self) -> float:
        """The expected number."""
        share = self.drawn_wrong / self.drawn if self.drawn else 1.0
        return self.found + share * (self.pairs - self.read)

    def interval(self, trials: int) -> Interval:
        """The 95 % interval of wrong / `trials`: Wilson's if all were read.

        Otherwise Wilson's of as many trials as would have the variance of trials and sample together: Dean,
        Pagano, "Evaluating confidence interval methods for binomial proportions in clustered surveys", 2015.
        """
        share = self.wrong / trials if trials else 0.0
        of_trials = share * (1 - share)
        if not self.drawn or not of_trials:
            return wilson_interval(self.wrong, trials)
        # Two of each kind are added: a sample all of one kind does not count as certain (Agresti, Coull).
        rate = (self.drawn_wrong + 2) / (self.drawn + 4)
        of_sample = (self.pairs - self.read) ** 2 / trials * rate * (1 - rate) / self.drawn
        effective = trials * of_trials / (of_trials + of_sample)
        return wilson_interval(share * effective, effective)


@dataclass(frozen=True)
class Reading:
    """Verdicts by digest of the pair.

    `sampled`: those digests that were drawn at random from what is not read in full, by contestant.
    """

    same: dict[str, bool]
    sampled: dict[str, list[str]]

    @classmethod
    def of(cls, path: Path) -> "Reading":
        """What a file holds; nothing if there is none."""
        held = json.loads(path.read_text()) if path.exists() else {"same": {}, "sampled": {}}
        same = {digest: bool(verdict) for digest, verdict in held["same"].items()}
        return cls(same, held["sampled"])

    def beside(self, pairs: Iterable[tuple[str, str]]) -> "Reading":
        """The same, with samples of only what is not among `pairs`, which are read anyway.

        They would be few in a sample and many among the read, and such a sample stands for none of the two.
        """
        known = {pair_digest(*pair) for pair in pairs}
        return replace(
            self,
            sampled={
                name: [digest for digest in drawn if digest not in known]
                for name, drawn in self.sampled.items()
            },
        )

    def knows(self, first: str, second: str) -> bool:
        """Whether the pair was read."""
        return pair_digest(first, second) in self.same

    def wrong(self, contestant: str, pairs: Sequence[tuple[str, str]]) -> Estimate:
        """How many of a contestant's pairs are wrong."""
        known = [self.same[digest] for pair in pairs if (digest := pair_digest(*pair)) in self.same]
        drawn = [self.same[digest] for digest in self.sampled.get(contestant, ())]
        return Estimate(len(pairs), len(known), known.count(False), len(drawn), drawn.count(False))
