"""What a server writes to standard error."""

import logging
import sys


def log_to_stderr() -> None:
    """Warnings of everybody, and the log lines of Carpool's own parts, one of them for each request."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    # Where a line was logged is not shown, and to find it out costs a busy server several percent.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.getLogger("carpool").setLevel(logging.INFO)
