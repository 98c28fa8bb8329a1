"""Watches how late the event loop is: the sum of everything that keeps it from running."""

import asyncio
from collections import deque

from carpool.telemetry import Instrument, Series

_INTERVAL_S = 0.05
_WINDOW = 20
"""Observations in a second."""


async def watch_loop_lag(gauge: Series, histogram: Instrument) -> None:
    """Observe delays in seconds, and keep the gauge at the longest of the last second, until cancelled."""
    loop = asyncio.get_running_loop()
    lags: deque[float] = deque(maxlen=_WINDOW)
    while True:
        due = loop.time() + _INTERVAL_S
        await asyncio.sleep(_INTERVAL_S)
        lag = max(0.0, loop.time() - due)
        lags.append(lag)
        histogram.observe(lag)
        gauge.value = max(lags)
