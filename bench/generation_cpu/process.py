"""A contestant's process, asked over pipes."""

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
from typing import IO, Any, cast

from bench.generation_cpu.contestants import Variant
from bench.generation_cpu.workload import ANSWERS_FD

START_TIMEOUT_S = 600.0
"""vLLM compiles C++ at every start."""
RUN_TIMEOUT_S = 240.0
_LOG_LINES = 3


class ContestantFailedError(Exception):
    """It cannot run here; says why."""


class ContestantProcess:
    """A started variant. What it prints goes to a log that a failure quotes."""

    def __init__(self, variant: Variant) -> None:
        """Start it and wait until its model is loaded. Raises `ContestantFailedError`."""
        self.variant = variant
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        read_fd, write_fd = os.pipe()
        self._answers = os.fdopen(read_fd, "rb")
        self._process = subprocess.Popen(
            variant.command,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(write_fd,),
            start_new_session=True,  # so that the processes it starts can be ended with it
            env={**os.environ, ANSWERS_FD: str(write_fd)},
        )
        os.close(write_fd)
        self._read(START_TIMEOUT_S)

    def generate(self, prompts: list[str]) -> tuple[float, list[str]]:
        """Wall seconds from the first submit to the last text, and the texts."""
        reply = self._ask({"prompts": prompts}, RUN_TIMEOUT_S)
        return reply["seconds"], reply["texts"]

    def serve(self, prompts: list[str], due: list[float]) -> list[list[float]]:
        """When each token of each prompt was there, in seconds after the start."""
        times: list[list[float]] = self._ask({"prompts": prompts, "due": due}, RUN_TIMEOUT_S + due[-1])[
            "times"
        ]
        return times

    def end(self) -> None:
        """Close its input and wait for it, or end it where it does not go."""
        with contextlib.suppress(BrokenPipeError):
            cast("IO[bytes]", self._process.stdin).close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        stdin = cast("IO[bytes]", self._process.stdin)
        stdin.write(json.dumps(request).encode() + b"\n")
        stdin.flush()
        return self._read(timeout_s)

    def _read(self, timeout_s: float) -> dict[str, Any]:
        ready, _, _ = select.select([self._answers], [], [], timeout_s)
        line = self._answers.readline() if ready else b""
        if line and "error" not in (reply := json.loads(line)):
            return cast("dict[str, Any]", reply)
        why = reply["error"] if line else "no answer in time" if not ready else "ended"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self.end()
        raise ContestantFailedError(f"{why} / {self._last_lines()}")

    def _last_lines(self) -> str:
        self._log.seek(0)
        return " / ".join(self._log.read().decode(errors="replace").strip().splitlines()[-_LOG_LINES:])
