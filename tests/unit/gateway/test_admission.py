"""The server's own places: when to come back to a full one."""

import pytest

from carpool.errors import Overloaded, RateLimited
from carpool.gateway.admission import Admission
from carpool.gateway.config import KeyConfig
from carpool.gateway.key_limits import KeyLimits


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refusal(admission: Admission) -> Overloaded:
    with pytest.raises(Overloaded) as caught, admission.place(None):
        pass
    return caught.value


def test_a_full_server_tells_the_time_to_come_back_by_the_drain_rate() -> None:
    clock = Clock()
    admission = Admission(10, clock)
    for _ in range(10):
        admission.enter()
    assert refusal(admission).retry_after_s == 1, "nothing is known yet"
    for _ in range(5):
        admission.leave()
        admission.enter()
        clock.now += 2.0
    assert refusal(admission).retry_after_s == pytest.approx(10 * 2), "one ends every 2 s, 10 are there"
    assert admission.taken == 10


def test_what_a_keys_limit_refuses_tells_nothing_of_it() -> None:
    clock = Clock()
    admission = Admission(1, clock)
    limits = KeyLimits(KeyConfig(f"sha256:{'0' * 64}", "web", requests_per_minute=1), clock)
    with admission.place(limits):
        clock.now += 8.0
    with admission.place(None):
        clock.now += 8.0
    for _ in range(100):
        with pytest.raises(RateLimited), admission.place(limits):
            pass
    with admission.place(None):
        assert refusal(admission).retry_after_s == pytest.approx(8.0)
