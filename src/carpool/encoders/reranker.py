"""A cross-encoder on the batching core: it reads query and document together."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carpool.errors import InvalidRequest, ModelFailed
from carpool.inference_engine import DeviceGate, Priority
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.encoder import ClassifierRuntime, TokenPair
from carpool.telemetry import Registry

from .batched_encoder import BatchedEncoder
from .config import EncoderConfig
from .cross_encoder import Activation
from .pair_tokenizer import PairTokenizer
from .scores import Scores


class Reranker(BatchedEncoder[TokenPair]):
    """Scores documents against a query; every pair rides on its own in the batches of all concurrent calls.

        async with Reranker(runtime, tokenizer, EncoderConfig(), name="bge-reranker-base") as reranker:
            scores = await reranker.score("where is the ferry?", ["at the quay", "a recipe"])

    `gate` is the device's gate if other models share it. The caller closes the runtime after `stop`. Raises
    `ModelFailed` for a runtime with several labels and for a tokenizer that knows no pairs.
    """

    def __init__(
        self,
        runtime: ClassifierRuntime,
        tokenizer: Tokenizer,
        config: EncoderConfig,
        *,
        name: str,
        gate: DeviceGate | None = None,
        registry: Registry | None = None,
        activation: Activation = Activation.SIGMOID,
    ) -> None:
        if runtime.spec.dimensions != 1:
            raise ModelFailed(f"a reranker has one label, {name} has {runtime.spec.dimensions}")
        super().__init__(runtime, runtime.classify, config, name=name, gate=gate, registry=registry)
        self._activation = activation
        self._tokenizer = PairTokenizer(tokenizer, runtime.spec.max_tokens)

    async def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        tenant: str = "local",
        truncate: bool = False,
        raw: bool = False,
    ) -> Scores:
        """Score any number of documents; whatever goes wrong with one of them ends the call.

        `raw` gives the head's logits without the activation. `truncate`, and what is refused without it, is
        `PairTokenizer.tokenize`'s. `deadline` is an absolute `time.monotonic()`, in seconds. When the call
        fails or is cancelled, none of its pairs that still wait are computed.

        Raises `errors.InvalidRequest` and `errors.ContextLengthExceeded` before anything is queued,
        `inference_engine`'s `QueueFull`, `DeadlineExceeded` and `EngineStopped`, or what the runtime raised.
        """
        if not documents:
            raise InvalidRequest("There are no documents.", param="documents")
        pairs = await self._tokenizer.tokenize(query, documents, truncate)
        lengths = [len(pair.ids) for pair in pairs]
        rows = await self._batches.run(
            pairs, lengths, priority=priority, deadline=deadline, tenant=tenant, name="documents[{}]".format
        )
        logits: NDArray[np.float32] = rows[:, 0]
        return Scores(logits if raw else self._activation.of(logits), sum(lengths))
