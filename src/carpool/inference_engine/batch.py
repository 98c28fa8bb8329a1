"""Which of the waiting tasks ride together."""

from __future__ import annotations

import math
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
    """Bounds `batch_cost`, except that one task always fits."""
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

    The first candidate is always taken: it anchors the batch. Without padding lengths do not matter, and the
    others follow in order, as far as they fit. With padding the room goes to the tasks nearest to it in
    length, up to where this call and those that the rest will need are expected to cost least together.
    Whoever stays behind while a later one goes has been overtaken; a task to which that has happened
    `max_overtakes` times is a barrier, behind which nothing is taken unless it is. So no task is overtaken
    more often than that, and as the anchor always goes, the barrier becomes the anchor.
    """
    if not limits.padded:
        return _in_order(candidates, limits)
    costs = [task.cost for task in candidates]
    if costs.count(costs[0]) == len(costs):  # nothing to sort by length
        room_for = min(limits.max_items, max(1, int(min(limits.max_cost / costs[0], limits.max_items))))
        return candidates[:room_for], len(candidates) >= room_for
    barriers = [index for index, task in enumerate(candidates) if task.overtaken >= limits.max_overtakes]
    chosen, full = _by_length(costs, barriers, limits)
    taken = set(chosen)
    for index in range(max(chosen)):
        if index not in taken:
            candidates[index].overtaken += 1
    return [candidates[index] for index in sorted(chosen)], full


def _in_order(candidates: list[InferenceTask], limits: BatchLimits) -> tuple[list[InferenceTask], bool]:
    """As many as fit, none overtaken."""
    total = 0.0
    for count, task in enumerate(candidates):
        total += task.cost
        if count and (count == limits.max_items or total > limits.max_cost):
            return candidates[:count], True
    return candidates, len(candidates) == limits.max_items


def _by_length(costs: list[float], barriers: list[int], limits: BatchLimits) -> tuple[list[int], bool]:
    """The anchor and candidates near to its length, up to the first barrier that is not taken."""
    most, max_cost = limits.max_items, limits.max_cost
    distances = [abs(cost - costs[0]) for cost in costs]
    total = sum(costs)

    def estimate() -> float:
        """Cost of this batch, and of later ones for the rest."""
        calls = -(-(len(costs) - items) // most)
        overhead = limits.dispatch_cost * calls if calls else 0.0
        return items * longest + overhead + _LATER_PADDING * (total - plain)

    chosen, full = [0], False
    items, longest, plain = 1, costs[0], costs[0]
    begin = 1
    for barrier in [*barriers, len(costs) - 1]:
        fitting: list[int] = []
        best, least = (items, longest, plain), estimate()
        for index in sorted(range(begin, barrier + 1), key=distances.__getitem__):
            cost = costs[index]
            if items == most or (items + 1) * max(longest, cost) > max_cost:
                full = True
                if cost > longest:
                    continue  # a shorter one may still fit
                break
            fitting.append(index)
            items, longest, plain = items + 1, max(longest, cost), plain + cost
            if (cheaper := estimate()) <= least:
                best, least = (items, longest, plain), cheaper
        kept = fitting[: best[0] - items + len(fitting)]
        full = (full or items == most) and len(kept) == len(fitting)
        items, longest, plain = best
        chosen += kept
        if full or (barrier >= begin and barrier not in kept):
            break
        begin = barrier + 1
    return chosen, full
