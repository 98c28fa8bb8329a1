"""How unit tests share the machine."""

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Give each process of `pytest -n` cores of its own: two that compute on all of them are slower."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
        count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number % len(cores) :: count])
