"""ONNX and OpenVINO files as encoder graphs, with the inputs and the one output that the runtime knows."""

from pathlib import Path

import openvino as ov
from openvino import opset15 as ops
from openvino.preprocess import PrePostProcessor

from carpool.errors import ModelFailed
from carpool.runtimes.openvino.device import core
from carpool.runtimes.openvino.pooling import named_result, normalized, pool
from carpool.runtimes.pooling import Pooling

_REQUIRED = frozenset({"input_ids", "attention_mask"})
_INPUTS = _REQUIRED | {"token_type_ids"}
_POOLED = ("sentence_embedding", "embeddings")
_HIDDEN = ("last_hidden_state", "token_embeddings")


def read_graph(path: Path, pooling: Pooling | None) -> ov.Model:
    """The graph of a file. `pooling` is that of an embedding model; None asks for a classifier's `logits`.

    Inputs are found by their names. An embedding graph may have the pooling in it, which is told by the
    output's name or rank; normalisation is added all the same. Raises `ModelFailed` for a file that cannot be
    read, and for other inputs or outputs.
    """
    try:
        model = core().read_model(path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelFailed(f"OpenVINO cannot read {path}: {reason}") from error
    model = _with_integer_inputs(model, path)
    if pooling is None:
        result = named_result(_classified(model, path), "logits")
    else:
        result = named_result(_embedded(model, path, pooling), "embeddings")
    return ov.Model([result], model.get_parameters(), path.stem)


def _with_integer_inputs(model: ov.Model, path: Path) -> ov.Model:
    """The graph with inputs of i32 [batch, tokens], whatever integers and sizes it was made for."""
    names = {}
    for node in model.inputs:
        known = _INPUTS & node.get_names()
        if not known:
            name = ", ".join(sorted(node.get_names())) or "without a name"
            raise ModelFailed(f"{path} has the input {name}; known are {', '.join(sorted(_INPUTS))}")
        names[min(known)] = node
    if missing := _REQUIRED - names.keys():
        raise ModelFailed(f"{path} has no input {', '.join(sorted(missing))}")
    try:
        model.reshape(dict.fromkeys(names, ov.PartialShape([-1, -1])))
        process = PrePostProcessor(model)
        for name in names:
            process.input(name).tensor().set_element_type(ov.Type.i32)
        model = process.build()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelFailed(f"{path} cannot take batches of any size: {reason}") from error
    for name in names:
        model.input(name).set_names({name})
    return model


def _embedded(model: ov.Model, path: Path, pooling: Pooling) -> ov.Node:
    if (pooled := _output(model, _POOLED, rank=2)) is not None:
        return normalized(pooled) if pooling.normalize else pooled
    if (hidden := _output(model, _HIDDEN, rank=3)) is not None:
        mask = model.input("attention_mask").get_node()
        return pool(hidden, ops.not_equal(mask, ops.constant(0, ov.Type.i32)), pooling)
    raise ModelFailed(f"{path} has neither hidden states nor vectors among its outputs")


def _classified(model: ov.Model, path: Path) -> ov.Node:
    if (logits := _output(model, ("logits",), rank=2)) is None:
        raise ModelFailed(f"{path} has no logits among its outputs")
    return logits


def _output(model: ov.Model, names: tuple[str, ...], rank: int) -> ov.Output | None:
    """What flows into the output of one of these names, else into the only output if it has this rank."""
    of_rank = [output for output in model.outputs if len(output.get_partial_shape()) == rank]
    for name in names:
        for output in of_rank:
            if name in output.get_names():
                return output.get_node().input_value(0)
    if len(model.outputs) == len(of_rank) == 1:
        return of_rank[0].get_node().input_value(0)
    return None
