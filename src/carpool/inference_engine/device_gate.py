"""Who uses the device next: one gate per device, shared by all models on it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias, get_args

from .clock import MONOTONIC, Clock
from .errors import InvalidConfig
from .fairness import FairShare
from .task import Priority

Policy: TypeAlias = Literal["fifo", "priority", "wfq", "edf"]
POLICIES: Final[tuple[str, ...]] = get_args(Policy)

Urgency: TypeAlias = "Callable[[], tuple[Priority, float | None]]"
"""Returns the priority and the deadline (clock seconds) of the most urgent work waiting for a turn."""


class DeviceGate:
    """Grants the device to one owner at a time, or to a group of turns, in the order of its policy.

    - `fifo`: who asked first.
    - `priority`: the highest priority, then who asked first.
    - `wfq`: start-time fair queueing over the measured ms each owner held the device, by weight.
    - `edf`: the earliest deadline, then the highest priority.

    A turn ends without preemption, so a model bounds how long it holds the device (`bulk_slice_ms`), or looks
    from time to time whether somebody is `waiting`, and says that it goes on (`Turn.go_on`). Ordering happens
    when a turn is granted: `policy` may be assigned at any time and holds from the next grant on.
    The grant follows one event-loop callback after the release, so that an owner that asks again in the same
    step competes for it; otherwise the one that always has work would lose every second turn to whoever
    waits, whatever the weights (deceptive idleness: Iyer, Druschel 2001).

    Turns of one group may hold the device together. One joins those that hold it if it is the next by the
    policy anyway; a turn of somebody else who is before it waits until all of them have ended.
    """

    def __init__(self, policy: Policy = "fifo", *, clock: Clock = MONOTONIC) -> None:
        self._clock = clock
        self._waiting: list[Turn] = []
        self._holders: list[Turn] = []
        self._charged_until = 0.0
        self._shares = FairShare()
        self._asked = 0
        self.used_ms: dict[str, float] = {}
        """How long each owner has held the device in all, in ms."""
        self.policy = policy

    @property
    def policy(self) -> Policy:
        """How the next turn is chosen; assigning an unknown name raises `InvalidConfig`."""
        return self._policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        if policy not in POLICIES:
            raise InvalidConfig(f"policy must be one of {', '.join(POLICIES)}, not {policy!r}")
        self._policy: Policy = policy
        self._key: Callable[[Turn], Any] = getattr(self, f"_by_{policy}")

    @property
    def waiting(self) -> int:
        """How many turns wait."""
        return len(self._waiting)

    def is_behind_another(self, owner: str) -> bool:
        """Whether a turn of this owner waits for one of another owner to end."""
        held_by_another = any(turn.owner != owner for turn in self._holders)
        return held_by_another and any(turn.owner == owner for turn in self._waiting)

    def turn(
        self,
        owner: str,
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        weight: float = 1.0,
        urgency: Urgency | None = None,
        group: object | None = None,
    ) -> Turn:
        """An asynchronous context manager that holds the device.

        `owner` is the name that `wfq` charges, `weight` its share. `deadline` is in clock seconds. With
        `urgency`, priority and deadline are asked for anew whenever a turn is granted, because more urgent
        work may have come to the same owner while it waited. Turns of one owner with the same `group` may
        hold the device together, and are charged once for that time. Raises `InvalidConfig` for a weight
        that is not above 0.
        """
        if not weight > 0:
            raise InvalidConfig(f"weight must be above 0, not {weight}")
        return Turn(self, owner, priority, deadline, weight, urgency, group)

    async def _acquire(self, turn: Turn) -> None:
        self._asked += 1
        turn.asked = self._asked
        if self._is_free_for(turn):
            if not self._waiting:
                self._grant(turn)
                return
            asyncio.get_running_loop().call_soon(self._hand_over)
        granted = turn.granted = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await granted
        except asyncio.CancelledError:
            if turn in self._holders:  # granted, but cancelled before it could start
                self._release(turn)
            else:
                self._waiting.remove(turn)
            raise

    def _is_free_for(self, turn: Turn) -> bool:
        """Whether nobody holds the device, or only turns of the same group."""
        return not self._holders or (turn.group is not None and self._holders[0].group is turn.group)

    def _grant(self, turn: Turn) -> None:
        if not self._holders:
            self._charged_until = self._clock.time()
        self._holders.append(turn)
        self._shares.begin(turn.owner)

    def _charge(self, turn: Turn) -> None:
        now = self._clock.time()
        held_ms = (now - self._charged_until) * 1e3
        self._charged_until = now
        self._shares.charge(turn.owner, held_ms / turn.weight)
        self.used_ms[turn.owner] = self.used_ms.get(turn.owner, 0.0) + held_ms

    def _release(self, turn: Turn) -> None:
        self._charge(turn)
        self._holders.remove(turn)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        while self._waiting:
            for turn in self._waiting:
                if turn.urgency is not None:
                    turn.priority, turn.deadline = turn.urgency()
            chosen = min(self._waiting, key=self._key)
            if not self._is_free_for(chosen):
                return
            self._waiting.remove(chosen)
            self._grant(chosen)
            if chosen.granted is not None and not chosen.granted.done():
                chosen.granted.set_result(None)

    def _by_fifo(self, turn: Turn) -> int:
        return turn.asked

    def _by_priority(self, turn: Turn) -> tuple[int, int]:
        return turn.priority, turn.asked

    def _by_wfq(self, turn: Turn) -> tuple[float, int]:
        return self._shares.start(turn.owner), turn.asked

    def _by_edf(self, turn: Turn) -> tuple[float, int, int]:
        return math.inf if turn.deadline is None else turn.deadline, turn.priority, turn.asked


class Turn:
    """One stay on the device; made by `DeviceGate.turn` and used once."""

    __slots__ = ("_gate", "asked", "deadline", "granted", "group", "owner", "priority", "urgency", "weight")

    def __init__(
        self,
        gate: DeviceGate,
        owner: str,
        priority: Priority,
        deadline: float | None,
        weight: float,
        urgency: Urgency | None,
        group: object | None,
    ) -> None:
        self._gate = gate
        self.owner = owner
        self.priority = priority
        self.deadline = deadline
        self.weight = weight
        self.urgency = urgency
        self.group = group
        self.asked = 0
        self.granted: asyncio.Future[None] | None = None

    def go_on(self, weight: float) -> None:
        """Charge the time until now, as if the turn had ended and the same owner had got the next one."""
        self._gate._charge(self)
        self.weight = weight
        self._gate._shares.begin(self.owner)

    async def __aenter__(self) -> Turn:
        await self._gate._acquire(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gate._release(self)
