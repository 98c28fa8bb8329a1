"""A worker process whose models cost nothing: the real session over the real protocol, and no forward pass.

`python -m bench.gateway.noop_worker FD CONFIG`, as `carpool.worker`. The model's options: `tokens`, how long
its replies are; `step_s`, the time between two steps of all that runs, 0: the whole reply is one step;
`hold`: what it accepts it never answers.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Callable

import numpy as np
import tokenizers
import uvloop
from tokenizers import decoders, models, pre_tokenizers

from carpool.models.tokenizer import Tokenizer
from carpool.worker.config import WorkerConfig
from carpool.worker.framing import READ_BUFFER_BYTES, FrameWriter
from carpool.worker.host import ModelHost, Surroundings
from carpool.worker.hosted import Description, EmbeddingModel, GeneratingModel, HostedModel
from carpool.worker.protocol import Count, Embed, Generate, Knobs, Load, Result, Step, StepEntry, Weigh
from carpool.worker.session import Session

DIMENSIONS = 384
_PROMPT_TOKENS = 16


def tokenizer() -> Tokenizer:
    """One token per byte, and 256: a word of four letters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: i for i, character in enumerate([*alphabet, "Ġride"])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend)


WORD = 256


class Quiet(HostedModel):
    """What every hosted model has and these do not need."""

    steps: int = 0
    has_work: bool = False
    healthy: bool = True
    knobs: Knobs = Knobs()

    def tune(self, knobs: Knobs) -> None:
        """Nothing to change."""

    async def close(self) -> None:
        """Nothing to free."""


class Talker(Quiet, GeneratingModel):
    """Says one word over and over."""

    def __init__(self, load: Load, surroundings: Surroundings) -> None:
        self._name = load.model
        self._tokens: int = load.options.get("tokens", 1)
        self._step_s: float = load.options.get("step_s", 0.0)
        self._hold: bool = load.options.get("hold", False)
        self._emit = surroundings.emit
        self._left: dict[int, int] = {}
        self._stepping = asyncio.create_task(self._run()) if self._step_s else None
        self.description = Description(
            task="generate",
            context_length=100_000,
            details={"kind": "no-op"},
            tokenizer=tokenizer().to_json(),
            revision="no-op",
        )

    async def generate(self, request: Generate, accept: Callable[[int], None]) -> None:
        """Accept and, where it may, answer."""
        accept(_PROMPT_TOKENS)
        if self._stepping is not None:
            self._left[request.id] = self._tokens
        elif not self._hold:
            self._emit(Step(self._name, [StepEntry(request.id, 0, [WORD] * self._tokens, None, "stop")]))

    async def count(self, request: Count) -> int:  # noqa: ARG002
        """See `GeneratingModel`."""
        return _PROMPT_TOKENS

    def cancel(self, request_id: int, index: int | None) -> None:  # noqa: ARG002
        """See `GeneratingModel`."""
        self._left.pop(request_id, None)
        self._emit(Step(self._name, [StepEntry(request_id, 0, [], None, "cancelled")]))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._step_s)
            entries = []
            for request_id, left in list(self._left.items()):
                entries.append(StepEntry(request_id, 0, [WORD], None, None if left > 1 else "stop"))
                self._left[request_id] = left - 1
                if left == 1:
                    del self._left[request_id]
            if entries:
                self._emit(Step(self._name, entries))


class Embedder(Quiet, EmbeddingModel):
    """Knows one vector."""

    def __init__(self) -> None:
        self.description = Description(
            task="embed",
            context_length=512,
            revision="no-op",
            details={"kind": "no-op"},
            dimensions=DIMENSIONS,
        )
        self._vector = np.full(DIMENSIONS, DIMENSIONS**-0.5, "<f4").tobytes()

    async def embed(self, request: Embed) -> Result:
        """See `EmbeddingModel`."""
        count = len(request.inputs)
        return Result(request.id, DIMENSIONS, memoryview(self._vector * count), [1] * count)


class NoFiles:
    """Makes either kind."""

    async def weigh(self, weigh: Weigh, surroundings: Surroundings) -> int:  # noqa: ARG002
        """They take nothing."""
        return 0

    async def load(self, load: Load, surroundings: Surroundings) -> HostedModel:
        """The kind that the option `task` names."""
        return Embedder() if load.options.get("task") == "embed" else Talker(load, surroundings)


async def _serve(connection: socket.socket, config: WorkerConfig) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=READ_BUFFER_BYTES)
    await Session(ModelHost(config, NoFiles()), reader, FrameWriter(writer)).run()


if __name__ == "__main__":
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    uvloop.run(_serve(socket.socket(fileno=int(sys.argv[1])), WorkerConfig.from_json(sys.argv[2])))
