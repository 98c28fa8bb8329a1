"""What a server writes to standard error."""

import asyncio
import contextlib
import logging
import sys
from typing import TextIO


class LinesOfATurn(logging.Handler):
    """Writes what is logged in one turn of the event loop together, at its end: a busy server saves calls.

    What other threads log, and what is logged without an event loop, is written at once.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            self._lines.append(self.format(record) + "\n")
        except Exception:
            self.handleError(record)
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if len(self._lines) == 1:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """See `logging.Handler`."""
        self.acquire()
        try:
            lines, self._lines = self._lines, []
            if lines:
                # Nobody reads any more. To raise would fail who logs, or log an error in each turn.
                with contextlib.suppress(OSError, ValueError):
                    self._stream.write("".join(lines))
                    self._stream.flush()
        finally:
            self.release()


def log_to_stderr() -> None:
    """Warnings of everybody, and the log lines of Carpool's own parts, one of them for each request."""
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[LinesOfATurn(sys.stderr)]
    )
    # Where a line was logged is not shown, and to find it out costs a busy server several percent.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.getLogger("carpool").setLevel(logging.INFO)
