"""How much memory a model takes once it is loaded, told from the headers of its files."""

from carpool.models.checkpoint import Checkpoint
from carpool.runtimes.openvino.config import DecoderConfig, WeightFormat
from carpool.runtimes.openvino.decoder import weight_format
from carpool.runtimes.openvino.device import Precision, default_precision

_BITS = {
    WeightFormat.F32: 32,
    WeightFormat.BF16: 16,
    WeightFormat.INT8: 8,
    WeightFormat.MIXED: 16,  # at most, but for models that are embeddings for the most part
    WeightFormat.INT4: 5,  # four, and for each group of 32 a scale and a zero point in f16
}


def decoder_bytes(checkpoint: Checkpoint, config: DecoderConfig) -> int:
    """Weights in the form they are held in, and all of the KV memory. Raises `ModelFailed`."""
    return _weight_bytes(checkpoint, weight_format(checkpoint, config)) + config.kv_cache_bytes


def encoder_bytes(checkpoint: Checkpoint, precision: Precision | None, weights: WeightFormat) -> int:
    """Weights in the form they are held in."""
    if weights is WeightFormat.AUTO:
        weights = WeightFormat(precision or default_precision())
    return _weight_bytes(checkpoint, weights)


def _weight_bytes(checkpoint: Checkpoint, weights: WeightFormat) -> int:
    size = checkpoint.size
    return size.num_elements * _BITS[weights] // 8 or size.num_bytes
