"""Every supported architecture, from its directory to vectors and scores, against stored ones of PyTorch."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset15 as ops

from carpool.encoders import (
    Activation,
    CrossEncoderConfig,
    Embedder,
    EncoderConfig,
    Reranker,
    SentenceTransformersConfig,
)
from carpool.errors import ModelFailed
from carpool.models.open import open_checkpoint
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.encoder import TokenPair
from carpool.runtimes.openvino import batch_graph, bert
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.encoder import OpenVinoClassifier, OpenVinoEncoder
from carpool.runtimes.openvino.encoder_graph import build_classifier_graph, build_embedding_graph
from carpool.runtimes.openvino.row_cost import BY_TOKEN, IN_BLOCKS
from carpool.runtimes.pooling import Pooling
from tests.unit.encoders.tiny_checkpoints import (
    BY_NAME,
    DOCUMENTS,
    EMBEDDING,
    LONG_QUERY,
    QUERY,
    RERANK,
    TEXTS,
    Tiny,
)

FIXTURES = Path(__file__).parent / "fixtures"
REFERENCES: dict[str, Any] = json.loads((FIXTURES / "tiny.json").read_text())


@pytest.fixture(params=[False, True], ids=["by-token", "in-blocks"])
def _as_on_each_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and attention as on a CPU with AMX and as on another, whatever this one has."""
    has_blocks: bool = request.param
    monkeypatch.setattr(batch_graph, "row_cost", lambda _: IN_BLOCKS if has_blocks else BY_TOKEN)
    monkeypatch.setattr(bert, "_holds_scores", lambda *_: has_blocks)


def names(tinies: list[Tiny]) -> list[str]:
    return [tiny.name for tiny in tinies]


def embedder(directory: Path, weights: WeightFormat = WeightFormat.AUTO) -> Embedder:
    checkpoint = open_checkpoint(directory)
    extra = SentenceTransformersConfig.read(directory)
    runtime = OpenVinoEncoder(
        checkpoint,
        extra.pooling,
        num_threads=1,
        max_tokens=extra.max_tokens,
        precision="f32",
        weights=weights,
    )
    return Embedder(runtime, Tokenizer.from_checkpoint(checkpoint), EncoderConfig(), name="tiny", extra=extra)


def reranker(directory: Path) -> Reranker:
    checkpoint = open_checkpoint(directory)
    extra = CrossEncoderConfig.read(checkpoint)
    runtime = OpenVinoClassifier(checkpoint, num_threads=1, max_tokens=extra.max_tokens, precision="f32")
    return Reranker(
        runtime,
        Tokenizer.from_checkpoint(checkpoint),
        EncoderConfig(),
        name="tiny",
        activation=extra.activation,
    )


async def assert_same_vectors(directory: Path, name: str) -> None:
    async with embedder(directory) as model:
        embeddings = await model.embed(TEXTS, truncate=True)
    assert embeddings.token_counts == REFERENCES[name]["tokens"]
    assert embeddings.vectors == pytest.approx(np.array(REFERENCES[name]["vectors"]), abs=2e-5)


async def assert_same_logits(directory: Path, name: str) -> None:
    async with reranker(directory) as model:
        for key, query in (("", QUERY), ("long_", LONG_QUERY)):
            answer = await model.score(query, DOCUMENTS, truncate=True, raw=True)
            assert answer.num_tokens == sum(REFERENCES[name][f"{key}tokens"])
            assert answer.scores == pytest.approx(np.array(REFERENCES[name][f"{key}logits"]), abs=2e-5)


@pytest.mark.usefixtures("_as_on_each_cpu")
@pytest.mark.parametrize("tiny", EMBEDDING, ids=names(EMBEDDING))
async def test_vectors_are_those_of_pytorch(tmp_path: Path, tiny: Tiny) -> None:
    await assert_same_vectors(tiny.write(tmp_path), tiny.name)


@pytest.mark.usefixtures("_as_on_each_cpu")
@pytest.mark.parametrize("tiny", RERANK, ids=names(RERANK))
async def test_logits_are_those_of_pytorch(tmp_path: Path, tiny: Tiny) -> None:
    await assert_same_logits(tiny.write(tmp_path), tiny.name)


