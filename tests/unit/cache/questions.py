"""Labelled pairs of made-up questions for tests."""

import random

from carpool.cache.labelled import Pair


def labelled_pairs(groups: int, seed: int = 0) -> list[Pair]:
    """Two pairs for each of `groups` questions: one that is the same, one with another word in it."""
    dice = random.Random(seed)

    def word() -> str:
        return "".join(dice.choice("bdfgklmnprt") + dice.choice("aeiou") for _ in range(4))

    pairs = []
    for _ in range(groups):
        words = [word() for _ in range(6)]
        first = f"Why do {' '.join(words)}?"
        same = dice.choice((f"Please, why do {' '.join(words)}?", f"why do the {' '.join(words)}"))
        words[dice.randrange(6)] = word()
        pairs += [Pair(first, same, True), Pair(first, f"Why do {' '.join(words)}?", False)]
    return pairs
