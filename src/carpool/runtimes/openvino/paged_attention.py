"""The one file that touches OpenVINO's paged-attention operation, which is marked experimental.

Its 28 inputs are those of src/core/include/openvino/op/paged_attention.hpp at the pinned version of OpenVINO.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import openvino as ov
from openvino import opset15 as ops
from openvino.op import _PagedAttentionExtension


def parameter(name: str, shape: list[int], type_: ov.Type) -> ov.Node:
    """An input of the graph, found under `name` in the compiled model."""
    node = ops.parameter(shape, type_, name=name)
    node.output(0).set_names({name})
    return node


@dataclass(frozen=True, slots=True)
class PagedInputs:
    """What tells every layer's attention which rows the tokens belong to and where their past is.

    Shapes and meanings are those of `StepBatch`; `max_context_len` is the longest row's length after it.
    """

    past_lens: ov.Node
    subsequence_begins: ov.Node
    block_indices: ov.Node
    block_indices_begins: ov.Node
    max_context_len: ov.Node

    @classmethod
    def create(cls) -> Self:
        """New inputs, named as the fields."""
        return cls(
            *(
                parameter(name, [] if name == "max_context_len" else [-1], ov.Type.i32)
                for name in cls.__slots__
            )
        )

    @property
    def parameters(self) -> list[ov.Node]:
        """All of them, to be declared as inputs of the model."""
        return [getattr(self, name) for name in self.__slots__]


@dataclass(frozen=True, slots=True)
class KvCache:
    """One layer's KV memory. The plugin decides on element types and block shapes when it compiles."""

    key: ov.Node
    value: ov.Node

    @classmethod
    def create(cls, layer: int) -> Self:
        """New inputs `key_cache.<layer>` and `value_cache.<layer>`."""
        return cls(
            *(
                parameter(f"{name}_cache.{layer}", [-1, -1, -1, -1], ov.Type.dynamic)
                for name in ("key", "value")
            )
        )


def paged_attention(
    query: ov.Node,
    key: ov.Node,
    value: ov.Node,
    cache: KvCache,
    inputs: PagedInputs,
    *,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
    sliding_window: int,
) -> ov.Output:
    """Write keys and values to the cache and attend causally, each row to its own past and new tokens.

    query is [tokens, heads * head_dim], key and value are [tokens, kv heads * head_dim]; returns
    [tokens, heads * head_dim]. `scale` is multiplied to the scores before the softmax. A token attends to the
    last `sliding_window` tokens including itself, as in Hugging Face's models; 0 means to all.
    """
    features = [
        _f32(scale),
        _i32(sliding_window),
        _empty(np.float32),  # alibi_slopes
        inputs.max_context_len,
        _empty(np.int32),  # score_aggregation_window
        _empty(np.int32),  # rotated_block_indices
        _empty(np.int32),  # rotation_deltas
        _empty(np.float32),  # rotation_trig_lut
        _empty(np.float32),  # xattention_threshold
        _i32(0),  # xattention_block_size
        _i32(0),  # xattention_stride
        ops.constant(np.zeros((0, 0, 0, 0), np.float32)),  # sinks
        _i32(0),  # adaptive_rkv_start_size
        _empty(np.int32),  # adaptive_rkv_evictable_sizes
        _empty(np.int32),  # adaptive_rkv_diversity_block_set_indices
        _empty(np.int32),  # adaptive_rkv_diversity_block_set_indices_begins
        _empty(np.int32),  # token_type_ids
        _empty(np.uint8),  # qq_bias
        _empty(np.int32),  # qq_bias_begins
    ]
    nodes = [
        query,
        key,
        value,
        cache.key,
        cache.value,
        inputs.past_lens,
        inputs.subsequence_begins,
        inputs.block_indices,
        inputs.block_indices_begins,
        *features,
    ]
    attention = _PagedAttentionExtension([node.output(0) for node in nodes])
    info = attention.get_rt_info()
    for name in ("num_k_heads", "num_v_heads"):
        info[name] = num_kv_heads
    for name in ("k_head_size", "v_head_size"):
        info[name] = head_dim
    return attention.output(0)  # the others are scores nobody asked for


def _f32(value: float) -> ov.Node:
    return ops.constant(np.float32(value))


def _i32(value: int) -> ov.Node:
    return ops.constant(np.int32(value))


def _empty(type_: type[np.generic]) -> ov.Node:
    return ops.constant(np.zeros(0, type_))