async def test_scores_go_through_the_activation_that_the_directory_names(tmp_path: Path) -> None:
    async with reranker(BY_NAME["bert-cross"].write(tmp_path / "a")) as model:
        assert (await model.score(QUERY, DOCUMENTS, truncate=True)).scores == pytest.approx(
            np.array(REFERENCES["bert-cross"]["logits"]), abs=2e-5
        )
    async with reranker(BY_NAME["xlm-roberta-cross"].write(tmp_path / "b")) as model:
        assert (await model.score(QUERY, DOCUMENTS, truncate=True)).scores == pytest.approx(
            1 / (1 + np.exp(-np.array(REFERENCES["xlm-roberta-cross"]["logits"]))), abs=2e-5
        )


async def test_an_embedding_model_scores_with_its_own_prompts(tmp_path: Path) -> None:
    async with embedder(BY_NAME["xlm-roberta-mean"].write(tmp_path)) as model:
        answer = await model.score("where", ["the ferry", "quay"])
        plain = await model.embed(["where"])  # the default prompt is the query's
    async with embedder(tmp_path) as model:
        extra = SentenceTransformersConfig.read(tmp_path)
        assert (extra.query_prompt, extra.document_prompt) == ("query: ", "passage: ")
        ids = Tokenizer.from_checkpoint(open_checkpoint(tmp_path)).encode_batch(
            ["passage: the ferry", "passage: quay"]
        )
        documents = await model.embed(ids)
    assert answer.scores == pytest.approx(documents.vectors @ plain.vectors[0], abs=1e-5)
    assert answer.num_tokens == sum(plain.token_counts) + sum(documents.token_counts)


def with_graph(tiny: Tiny, directory: Path) -> Path:
    """The directory without its safetensors file, which a graph is to take the place of."""
    tiny.write(directory)
    (directory / "model.safetensors").unlink()
    return directory


@pytest.mark.usefixtures("_as_on_each_cpu")
@pytest.mark.parametrize("place", ["model.onnx", "onnx/model.onnx", "onnx/other.onnx"])
async def test_an_onnx_file_with_hidden_states_is_pooled_here(tmp_path: Path, place: str) -> None:
    directory = with_graph(BY_NAME["bert-mean"], tmp_path)
    (directory / place).parent.mkdir(exist_ok=True)
    (directory / place).write_bytes((FIXTURES / "tiny-bert.onnx").read_bytes())
    await assert_same_vectors(directory, "bert-mean")


def padded(packed: ov.Model) -> ov.Model:
    """The graph with a row for each text and a mask, as converters make them."""
    inputs = {node.get_any_name(): node.get_node() for node in packed.inputs}
    mask = ops.parameter([-1, -1], ov.Type.i32, name="attention_mask")
    num_texts, width = (ops.gather(ops.shape_of(mask, "i32"), axis, 0) for axis in (0, 1))
    counts = ops.range(0, width, 1, "i32")
    places = {
        "position_ids": ops.broadcast(counts, ops.shape_of(mask)),
        "text_ids": mask,
        "seeing_ids": ops.slice(mask, [0], [1], [1], [1]),
        "firsts": ops.multiply(ops.range(0, num_texts, 1, "i32"), width),
        "lengths": ops.reduce_sum(mask, 1),
    }
    for name, node in places.items():
        inputs.pop(name).output(0).replace(node.output(0))
    mask.output(0).set_names({"attention_mask"})  # the replaced one's went over to it
    return ov.Model(packed.get_results(), [*inputs.values(), mask], "padded")


@pytest.mark.parametrize("pooled", [Pooling(), Pooling(normalize=True)], ids=["plain", "normalized"])
async def test_an_openvino_directory_with_vectors_is_taken_as_it_is(tmp_path: Path, pooled: Pooling) -> None:
    tiny = BY_NAME["bert-mean"]
    graph = build_embedding_graph(
        open_checkpoint(tiny.write(tmp_path / "from")), pooled, WeightFormat.AUTO, "f32"
    )
    directory = with_graph(tiny, tmp_path / "to")
    ov.save_model(padded(graph), directory / "openvino_model.xml", compress_to_fp16=False)
    await assert_same_vectors(directory, tiny.name)


@pytest.mark.parametrize("name", names(RERANK))
async def test_an_openvino_directory_with_a_classifier(tmp_path: Path, name: str) -> None:
    tiny = BY_NAME[name]
    graph = build_classifier_graph(open_checkpoint(tiny.write(tmp_path / "from")), WeightFormat.AUTO, "f32")
    directory = with_graph(tiny, tmp_path / "to")
    (directory / "openvino").mkdir()
    ov.save_model(padded(graph), directory / "openvino" / "openvino_model.xml", compress_to_fp16=False)
    await assert_same_logits(directory, name)


