"""An embedding model on the batching core."""

import asyncio
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from carpool.inference_engine import BatchEvent, DeviceGate, EngineConfig, InferenceEngine, Priority
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.encoder import EncoderRuntime, EncoderSpec
from carpool.telemetry import Registry

from .config import EncoderConfig
from .input_tokenizer import Inputs, InputTokenizer
from .metrics import EncoderMetrics

_SLICE = 64
"""Inputs of a large call that are handled before the event loop gets a chance to do something else."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The answer to one call, in the order of its inputs."""

    vectors: NDArray[np.float32]
    """[inputs, dimensions]"""
    token_counts: list[int]
    """Tokens computed for each input, special tokens included."""


class Embedder:
    """Embeds texts and token ids; every input rides on its own in the batches of all concurrent calls.

    It lives on the event loop that starts it:

        async with Embedder(runtime, tokenizer, EncoderConfig(), name="all-minilm-l6-v2") as embedder:
            embeddings = await embedder.embed(["a text", "another"])

    `gate` is the device's gate if other models share it; `prompt` is put before every text, lower-cased with
    it if `lower_case`. The caller closes the runtime after `stop`.
    """

    def __init__(
        self,
        runtime: EncoderRuntime,
        tokenizer: Tokenizer,
        config: EncoderConfig,
        *,
        name: str,
        gate: DeviceGate | None = None,
        registry: Registry | None = None,
        prompt: str = "",
        lower_case: bool = False,
    ) -> None:
        self.batches = 0
        """Batches finished, failed ones included."""
        self._spec = runtime.spec
        self._metrics = EncoderMetrics(registry or Registry(), name)
        self._tokenizer = InputTokenizer(
            tokenizer, runtime.spec.max_tokens, prompt=prompt, lower_case=lower_case
        )
        self._engine: InferenceEngine[list[int], NDArray[np.float32]] = InferenceEngine(
            runtime.encode,
            EngineConfig(
                max_batch_size=config.max_batch_size,
                max_batch_cost=config.max_batch_tokens,
                batch_wait_ms=config.batch_wait_ms,
                max_queue_ms=config.max_queue_ms,
                weight=config.weight,
            ),
            gate=gate,
            name=name,
            observe=self._on_batch,
        )

    @property
    def spec(self) -> EncoderSpec:
        """The model's sizes."""
        return self._spec

    @property
    def waiting(self) -> int:
        """Inputs that wait for a batch."""
        return len(self._engine.queue)

    def start(self) -> None:
        """Start on the running event loop."""
        self._engine.start()

    async def stop(self, *, drain: bool = True) -> None:
        """Refuse new inputs, finish those that wait (without `drain`: only the batch that runs), and end."""
        await self._engine.stop(drain=drain)

    async def __aenter__(self) -> "Embedder":
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def embed(
        self,
        inputs: Inputs,
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        tenant: str = "local",
        truncate: bool = False,
    ) -> Embeddings:
        """Embed any number of inputs; whatever goes wrong with one of them ends the call.

        As at OpenAI, an empty input and one longer than the model's window are refused with their index,
        unless `truncate` cuts the latter to the window. `deadline` is an absolute `time.monotonic()`, in
        seconds. When the call fails or is cancelled, none of its inputs that still wait are computed.

        Raises `errors.InvalidRequest` and `errors.ContextLengthExceeded` before anything is queued,
        `inference_engine`'s `QueueFull`, `DeadlineExceeded` and `EngineStopped`, or what the runtime raised.
        """
        token_ids = await self._tokenizer.tokenize(inputs, truncate)
        lengths = [len(ids) for ids in token_ids]
        by_length = sorted(range(len(lengths)), key=lengths.__getitem__)  # neighbours pad each other least
        futures: list[asyncio.Future[NDArray[np.float32]]] = []
        try:
            for count, index in enumerate(by_length, 1):
                futures.append(
                    self._engine.enqueue(
                        token_ids[index],
                        priority=priority,
                        deadline=deadline,
                        tenant=tenant,
                        cost=lengths[index],
                    )
                )
                if count % _SLICE == 0:
                    await asyncio.sleep(0)
            rows = await asyncio.gather(*futures)
        finally:
            for future in futures:
                future.cancel()
        vectors = np.empty((len(rows), self._spec.dimensions), np.float32)
        for start in range(0, len(rows), _SLICE):
            if start:
                await asyncio.sleep(0)
            vectors[by_length[start : start + _SLICE]] = rows[start : start + _SLICE]
        return Embeddings(vectors, lengths)

    def _on_batch(self, event: BatchEvent) -> None:
        self.batches += 1
        self._metrics.finished(event, self.waiting)
