"""Which of the waiting tasks ride together."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass

from .task import InferenceTask

_LATER_PADDING = 1.4
"""What a task that is left for a later batch is expected to cost there with padding, relative to itself.

Lower values make batches too small to pay for their calls, higher ones mix lengths; throughput is flat
between 1.3 and 1.6 with lengths spread evenly over a factor of 16.
"""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch may be. Costs are in the unit of `InferenceTask.cost`."""

    max_items: int
    max_cost: float = math.inf
    """Bounds the padded cost, except that one task always fits."""
    padded: bool = True
    max_overtakes: int = 16
    dispatch_cost: float = math.inf
    """What a call costs besides its items; infinite as long as that is not known."""


def batch_cost(tasks: list[InferenceTask], padded: bool) -> float:
    """What the device computes for these tasks: items times the longest, or the sum without padding."""
    if padded:
        return len(tasks) * max(task.cost for task in tasks)
    return sum(task.cost for task in tasks)


def form_batch(candidates: list[InferenceTask], limits: BatchLimits) -> tuple[list[InferenceTask], bool]:
    """Choose a batch from tasks in the order of their urgency; also tells whether a bound was reached.

    The first candidate is always taken: it anchors the batch. The room goes to the tasks nearest to it in
    length, up to where this call and those that the rest will need are expected to cost least together.
    Whoever stays behind while a later one goes has been overtaken; a task to which that has happened
    `max_overtakes` times is a barrier, behind which nothing is taken unless it is. So no task is overtaken
    more often than that, and as the anchor always goes, the barrier becomes the anchor.
    """
    costs = {task.cost for task in candidates}
    if len(costs) == 1:  # nothing to sort by length
        room_for = min(limits.max_items, max(1, int(min(limits.max_cost / costs.pop(), limits.max_items))))
        return candidates[:room_for], len(candidates) >= room_for
    room = _Room(candidates[0], limits)
    if limits.padded:
        chosen = _by_length(candidates, limits, room)
    else:
        chosen = [0]
        for index in range(1, len(candidates)):
            if not room.take(candidates[index]):
                break
            chosen.append(index)
    taken = set(chosen)
    for index in range(max(chosen)):
        if index not in taken:
            candidates[index].overtaken += 1
    return [candidates[index] for index in sorted(chosen)], room.full


def _by_length(candidates: list[InferenceTask], limits: BatchLimits, room: _Room) -> list[int]:
    """The anchor and candidates near to its length, up to the first barrier that is not taken."""
    anchor = candidates[0].cost
    barriers = [
        index for index, task in enumerate(candidates) if index and task.overtaken >= limits.max_overtakes
    ]
    left = sorted(range(1, len(candidates)), key=lambda index: abs(candidates[index].cost - anchor))
    total = sum(task.cost for task in candidates)
    chosen = [0]
    for barrier in [*barriers, len(candidates)]:
        trial = copy(room)
        fitting: list[int] = []
        kept, least = 0, trial.estimate(len(candidates), total)
        for index in left:
            if trial.items == limits.max_items:
                break
            if index <= barrier and trial.take(candidates[index]):
                fitting.append(index)
                estimate = trial.estimate(len(candidates), total)
                if estimate <= least:
                    kept, least = len(fitting), estimate
        for index in fitting[:kept]:
            room.take(candidates[index])
        room.full = trial.full and kept == len(fitting)
        chosen += fitting[:kept]
        if room.full or (barrier < len(candidates) and barrier not in chosen):
            break
        left = [index for index in left if index > barrier]
    return chosen


class _Room:
    """What is left of a batch's bounds."""

    def __init__(self, anchor: InferenceTask, limits: BatchLimits) -> None:
        self._limits = limits
        self._longest = self._sum = anchor.cost
        self.items = 1
        self.full = limits.max_items == 1
        """Whether a bound was reached."""

    def estimate(self, items: int, cost: float) -> float:
        """Cost of this batch with padding, and of later ones for the rest of `items` tasks of `cost`."""
        calls = math.ceil((items - self.items) / self._limits.max_items)
        overhead = self._limits.dispatch_cost * calls if calls else 0.0
        return self.items * self._longest + overhead + _LATER_PADDING * (cost - self._sum)

    def take(self, task: InferenceTask) -> bool:
        """Take the task if the bounds allow it."""
        items = self.items + 1
        longest = max(self._longest, task.cost)
        total = self._sum + task.cost
        cost = items * longest if self._limits.padded else total
        if items > self._limits.max_items or cost > self._limits.max_cost:
            self.full = True
            return False
        self.items, self._longest, self._sum = items, longest, total
        self.full = self.full or items == self._limits.max_items
        return True
