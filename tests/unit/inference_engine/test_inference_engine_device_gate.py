"""One owner at a time, in the order of the policy."""

import asyncio
from collections.abc import Sequence

import pytest

from carpool.inference_engine import POLICIES, DeviceGate, InvalidConfig, ManualClock, Policy, Priority


class Device:
    """A gate on a manual clock, and the record of who held it."""

    def __init__(self, policy: Policy) -> None:
        self.clock = ManualClock()
        self.gate = DeviceGate(policy, clock=self.clock)
        self.order: list[str] = []
        self.holders = 0

    async def use(
        self,
        owner: str,
        run_s: float = 0.010,
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        weight: float = 1.0,
    ) -> None:
        async with self.gate.turn(owner, priority=priority, deadline=deadline, weight=weight):
            assert self.holders == 0
            self.holders += 1
            self.order.append(owner)
            await self.clock.sleep(run_s)
            self.holders -= 1

    async def loop(self, owner: str, run_s: float, weight: float = 1.0) -> None:
        while True:
            await self.use(owner, run_s, weight=weight)


async def finished(device: Device, tasks: Sequence["asyncio.Task[None]"]) -> None:
    while not all(task.done() for task in tasks):
        await device.clock.advance(0.010)
    await asyncio.gather(*tasks)


async def test_fifo_goes_by_who_asked_first() -> None:
    device = Device("fifo")
    await finished(device, [asyncio.create_task(device.use(name)) for name in "abcd"])
    assert device.order == list("abcd")


async def test_who_waits_behind_whom() -> None:
    gate = DeviceGate()
    first = gate.turn("a")
    async with first:
        others = [asyncio.create_task(gate.turn(owner).__aenter__()) for owner in "ab"]
        await asyncio.sleep(0)
        assert [gate.is_behind_another(owner) for owner in "abc"] == [False, True, False]
    for other in others:
        turn = await other
        await turn.__aexit__(None, None, None)
    assert not gate.is_behind_another("b")


async def test_priority_goes_first() -> None:
    device = Device("priority")
    lanes = [Priority.IDLE, Priority.BULK, Priority.INTERACTIVE, Priority.REALTIME, Priority.BULK]
    await finished(
        device, [asyncio.create_task(device.use(f"{i}", priority=lane)) for i, lane in enumerate(lanes)]
    )
    assert device.order == ["0", "3", "2", "1", "4"]  # the first found the device free


async def test_edf_goes_by_deadline() -> None:
    device = Device("edf")
    deadlines = [9.0, None, 3.0, 1.0, 2.0]
    await finished(
        device, [asyncio.create_task(device.use(f"{i}", deadline=d)) for i, d in enumerate(deadlines)]
    )
    assert device.order == ["0", "3", "4", "2", "1"]


@pytest.mark.parametrize("run_s", [(0.010, 0.010, 0.010), (0.003, 0.020, 0.007)])
async def test_wfq_shares_converge_to_the_weights(run_s: tuple[float, float, float]) -> None:
    device = Device("wfq")
    weights = {"a": 1.0, "b": 2.0, "c": 5.0}
    loops = [
        asyncio.create_task(device.loop(name, run, weight))
        for (name, weight), run in zip(weights.items(), run_s, strict=True)
    ]
    await device.clock.advance(10.0)
    for task in loops:
        task.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    used = device.gate.used_ms
    for name, weight in weights.items():
        assert used[name] / sum(used.values()) == pytest.approx(weight / 8, rel=0.05)


async def test_a_turn_that_goes_on_is_charged_as_turns_one_after_the_other() -> None:
    device = Device("wfq")

    async def keep() -> None:
        while True:
            async with device.gate.turn("first") as turn:
                await device.clock.sleep(0.010)
                while not device.gate.waiting:
                    turn.go_on(weight=1.0)
                    await device.clock.sleep(0.010)

    tasks = [asyncio.create_task(keep())]
    await device.clock.advance(5.0)
    assert device.gate.used_ms["first"] == pytest.approx(5000, abs=20)
    before = device.gate.used_ms["first"]
    tasks.append(asyncio.create_task(device.loop("second", 0.010)))
    await device.clock.advance(2.0)
    assert device.gate.used_ms["second"] == pytest.approx(device.gate.used_ms["first"] - before, abs=20)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_wfq_gives_no_credit_for_being_away() -> None:
    device = Device("wfq")
    first = asyncio.create_task(device.loop("first", 0.010))
    await device.clock.advance(5.0)
    second = asyncio.create_task(device.loop("second", 0.010))
    before = device.gate.used_ms["first"]
    await device.clock.advance(2.0)
    assert device.gate.used_ms["second"] == pytest.approx(device.gate.used_ms["first"] - before, abs=20)
    for task in (first, second):
        task.cancel()


async def test_the_policy_can_change_while_turns_wait() -> None:
    device = Device("fifo")
    running = [asyncio.create_task(device.use("running"))]
    await device.clock.advance()
    running += [
        asyncio.create_task(device.use(f"{name}", priority=priority))
        for name, priority in [("bulk", Priority.BULK), ("idle", Priority.IDLE), ("now", Priority.REALTIME)]
    ]
    await device.clock.advance()
    assert device.gate.waiting == 3
    device.gate.policy = "priority"
    await finished(device, running)
    assert device.order == ["running", "now", "bulk", "idle"]


