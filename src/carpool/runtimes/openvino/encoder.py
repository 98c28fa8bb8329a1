"""Encoders and classifiers on the CPU."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint
from carpool.runtimes.encoder import EncoderSpec, TokenPair
from carpool.runtimes.openvino.batch_graph import BatchGraph
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.device import Precision, default_precision
from carpool.runtimes.openvino.encoder_graph import build_classifier_graph, build_embedding_graph
from carpool.runtimes.pooling import Pooling

_OFFSET_POSITIONS = ("Roberta", "XLMRoberta", "Camembert", "MPNet")
"""Architectures whose positions begin after the padding token's."""


class OpenVinoEncoder:
    """An encoder with its pooling; implements `EncoderRuntime`.

    Calls come from up to `concurrency` threads at a time, as `BatchGraph` says.
    `max_tokens` lowers the longest input below what the model has positions for; `num_threads` is the budget
    of a forward pass; `weights` is AUTO or INT8. Raises `ModelFailed` for a model that cannot be built.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        pooling: Pooling,
        *,
        num_threads: int,
        max_tokens: int | None = None,
        precision: Precision | None = None,
        weights: WeightFormat = WeightFormat.AUTO,
    ) -> None:
        precision = precision or default_precision()
        model = build_embedding_graph(checkpoint, pooling, weights, precision)
        longest = _max_tokens(checkpoint, max_tokens)
        self._graph = BatchGraph(model, num_threads, precision, weights, longest)
        [vector] = self._graph.run([[0, 0]])
        self._spec = EncoderSpec(len(vector), longest)

    @property
    def spec(self) -> EncoderSpec:
        """Sizes, constant over the runtime's life."""
        return self._spec

    @property
    def concurrency(self) -> int:
        """Batches that are computed at a time."""
        return self._graph.concurrency

    @property
    def pads(self) -> bool:
        """Whether each text has a row of its own."""
        return self._graph.pads

    @property
    def computed_tokens(self) -> int:
        """Tokens computed so far, padding included."""
        return self._graph.computed_tokens

    def encode(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Run one batch; returns [len(batch), dimensions].

        Every sequence has 1 to `spec.max_tokens` ids below the vocabulary's size. Releases the GIL while the
        device works.
        """
        return self._graph.run(batch)

    def close(self) -> None:
        """Free the memory; the encoder cannot be used any more."""
        del self._graph


class OpenVinoClassifier:
    """An encoder with a classification head; implements `ClassifierRuntime`, else as `OpenVinoEncoder`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        num_threads: int,
        max_tokens: int | None = None,
        precision: Precision | None = None,
        weights: WeightFormat = WeightFormat.AUTO,
    ) -> None:
        precision = precision or default_precision()
        model = build_classifier_graph(checkpoint, weights, precision)
        longest = _max_tokens(checkpoint, max_tokens)
        self._graph = BatchGraph(model, num_threads, precision, weights, longest)
        [logits] = self._graph.run([[0, 0]])
        self._spec = EncoderSpec(len(logits), longest)

    @property
    def spec(self) -> EncoderSpec:
        """Sizes, constant over the runtime's life."""
        return self._spec

    @property
    def concurrency(self) -> int:
        """Batches that are computed at a time."""
        return self._graph.concurrency

    @property
    def pads(self) -> bool:
        """Whether each text has a row of its own."""
        return self._graph.pads

    @property
    def computed_tokens(self) -> int:
        """Tokens computed so far, padding included."""
        return self._graph.computed_tokens

    def classify(self, batch: Sequence[TokenPair]) -> NDArray[np.float32]:
        """Run one batch; returns the logits, [len(batch), dimensions]."""
        return self._graph.run([pair.ids for pair in batch], [pair.second for pair in batch])

    def close(self) -> None:
        """Free the memory; the classifier cannot be used any more."""
        del self._graph


def _max_tokens(checkpoint: Checkpoint, asked: int | None) -> int:
    """The longest input: what was asked for, at most the model's positions. Raises `ModelFailed`."""
    config = checkpoint.config
    positions = config.get("max_position_embeddings")
    if positions is not None and checkpoint.architecture.startswith(_OFFSET_POSITIONS):
        positions -= int(config["pad_token_id"]) + 1
    bounds = [bound for bound in (positions, asked) if bound is not None]
    if not bounds:
        raise ModelFailed(f"{checkpoint.path} does not say how many tokens the model takes")
    return int(min(bounds))
