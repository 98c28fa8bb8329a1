"""A hosted embedding model."""

import asyncio
import time
from typing import cast

import numpy as np

from carpool.encoders import Embedder, Inputs
from carpool.inference_engine import Priority
from carpool.runtimes.encoder import EncoderRuntime
from carpool.worker.hosted import Description
from carpool.worker.protocol import Embed, Result


class Encoder:
    """An embedder, started on the running event loop. It owns the runtime from now on."""

    def __init__(self, runtime: EncoderRuntime, embedder: Embedder, description: Description) -> None:
        self.description = description
        self._runtime = runtime
        self._embedder = embedder
        self._embedder.start()

    @property
    def steps(self) -> int:
        """Batches of the embedder."""
        return self._embedder.batches

    async def embed(self, request: Embed) -> Result:
        """See `hosted.EmbeddingModel`."""
        embeddings = await self._embedder.embed(
            cast("Inputs", request.inputs),
            priority=Priority(request.priority),
            deadline=None if request.timeout_s is None else time.monotonic() + request.timeout_s,
            tenant=request.tenant,
            truncate=request.truncate,
        )
        vectors = np.ascontiguousarray(embeddings.vectors, "<f4")
        return Result(request.id, vectors.shape[1], vectors.data.cast("B"), embeddings.token_counts)

    async def close(self) -> None:
        """Finish what was accepted, then free the device."""
        await self._embedder.stop()
        await asyncio.to_thread(self._runtime.close)