def test_an_unknown_policy_is_refused() -> None:
    assert POLICIES == ("fifo", "priority", "wfq", "edf")
    with pytest.raises(InvalidConfig, match="fifo, priority, wfq, edf"):
        DeviceGate("lifo")  # type: ignore[arg-type]
    gate = DeviceGate()
    with pytest.raises(InvalidConfig):
        gate.policy = "random"  # type: ignore[assignment]
    assert gate.policy == "fifo"
    with pytest.raises(InvalidConfig, match="weight"):
        gate.turn("model", weight=0.0)


async def test_urgency_is_asked_for_when_the_turn_is_granted() -> None:
    device = Device("priority")
    urgency: list[Priority] = [Priority.BULK]

    async def changing() -> None:
        async with device.gate.turn("changing", priority=Priority.BULK, urgency=lambda: (urgency[0], None)):
            device.order.append("changing")

    tasks = [asyncio.create_task(device.use("running"))]
    await device.clock.advance()
    tasks += [asyncio.create_task(device.use("interactive")), asyncio.create_task(changing())]
    await device.clock.advance()
    urgency[0] = Priority.REALTIME
    await finished(device, tasks)
    assert device.order == ["running", "changing", "interactive"]


class Group:
    """Turns that may hold the device together, each ended by the test."""

    def __init__(self, device: Device, owner: str, priority: Priority = Priority.INTERACTIVE) -> None:
        self.device, self.owner, self.priority = device, owner, priority
        self.holding = 0

    def ask(self) -> tuple["asyncio.Task[None]", asyncio.Event]:
        end = asyncio.Event()
        return asyncio.create_task(self._turn(end)), end

    async def _turn(self, end: asyncio.Event) -> None:
        async with self.device.gate.turn(self.owner, priority=self.priority, group=self):
            self.holding += 1
            await end.wait()
            self.holding -= 1


async def test_a_group_holds_the_device_together_and_nobody_else_does() -> None:
    device = Device("fifo")
    group = Group(device, "group")
    (first, first_end), (second, second_end) = group.ask(), group.ask()
    await device.clock.advance()
    assert group.holding == 2
    stranger = asyncio.create_task(device.use("stranger"))
    same_name = asyncio.create_task(device.use("group"))
    await device.clock.advance()
    late, late_end = group.ask()  # behind the strangers, who would wait for ever if it joined
    first_end.set()
    await device.clock.advance()
    assert (group.holding, device.order) == (1, [])
    second_end.set()
    await finished(device, [stranger, same_name])
    assert group.holding == 1
    late_end.set()
    await asyncio.gather(first, second, late)
    assert device.order == ["stranger", "group"]


async def test_a_groups_more_urgent_turn_joins_past_those_who_wait() -> None:
    device = Device("priority")
    group = Group(device, "group")
    first, first_end = group.ask()
    await device.clock.advance()
    bulk = asyncio.create_task(device.use("bulk", priority=Priority.BULK))
    await device.clock.advance()
    second, second_end = group.ask()
    await device.clock.advance()
    assert group.holding == 2
    first_end.set()
    second_end.set()
    await finished(device, [first, second, bulk])
    assert device.order == ["bulk"]


async def test_a_group_is_charged_once_for_the_time_it_holds() -> None:
    device = Device("wfq")
    group = Group(device, "group")
    asked = [group.ask()]
    await device.clock.advance(0.010)
    asked.append(group.ask())
    await device.clock.advance(0.010)
    asked[0][1].set()
    await device.clock.advance(0.010)
    asked[1][1].set()
    await asyncio.gather(*(task for task, _ in asked))
    assert device.gate.used_ms == pytest.approx({"group": 30})


async def test_a_cancelled_wait_leaves_no_trace() -> None:
    device = Device("fifo")
    running = asyncio.create_task(device.use("running"))
    await device.clock.advance()
    waiting = asyncio.create_task(device.use("cancelled"))
    last = asyncio.create_task(device.use("last"))
    await device.clock.advance()
    waiting.cancel()
    await finished(device, [running, last])
    assert device.order == ["running", "last"]
    assert device.gate.waiting == 0


async def test_a_turn_cancelled_between_grant_and_start_is_passed_on() -> None:
    gate = DeviceGate()
    order: list[str] = []

    async def use(name: str) -> None:
        async with gate.turn(name):
            order.append(name)

    async with gate.turn("running"):
        waiting = [asyncio.create_task(use(name)) for name in ("unlucky", "lucky")]
        await ManualClock().advance()  # both ask
    # Runs right after the hand-over, when the first waiter has been granted and has not resumed yet.
    asyncio.get_running_loop().call_soon(waiting[0].cancel)
    await asyncio.gather(*waiting, return_exceptions=True)
    assert waiting[0].cancelled()
    assert order == ["lucky"]
    async with gate.turn("next"):  # free again
        assert gate.waiting == 0


async def test_every_owner_cancelled_at_any_moment_leaves_the_gate_free() -> None:
    """Cancels each of three users after every possible number of event-loop rounds."""
    for victim in range(3):
        for rounds in range(12):
            gate = DeviceGate("wfq")

            async def use(name: str, gate: DeviceGate = gate) -> None:
                for _ in range(2):
                    async with gate.turn(name):
                        await asyncio.sleep(0)

            tasks = [asyncio.create_task(use(name)) for name in "abc"]
            for _ in range(rounds):
                await asyncio.sleep(0)
            tasks[victim].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            async with gate.turn("after"):
                assert gate.waiting == 0


async def test_an_error_inside_a_turn_releases_it() -> None:
    gate = DeviceGate()
    with pytest.raises(RuntimeError, match="model"):
        async with gate.turn("a"):
            raise RuntimeError("model")
    async with gate.turn("b"):
        assert gate.used_ms.keys() == {"a"}
