"""Encoders and classifiers on the CPU."""

from collections.abc import Sequence

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint
from carpool.runtimes.encoder import EncoderSpec, TokenPair
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.device import Precision, activation_rounding, compile_model, default_precision
from carpool.runtimes.openvino.encoder_graph import build_classifier_graph, build_embedding_graph
from carpool.runtimes.pooling import Pooling

_OFFSET_POSITIONS = ("Roberta", "XLMRoberta", "Camembert", "MPNet")
"""Architectures whose positions begin after the padding token's."""


class OpenVinoEncoder:
    """An encoder with its pooling; implements `EncoderRuntime`.

    It has one inference request, reused for every batch, so calls come from one thread at a time.
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
        model = build_embedding_graph(checkpoint, pooling, weights)
        self._graph = _CompiledGraph(model, num_threads, precision, weights)
        [vector] = self._graph.run([[0, 0]])  # the plugin packs the weights at the first call
        self._spec = EncoderSpec(len(vector), _max_tokens(checkpoint, max_tokens))

    @property
    def spec(self) -> EncoderSpec:
        """Sizes, constant over the runtime's life."""
        return self._spec

    def encode(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Run one batch, padded to its longest sequence; returns [len(batch), dimensions].

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
        model = build_classifier_graph(checkpoint, weights)
        self._graph = _CompiledGraph(model, num_threads, precision, weights)
        [logits] = self._graph.run([[0, 0]])  # the plugin packs the weights at the first call
        self._spec = EncoderSpec(len(logits), _max_tokens(checkpoint, max_tokens))

    @property
    def spec(self) -> EncoderSpec:
        """Sizes, constant over the runtime's life."""
        return self._spec

    def classify(self, batch: Sequence[TokenPair]) -> NDArray[np.float32]:
        """Run one batch, padded to its longest pair; returns the logits, [len(batch), dimensions]."""
        return self._graph.run([pair.ids for pair in batch], [pair.second for pair in batch])

    def close(self) -> None:
        """Free the memory; the classifier cannot be used any more."""
        del self._graph


class _CompiledGraph:
    """A graph as `encoder_graph` makes it, with its one inference request."""

    def __init__(
        self, model: ov.Model, num_threads: int, precision: Precision | None, weights: WeightFormat
    ) -> None:
        if precision == "bf16" and default_precision() != "bf16":
            raise ModelFailed(
                "precision: bf16 needs a CPU with AMX or AVX512-BF16, which this one has not; leave it unset"
            )
        compiled = compile_model(
            model,
            num_threads=num_threads,
            precision=precision,
            properties=activation_rounding(precision or default_precision(), weights),
        )
        self._has_types = any("token_type_ids" in node.get_names() for node in compiled.inputs)
        self._request = compiled.create_infer_request()

    def run(
        self, batch: Sequence[Sequence[int]], seconds: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """The output for token-id sequences; tokens from `seconds[row]` on are of type 1, others of 0."""
        shape = (len(batch), max(len(ids) for ids in batch))
        input_ids, attention_mask = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        for row, ids in enumerate(batch):
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._has_types:
            inputs["token_type_ids"] = np.zeros(shape, np.int32)
            for row, second in enumerate(seconds or ()):
                inputs["token_type_ids"][row, second : len(batch[row])] = 1
        # Without share_inputs: with it, OpenVINO 2026.4.1 corrupts the heap as shapes change.
        output: NDArray[np.float32] = self._request.infer(inputs)[0]
        return output


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
