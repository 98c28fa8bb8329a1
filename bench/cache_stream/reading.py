"""What a person read in the pairs that the labels call wrong: whether one answer serves both questions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cache_stream.data import pair_digest

_LOWEST_COSINE = 0.92
_FOREIGN = ("GPTCache", "RedisVL")


def is_foreign(contestant: str) -> bool:
    """Whether it is another project's cache."""
    return contestant.startswith(_FOREIGN)


def is_read_in_full(contestant: str) -> bool:
    """Whether all of a contestant's wrong hits are read, or a random sample of them."""
    kind, _, value = contestant.rpartition(" ")
    return kind.startswith("verified") or (kind == "cosine" and float(value) >= _LOWEST_COSINE)


@dataclass(frozen=True)
class Reading:
    """Verdicts by digest of the pair.

    `sampled`: those digests that were drawn at random from what is not read in full, by foreign contestant,
    and under "" for all that are of this repository.
    """

    same: dict[str, bool]
    sampled: dict[str, list[str]]

    @classmethod
    def of(cls, path: Path) -> "Reading":
        """What a file holds; nothing if there is none."""
        held = json.loads(path.read_text()) if path.exists() else {"same": {}, "sampled": {}}
        same = {digest: bool(verdict) for digest, verdict in held["same"].items()}
        return cls(same, held["sampled"])

    def knows(self, first: str, second: str) -> bool:
        """Whether the pair was read."""
        return pair_digest(first, second) in self.same

    def wrong(self, contestant: str, pairs: Sequence[tuple[str, str]]) -> tuple[float, int]:
        """How many of a contestant's pairs are wrong, and how many of them were read.

        Unread ones count with the share of wrong ones in the sample; without a sample, as wrong.
        """
        known = [self.same[digest] for pair in pairs if (digest := pair_digest(*pair)) in self.same]
        sample = self.sampled.get(contestant if is_foreign(contestant) else "", ())
        drawn = [self.same[digest] for digest in sample]
        share = drawn.count(False) / len(drawn) if drawn else 1.0
        return known.count(False) + share * (len(pairs) - len(known)), len(known)
