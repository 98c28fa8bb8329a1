"""The waiting tasks of one priority, in fair order between tenants."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator

from .fairness import FairShare
from .task import InferenceTask


class _Flow:
    """One tenant's waiting tasks in order of arrival."""

    __slots__ = ("cost", "newest", "tasks")

    def __init__(self) -> None:
        self.tasks: OrderedDict[int, InferenceTask] = OrderedDict()
        self.cost = 0.0
        self.newest = -1


class Lane:
    """Tasks of one priority: tenants by start-time fair queueing over their tasks' cost, then by arrival.

    Only tenants with waiting tasks have a flow; a lane without tasks forgets who was served.
    """

    def __init__(self) -> None:
        self.items = 0
        self.cost = 0.0
        self.uniform = True
        """Whether all tasks have the same cost, as far as known."""
        self._cost_each = 0.0
        self._flows: dict[str, _Flow] = {}
        self._shares = FairShare()

    def add(self, task: InferenceTask) -> None:
        """Put the task in its tenant's flow, at the place that its `sequence` gives it."""
        if not self.items:
            self.uniform, self._cost_each = True, task.cost
        elif task.cost != self._cost_each:
            self.uniform = False
        flow = self._flows.get(task.tenant)
        if flow is None:
            flow = self._flows[task.tenant] = _Flow()
        flow.tasks[task.sequence] = task
        if task.sequence > flow.newest:
            flow.newest = task.sequence
        else:  # it was here before
            self._reinstate(flow, task.sequence)
        flow.cost += task.cost
        self.items += 1
        self.cost += task.cost

    @staticmethod
    def _reinstate(flow: _Flow, sequence: int) -> None:
        if sequence < next(iter(flow.tasks)):
            flow.tasks.move_to_end(sequence, last=False)
        else:
            flow.tasks = OrderedDict(sorted(flow.tasks.items()))

    def remove(self, task: InferenceTask) -> None:
        """Take the task out, in constant time wherever it stands."""
        del self._flows[task.tenant].tasks[task.sequence]
        self._shrink(task.tenant, 1, task.cost)

    def _shrink(self, tenant: str, items: int, cost: float) -> None:
        flow = self._flows[tenant]
        flow.cost -= cost
        self.items -= items
        self.cost -= cost
        if not flow.tasks:
            del self._flows[tenant]
            if not self._flows:
                self.cost = 0.0  # no rounding error survives an empty lane
                self._shares.reset()

    def ordered(self) -> Iterator[InferenceTask]:
        """The tasks in the order of a fair service; the lane must not change meanwhile."""
        if len(self._flows) == 1:
            (flow,) = self._flows.values()
            yield from flow.tasks.values()
            return
        heads = []
        for tenant, flow in self._flows.items():
            rest = iter(flow.tasks.values())
            task = next(rest)
            heads.append((self._shares.start(tenant), task.sequence, task, rest))
        heapq.heapify(heads)
        while heads:
            start, _, task, rest = heads[0]
            yield task
            following = next(rest, None)
            if following is None:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (start + task.cost, following.sequence, following, rest))

    def serve(self, tasks: list[InferenceTask]) -> None:
        """Remove these tasks and charge their tenants; `tasks[0]` was first in order."""
        self._shares.begin(tasks[0].tenant)
        served: dict[str, list[float]] = {}
        for task in tasks:
            del self._flows[task.tenant].tasks[task.sequence]
            served.setdefault(task.tenant, []).append(task.cost)
        for tenant, costs in served.items():
            self._shares.charge(tenant, sum(costs))
        for tenant, costs in served.items():
            self._shrink(tenant, len(costs), sum(costs))

    def refund(self, task: InferenceTask) -> None:
        """Take back what `serve` charged for a task that returns to the lane."""
        self._shares.refund(task.tenant, task.cost)

    def ahead_of(
        self, tenant: str, cost: float, num_earlier: int = 0, earlier_cost: float = 0.0
    ) -> tuple[int, float]:
        """Items and cost that fair service puts before one more task of the tenant.

        As if `num_earlier` tasks of the tenant's were here already. While a tenant is served its own backlog,
        every other one gets no more than about as much.
        """
        flow = self._flows.get(tenant)
        own_items, own_cost = num_earlier, earlier_cost + cost
        tenants = len(self._flows)
        if flow is not None:
            own_items += len(flow.tasks)
            own_cost += flow.cost
        elif num_earlier:
            tenants += 1
        items, all_cost = self.items + num_earlier, self.cost + earlier_cost
        return min(items, max(own_items, 1) * tenants), min(all_cost, own_cost * tenants)
