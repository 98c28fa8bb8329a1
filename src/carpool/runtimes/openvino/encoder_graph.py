"""An encoder's whole graph, from whatever its directory holds: a checkpoint, or a graph that is as it is.

A checkpoint's inputs are those of `packed_batch`, a graph's those of `padded_batch`; both have
`token_type_ids` where the model tells two texts apart. The output is `embeddings`, f32 [texts, hidden_size],
or `logits`, f32 [texts, labels].
"""

import openvino as ov

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint
from carpool.models.graph_directory import GraphDirectory
from carpool.runtimes.openvino.bert import Bert
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.device import Precision
from carpool.runtimes.openvino.graph_file import read_graph
from carpool.runtimes.openvino.pooling import named_result, normalized, pool
from carpool.runtimes.openvino.xlm_roberta import XlmRoberta
from carpool.runtimes.pooling import Pooling, PoolingMode

_ENCODERS: dict[str, type[Bert]] = {
    "BertModel": Bert,
    "BertForMaskedLM": Bert,
    "BertForPreTraining": Bert,
    "XLMRobertaModel": XlmRoberta,
    "XLMRobertaForMaskedLM": XlmRoberta,
    "RobertaModel": XlmRoberta,
    "RobertaForMaskedLM": XlmRoberta,
}
"""Heads are left out."""

_CLASSIFIERS: dict[str, type[Bert]] = {
    "BertForSequenceClassification": Bert,
    "XLMRobertaForSequenceClassification": XlmRoberta,
    "RobertaForSequenceClassification": XlmRoberta,
}


def build_embedding_graph(
    checkpoint: Checkpoint, pooling: Pooling, weights: WeightFormat, precision: Precision
) -> ov.Model:
    """Encoder and pooling, to be computed in `precision`. Raises `ModelFailed` for what cannot be built."""
    if isinstance(checkpoint, GraphDirectory):
        return _read(checkpoint, weights, pooling)
    layers = _layers(checkpoint, _ENCODERS, weights, precision, token_types=False)
    if pooling.mode is PoolingMode.CLS:
        vectors = normalized(layers.first()) if pooling.normalize else layers.first()
    else:
        vectors = pool(*layers.hidden(), pooling)
    return ov.Model([named_result(vectors, "embeddings")], layers.inputs, "encoder")


def build_classifier_graph(checkpoint: Checkpoint, weights: WeightFormat, precision: Precision) -> ov.Model:
    """Encoder and classification head. Otherwise as `build_embedding_graph`."""
    if isinstance(checkpoint, GraphDirectory):
        return _read(checkpoint, weights, None)
    has_types = int(checkpoint.config.get("type_vocab_size", 1)) > 1
    layers = _layers(checkpoint, _CLASSIFIERS, weights, precision, token_types=has_types)
    return ov.Model([named_result(layers.logits(), "logits")], layers.inputs, "classifier")


def _layers(
    checkpoint: Checkpoint,
    known: dict[str, type[Bert]],
    weights: WeightFormat,
    precision: Precision,
    *,
    token_types: bool,
) -> Bert:
    kind = known.get(checkpoint.architecture)
    if kind is None:
        raise ModelFailed(
            f"{checkpoint.architecture} cannot be built as an encoder from safetensors; {', '.join(known)} "
            "can, and others as ONNX or OpenVINO files"
        )
    return kind(checkpoint, weights, precision, token_types=token_types)


def _read(directory: GraphDirectory, weights: WeightFormat, pooling: Pooling | None) -> ov.Model:
    """The graph of a file, with `pooling` where it gives hidden states."""
    if weights is not WeightFormat.AUTO:
        raise ModelFailed(f"weights: {weights} is for safetensors checkpoints; {directory.graph} is as it is")
    return read_graph(directory.graph, pooling)
