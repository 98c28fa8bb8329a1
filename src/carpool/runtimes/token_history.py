"""Which tokens a sequence holds, counted as they come."""

from collections.abc import Sequence

import numpy as np

from carpool.runtimes.selection import Ids


class TokenHistory:
    """The distinct tokens of a sequence, and how often each was drawn.

    It follows a list of drawn tokens that only grows, so that a step's penalties cost no more than its new
    tokens and a few array operations, however long the sequence is.
    """

    def __init__(self, prompt_ids: Sequence[int], output_ids: Sequence[int]) -> None:
        self._prompt_ids = prompt_ids
        self._output_ids = output_ids
        self._num_drawn = 0
        self._places: dict[int, int] = {}
        """Of each token in the arrays, which have room for more."""
        self._ids = self._times = np.zeros(0, np.intp)

    def seen(self) -> tuple[Ids, Ids]:
        """Each token of prompt and output once, and how often it was drawn."""
        self._follow()
        return self._ids[: len(self._places)], self._times[: len(self._places)]

    def drawn(self) -> tuple[Ids, Ids]:
        """Each token of the output once, and how often it is there."""
        ids, times = self.seen()
        places = np.flatnonzero(times)
        return ids[places], times[places]

    def _follow(self) -> None:
        if not self._places:
            self._places = {token_id: place for place, token_id in enumerate(dict.fromkeys(self._prompt_ids))}
            self._ids = np.fromiter(self._places, np.intp)
            self._times = np.zeros(len(self._places), np.intp)
        new_ids = self._output_ids[self._num_drawn :]
        self._num_drawn += len(new_ids)
        for token_id in new_ids:
            place = self._places.setdefault(token_id, len(self._places))
            if place == len(self._ids):
                self._make_room()
            self._ids[place] = token_id
            self._times[place] += 1

    def _make_room(self) -> None:
        more = np.zeros(max(len(self._ids), 64), np.intp)
        self._ids = np.concatenate([self._ids, more])
        self._times = np.concatenate([self._times, more])