async def test_int8_weights_are_near(tmp_path: Path) -> None:
    tiny = BY_NAME["bert-mean"]
    async with embedder(tiny.write(tmp_path), WeightFormat.INT8) as model:
        vectors = (await model.embed(TEXTS, truncate=True)).vectors
    cosines = (vectors * np.array(REFERENCES[tiny.name]["vectors"])).sum(axis=1)
    assert 0.99 < cosines.min() < 0.9999999


@pytest.mark.parametrize("name", names(RERANK))
def test_int8_logits_are_near_whichever_threads_compute_them(tmp_path: Path, name: str) -> None:
    checkpoint = open_checkpoint(BY_NAME[name].write(tmp_path))
    pairs = [TokenPair([2, 7 + index, 9, 3, 11, 5, 3], 4) for index in range(8)]
    exact = OpenVinoClassifier(checkpoint, num_threads=1, precision="f32").classify(pairs)
    runtime = OpenVinoClassifier(checkpoint, num_threads=3, weights=WeightFormat.INT8)
    assert runtime.concurrency == 3
    with ThreadPoolExecutor(runtime.concurrency) as pool:
        for logits in pool.map(runtime.classify, [pairs] * 30):
            # A missing scale makes it twenty times as much.
            assert np.abs(logits - exact).max() < np.abs(exact).max()


def test_a_graph_that_is_there_has_the_weights_it_has(tmp_path: Path) -> None:
    directory = with_graph(BY_NAME["bert-mean"], tmp_path)
    (directory / "model.onnx").write_bytes((FIXTURES / "tiny-bert.onnx").read_bytes())
    with pytest.raises(ModelFailed, match="int8"):
        embedder(directory, WeightFormat.INT8)


def test_a_classifier_graph_without_logits_is_refused(tmp_path: Path) -> None:
    directory = with_graph(BY_NAME["bert-cross"], tmp_path)
    (directory / "model.onnx").write_bytes((FIXTURES / "tiny-bert.onnx").read_bytes())
    with pytest.raises(ModelFailed, match="no logits"):
        reranker(directory)


def test_several_graphs_and_none_of_the_usual_name_are_refused(tmp_path: Path) -> None:
    directory = with_graph(BY_NAME["bert-mean"], tmp_path)
    for name in ("model_quantized.onnx", "model_O4.onnx"):
        (directory / name).touch()
    with pytest.raises(ModelFailed, match=r"model_O4\.onnx, model_quantized\.onnx"):
        open_checkpoint(directory)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    directory = with_graph(BY_NAME["bert-mean"], tmp_path)
    (directory / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelFailed, match="cannot read"):
        embedder(directory)


@pytest.mark.parametrize(
    ("extra", "config"),
    [
        ({}, {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}),
        ({}, {"sbert_ce_default_activation_function": "my.own.function"}),
        ({"config_sentence_transformers.json": {"default_prompt_name": "web", "prompts": {"web": "w"}}}, {}),
        ({"sentence_bert_config.json": {"max_seq_length": 0}}, {}),
    ],
)
def test_a_cross_encoder_that_cannot_be_reproduced_is_refused(
    tmp_path: Path, extra: dict[str, Any], config: dict[str, Any]
) -> None:
    tiny = Tiny("odd", "BertForSequenceClassification", config, extra=extra)
    with pytest.raises(ModelFailed):
        CrossEncoderConfig.read(open_checkpoint(tiny.write(tmp_path)))


@pytest.mark.parametrize(
    ("extra", "config", "activation"),
    [
        ({}, {}, Activation.SIGMOID),
        ({}, {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "identity"),
        (
            {"config_sentence_transformers.json": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
            "identity",
        ),
    ],
)
def test_activations(
    tmp_path: Path, extra: dict[str, Any], config: dict[str, Any], activation: Activation
) -> None:
    tiny = Tiny("any", "BertForSequenceClassification", config, extra=extra)
    assert CrossEncoderConfig.read(open_checkpoint(tiny.write(tmp_path))) == CrossEncoderConfig(
        Activation(activation), max_tokens=40
    )


def test_the_sigmoid_overflows_nowhere() -> None:
    scores = Activation.SIGMOID.of(np.array([-1000, -1, 0, 1, 1000], np.float32))
    assert scores == pytest.approx(np.array([0, 0.26894142, 0.5, 0.73105858, 1]))
