"""An embedding model on the batching core."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carpool.errors import InvalidRequest
from carpool.inference_engine import DeviceGate, Priority
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.encoder import EncoderRuntime
from carpool.telemetry import Registry

from .batched_encoder import BatchedEncoder
from .config import EncoderConfig
from .input_tokenizer import Inputs, InputTokenizer
from .scores import Scores
from .sentence_transformers import SentenceTransformersConfig


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The answer to one call, in the order of its inputs."""

    vectors: NDArray[np.float32]
    """[inputs, dimensions]"""
    token_counts: list[int]
    """Tokens computed for each input, special tokens included."""


class Embedder(BatchedEncoder[list[int]]):
    """Embeds texts and token ids; every input rides on its own in the batches of all concurrent calls.

        async with Embedder(runtime, tokenizer, EncoderConfig(), name="all-minilm-l6-v2") as embedder:
            embeddings = await embedder.embed(["a text", "another"])

    `extra` is what the model's directory says of prompts, case and similarity; `gate` is the device's gate if
    other models share it. The caller closes the runtime after `stop`.
    """

    def __init__(
        self,
        runtime: EncoderRuntime,
        tokenizer: Tokenizer,
        config: EncoderConfig,
        *,
        name: str,
        extra: SentenceTransformersConfig | None = None,
        gate: DeviceGate | None = None,
        registry: Registry | None = None,
    ) -> None:
        super().__init__(runtime, runtime.encode, config, name=name, gate=gate, registry=registry)
        self._extra = extra or SentenceTransformersConfig()
        self._tokenizer = InputTokenizer(
            tokenizer, runtime.spec.max_tokens, lower_case=self._extra.lower_case
        )

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
        if not inputs:
            raise InvalidRequest("There is no input.", param="input")
        ids = await self._tokenizer.tokenize(inputs, truncate, prompt=self._extra.default_prompt)
        lengths = list(map(len, ids))
        vectors = await self._batches.run(
            ids, lengths, priority=priority, deadline=deadline, tenant=tenant, name="input[{}]".format
        )
        return Embeddings(vectors, lengths)

    async def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        tenant: str = "local",
        truncate: bool = False,
    ) -> Scores:
        """How similar each document is to a query, each embedded with the model's own prompt for its kind.

        Otherwise as `embed`; `param` of a refusal is `query` or `documents[i]`.
        """
        if not documents:
            raise InvalidRequest("There are no documents.", param="documents")
        extra, tokenize = self._extra, self._tokenizer.tokenize
        ids = await tokenize([query], truncate, prompt=extra.query_prompt, name="query")
        ids += await tokenize(documents, truncate, prompt=extra.document_prompt, name="documents[{}]")
        lengths = list(map(len, ids))
        vectors = await self._batches.run(
            ids,
            lengths,
            priority=priority,
            deadline=deadline,
            tenant=tenant,
            name=lambda index: f"documents[{index - 1}]" if index else "query",
        )
        return Scores(extra.similarity.of(vectors[0], vectors[1:]), sum(lengths))
