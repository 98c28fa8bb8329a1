"""What can be chosen about a decoder on the CPU. Imports no OpenVINO, so every process may read it."""

from dataclasses import dataclass
from enum import StrEnum

from carpool.errors import StartError


class WeightFormat(StrEnum):
    """How the weight matrices of a decoder are held in memory."""

    AUTO = "auto"
    """int4 for a file whose matrices are 4-bit already, int8 for one with other quantised matrices. For the
    rest bf16 where the CPU computes in it natively, elsewhere f32."""
    F32 = "f32"
    """Computed in f32, too. Other formats are computed in bf16 where the CPU has it, but for KV memory in f16
    or f32."""
    BF16 = "bf16"
    INT8 = "int8"
    """Eight bits with one scale per output feature. Where the CPU computes in bf16, what the matrices are
    multiplied with is rounded to eight bits too, with one scale per token or group of 64 features."""
    MIXED = "mixed"
    """The feed-forward layers' matrices, most of a model, as INT8, the others as BF16: with AMX the plugin
    gains from eight bits only in its kernel for feed-forward layers. And, for Llama and its relatives on AMX,
    in the output layer, whose weights and activations are both rounded to eight bits then."""
    INT4 = "int4"
    """Four bits in groups of 32. ggml's 4-bit matrices are held as stored, its 8-bit ones as above."""


class KvCachePrecision(StrEnum):
    """How keys and values are held in KV memory."""

    AUTO = "auto"
    """bf16 where the model is computed in bf16, elsewhere f16."""
    U8 = "u8"
    """The smallest. The keys of a block share their scales."""
    BF16 = "bf16"
    """Only where the model itself is computed in bf16."""
    F16 = "f16"
    F32 = "f32"
    """With f16 or f32, the model is computed in f32 on any CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """The settings of one decoder. Raises `StartError` for a value out of range."""

    weights: WeightFormat = WeightFormat.AUTO
    kv_cache_precision: KvCachePrecision = KvCachePrecision.AUTO
    kv_cache_bytes: int = 1 << 30
    """Size of the KV memory."""

    def __post_init__(self) -> None:
        if self.kv_cache_bytes < 1:
            raise StartError(f"kv_cache_bytes must be at least 1, not {self.kv_cache_bytes}")
