"""What the graphs of all decoders have in common: inputs, weights, KV memory, and the head."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import openvino as ov
from openvino import opset15 as ops

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint, Tensor, TensorFormat, stacked
from carpool.models.dequantize import dequantize
from carpool.models.hyperparameters import Hyperparameters
from carpool.runtimes.openvino.blocks import ints, linear
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.device import Precision
from carpool.runtimes.openvino.paged_attention import KvCache, PagedInputs, paged_attention, parameter
from carpool.runtimes.openvino.weights import matrix


class DecoderGraph(ABC):
    """The graph of a checkpoint for `num_threads` threads, computed in `precision`.

    Its matrices are held as `weights` says, which must not be AUTO.

    Inputs, with T tokens and S samples: `input_ids` and `position_ids` i64 [T], `sample_positions` i64 [S]
    (which of the T tokens' logits are wanted), those of `PagedInputs`, and a `KvCache` per layer. Output:
    `logits` f32 [S, vocab_size], and `row_sums` f32 [S] if logits are products of integers: not finite where
    the logits mean nothing. Hidden states are [tokens, 1, hidden size] throughout: three axes, as the
    plugin's fusions want. A subclass is one architecture; it raises `ModelFailed` for a variant that is not
    supported.
    """

    prefix = "model."
    """Before the names of all tensors but the head's; some checkpoints leave it out."""
    word_embedding: str
    """The table of the tokens' embeddings, which may be the head as well."""
    feed_forward = ".mlp."
    """In the names of the feed-forward layers' matrices, and in no others."""
    typical_matrix: str
    """A matrix of the first layer, stored like those of all layers."""
    num_layers: int
    context_length: int
    """Tokens that a sequence may have."""

    def __init__(
        self, checkpoint: Checkpoint, weights: WeightFormat, precision: Precision, num_threads: int
    ) -> None:
        self._checkpoint = checkpoint
        self._weights = weights
        self._precision = precision
        self._num_threads = num_threads
        self._config = Hyperparameters(checkpoint.config, str(checkpoint.path))
        self._input_ids = parameter("input_ids", [-1], ov.Type.i64)
        self._position_ids = parameter("position_ids", [-1], ov.Type.i64)
        self._sample_positions = parameter("sample_positions", [-1], ov.Type.i64)
        self._paged = PagedInputs.create()
        self._caches: list[KvCache] = []
        self._row_sums: ov.Node | None = None
        """A number of each sample, or a NaN where its hidden state has one, if its logits do not show it."""
        self.vocab_size = self.tensor_of(checkpoint, self.word_embedding).shape[0]

    @classmethod
    def stored_format(cls, checkpoint: Checkpoint) -> TensorFormat:
        """How the checkpoint holds its layers' matrices."""
        return cls.tensor_of(checkpoint, cls.typical_matrix).format

    @classmethod
    def tensor_of(cls, checkpoint: Checkpoint, name: str) -> Tensor:
        """A tensor by its name without `prefix`. Raises `ModelFailed` where there is none."""
        return checkpoint.tensor(name if name in checkpoint else f"{cls.prefix}{name}")

    def model(self) -> ov.Model:
        """The graph, with everything the class's description says."""
        embedding = self._matrix(self.word_embedding)
        rows = ops.constant(0, ov.Type.i64)
        hidden = self._embed(ops.unsqueeze(ops.gather(embedding, self._input_ids, rows), ints(1)))
        for layer in range(self.num_layers):
            hidden = self._layer(hidden, layer)
        self._check_head()
        logits = self._head(hidden, embedding)
        results = [_result("logits", ops.reshape(logits, ints(-1, self.vocab_size), False))]
        if self._row_sums is not None:
            results.append(_result("row_sums", self._row_sums))
        inputs = [self._input_ids, self._position_ids, self._sample_positions, *self._paged.parameters]
        for cache in self._caches:
            inputs += [cache.key, cache.value]
        return ov.Model(results, inputs, self._checkpoint.architecture)

    def _embed(self, words: ov.Node) -> ov.Node:
        """The hidden states of the first layer, from the embeddings of the tokens."""
        return words

    @abstractmethod
    def _layer(self, hidden: ov.Node, layer: int) -> ov.Node:
        """One layer, residual connections included; what goes around the attention passes `_needed`."""

    def _needed(self, x: ov.Node, layer: int) -> ov.Node:
        """The rows of [tokens, 1, width] that are needed from the attention of a layer on.

        After the last layer's keys and values nobody asks for the tokens that are not sampled from.
        """
        if layer < self.num_layers - 1:
            return x
        return ops.gather(x, self._sample_positions, ops.constant(0, ov.Type.i64))

    def _head(self, hidden: ov.Node, embedding: ov.Node) -> ov.Node:
        """The logits [tokens, 1, vocab_size] of the last layer's output."""
        head = embedding if self._is_tied else self._matrix("lm_head.weight")
        return linear(self._final_norm(hidden), head, self._bias("lm_head"))

    def _check_head(self) -> None:
        """Raise `ModelFailed` for a head of another shape than the table of embeddings."""
        expected = self._tensor(self.word_embedding).shape
        if not self._is_tied and (found := self._tensor("lm_head.weight").shape) != expected:
            raise ModelFailed(
                f"{self._checkpoint.path}: lm_head.weight has the shape {list(found)} and the table of "
                f"embeddings {list(expected)}"
            )

    @abstractmethod
    def _final_norm(self, hidden: ov.Node) -> ov.Node:
        """What is between the last layer and the head."""

    def _attend(
        self,
        query: ov.Node | ov.Output,
        key: ov.Node | ov.Output,
        value: ov.Node | ov.Output,
        *,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        scale: float,
        sliding_window: int = 0,
    ) -> ov.Node:
        """`paged_attention` of the next layer, on [tokens, 1, width] or [tokens, heads, 1, head_dim].

        Returns the rows that are needed.
        """
        layer = len(self._caches)
        cache = KvCache.create(layer)
        self._caches.append(cache)
        attended = paged_attention(
            ops.reshape(query, ints(-1, num_heads * head_dim), False),
            ops.reshape(key, ints(-1, num_kv_heads * head_dim), False),
            ops.reshape(value, ints(-1, num_kv_heads * head_dim), False),
            cache,
            self._paged,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            scale=scale,
            sliding_window=sliding_window,
        )
        return self._needed(ops.reshape(attended, ints(-1, 1, num_heads * head_dim), False), layer)

    def _linear(self, x: ov.Node, name: str, out_features: int | None = None) -> ov.Node:
        """A linear layer, with a bias if the checkpoint has one.

        Where heads are cut out of its output, `out_features` is what they need: OpenVINO would find out at
        run time only.
        """
        y = linear(x, self._matrix(f"{name}.weight"), self._bias(name))
        if out_features is not None:
            self._check_features(name, y.output(0).get_partial_shape()[-1].get_length(), out_features)
        return y

    def _projections(self, x: ov.Node, names: Sequence[str], out_features: Sequence[int]) -> list[ov.Output]:
        """Linear layers of one input, computed as one product where they are stored alike.

        A product reads its input and gathers the threads anew, which is a tenth of a step of few tokens.
        """
        tensors = [self._tensor(f"{name}.weight") for name in names]
        biases = [self._has(f"{name}.bias") for name in names]
        if (
            len(
                {
                    (tensor.format, tensor.shape[1:], bias)
                    for tensor, bias in zip(tensors, biases, strict=True)
                }
            )
            > 1
        ):
            layers = zip(names, out_features, strict=True)
            return [self._linear(x, name, features).output(0) for name, features in layers]
        for name, tensor, features in zip(names, tensors, out_features, strict=True):
            self._check_features(name, tensor.shape[0], features)
        y = linear(x, matrix(stacked(tensors), self._held_as(names[0])))
        if all(biases):
            values = [dequantize(self._tensor(f"{name}.bias")) for name in names]
            y = ops.add(y, ops.constant(np.concatenate(values)))
        parts: list[ov.Output] = ops.variadic_split(
            y, ops.constant(2, ov.Type.i64), ints(*out_features)
        ).outputs()
        return parts

    def _check_features(self, name: str, features: int, out_features: int) -> None:
        if features != out_features:
            raise ModelFailed(
                f"{self._checkpoint.path}: {name} has {features} features, its heads {out_features}"
            )

    def _bias(self, name: str) -> ov.Node | None:
        bias = f"{name}.bias"
        return self._vector(bias) if self._has(bias) else None

    def _matrix(self, name: str) -> ov.Node:
        return matrix(self._tensor(name), self._held_as(name), is_fused=self._is_fused(name))

    def _is_fused(self, name: str) -> bool:  # noqa: ARG002  # others' layers may be
        """Whether a matrix is for one of the plugin's fused kernels."""
        return False

    def _held_as(self, name: str) -> WeightFormat:
        """How a matrix is held, by its name or its layer's."""
        if self._weights is not WeightFormat.MIXED:
            return self._weights
        return WeightFormat.INT8 if self.feed_forward in name else WeightFormat.BF16

    def _vector(self, name: str) -> ov.Node:
        return ops.constant(dequantize(self._tensor(name)))

    def _tensor(self, name: str) -> Tensor:
        return self.tensor_of(self._checkpoint, name)

    def _has(self, name: str) -> bool:
        return name in self._checkpoint or f"{self.prefix}{name}" in self._checkpoint

    @property
    def _is_tied(self) -> bool:
        """Whether the head is the table of embeddings."""
        return self._config.flag("tie_word_embeddings", default=False) or not self._has("lm_head.weight")


def _result(name: str, node: ov.Node) -> ov.Node:
    result = ops.result(node)
    result.output(0).set_names({name})
    return result
