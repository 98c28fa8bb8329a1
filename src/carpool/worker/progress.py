"""How far the load of a model is, told from whatever thread does the work."""

import asyncio
import time
from collections.abc import Callable

from carpool.models import source
from carpool.worker.protocol import Progress

_BEGINS_AT_PERCENT = {"fetching": 0.0, "reading": 70.0, "building": 75.0, "compiling": 85.0}
_REPORT_EVERY_S = 0.1


class ProgressReporter:
    """Sends `Progress` to the event loop it was made on, seldom enough not to be a load itself."""

    def __init__(self, model: str, on_progress: Callable[[Progress], None]) -> None:
        self._model = model
        self._on_progress = on_progress
        self._loop = asyncio.get_running_loop()
        self._next_s = 0.0

    def phase(self, name: str) -> None:
        """A phase begins; one of those of `Progress`, others are parts of the phase before."""
        if name in _BEGINS_AT_PERCENT:
            self._send(Progress(self._model, name, _BEGINS_AT_PERCENT[name]))

    def fetched(self, progress: source.Progress) -> None:
        """So much is downloaded."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _REPORT_EVERY_S
        done, total = progress.received_bytes, progress.total_bytes or 0
        percent = _BEGINS_AT_PERCENT["reading"] * min(done / total, 1.0) if total else 0.0
        self._send(Progress(self._model, "fetching", percent, done, total))

    def _send(self, progress: Progress) -> None:
        self._loop.call_soon_threadsafe(self._on_progress, progress)
