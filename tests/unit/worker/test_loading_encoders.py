"""Directories of encoders, loaded as a worker loads them: which kind each is, and what it answers."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from carpool.errors import CarpoolError, ContextLengthExceeded, ModelFailed
from carpool.inference_engine import DeviceGate
from carpool.runtimes.openvino.device import default_precision
from carpool.telemetry import Registry
from carpool.worker.config import WorkerConfig
from carpool.worker.host import Surroundings
from carpool.worker.hosted import EmbeddingModel, HostedModel, ScoringModel
from carpool.worker.loading import FileLoader
from carpool.worker.protocol import Embed, Knobs, Load, Score
from tests.unit.encoders.tiny_checkpoints import BY_NAME, DOCUMENTS, QUERY, Tiny

FIXTURES = Path(__file__).parent.parent / "encoders/fixtures"
REFERENCES: dict[str, Any] = json.loads((FIXTURES / "tiny.json").read_text())

LoadTiny = Callable[..., Awaitable[HostedModel]]


@pytest_asyncio.fixture
async def load(tmp_path: Path) -> AsyncIterator[LoadTiny]:
    loaded: list[HostedModel] = []
    gate = DeviceGate()

    async def load(tiny: Tiny, graph: bytes | None = None, **options: Any) -> HostedModel:
        directory = tiny.write(tmp_path / tiny.name)
        if graph is not None:
            (directory / "model.safetensors").unlink()
            (directory / "model.onnx").write_bytes(graph)
        surroundings = Surroundings(
            WorkerConfig(num_threads=1), gate, Registry(), lambda _: None, lambda _: None
        )
        model = await FileLoader().load(Load(1, tiny.name, str(directory), options), surroundings)
        loaded.append(model)
        return model

    yield load
    for model in loaded:
        await model.close()


def floats(data: memoryview) -> "np.ndarray[Any, np.dtype[np.float32]]":
    return np.frombuffer(data, "<f4")


@pytest.mark.parametrize("name", ["bert-cross", "xlm-roberta-cross"])
async def test_a_classifier_with_one_label_is_a_reranker(load: LoadTiny, name: str) -> None:
    model = await load(BY_NAME[name], precision="f32")
    assert (model.description.task, model.description.context_length) == ("rerank", 40)
    assert model.description.dimensions is None
    model.tune(Knobs(batch_wait_ms=2.0))
    assert model.knobs == Knobs(64, 2.0, 1.0)
    assert isinstance(model, ScoringModel)
    assert not isinstance(model, EmbeddingModel)
    raw = await model.score(Score(5, name, QUERY, DOCUMENTS, truncate=True, raw=True))
    scores = await model.score(Score(6, name, QUERY, DOCUMENTS, truncate=True))
    logits = np.array(REFERENCES[name]["logits"])
    assert floats(raw.data) == pytest.approx(logits, abs=2e-5)
    expected = logits if model.description.details["activation"] == "identity" else 1 / (1 + np.exp(-logits))
    assert floats(scores.data) == pytest.approx(expected, abs=2e-5)
    assert (raw.id, raw.tokens) == (5, sum(REFERENCES[name]["tokens"]))
    assert model.steps >= 2
    with pytest.raises(ContextLengthExceeded) as caught:
        await model.score(Score(7, name, QUERY, DOCUMENTS))
    assert caught.value.param == f"documents[{DOCUMENTS.index('the ticket ' * 30)}]"


async def test_an_embedding_model_embeds_and_scores(load: LoadTiny) -> None:
    model = await load(BY_NAME["xlm-roberta-mean"], precision="f32")
    assert (model.description.task, model.description.dimensions) == ("embed", 16)
    assert model.description.context_length == 20  # the directory's max_seq_length
    assert isinstance(model, ScoringModel)
    assert isinstance(model, EmbeddingModel)
    vectors = await model.embed(Embed(1, "m", ["a", "the ferry leaves the quay"]))
    reference = np.array(REFERENCES["xlm-roberta-mean"]["vectors"][:2])
    assert floats(vectors.data).reshape(2, 16) == pytest.approx(reference, abs=2e-5)
    answer = await model.score(Score(2, "m", "where", ["the ferry"], raw=True))
    assert len(floats(answer.data)) == 1
    assert abs(floats(answer.data)[0]) <= 1 + 1e-6


async def test_an_onnx_directory_embeds(load: LoadTiny) -> None:
    graph = (FIXTURES / "tiny-bert.onnx").read_bytes()
    model = await load(BY_NAME["bert-mean"], graph=graph, precision="f32")
    assert isinstance(model, EmbeddingModel)
    vectors = await model.embed(Embed(1, "m", ["a"]))
    assert floats(vectors.data) == pytest.approx(np.array(REFERENCES["bert-mean"]["vectors"][0]), abs=2e-5)


async def test_int8_weights_are_an_option(load: LoadTiny) -> None:
    model = await load(BY_NAME["xlm-roberta-cross"], precision="f32", weights="int8")
    assert model.description.details["weights"] == "int8"
    assert isinstance(model, ScoringModel)
    answer = await model.score(Score(1, "m", QUERY, DOCUMENTS, truncate=True, raw=True))
    logits = np.array(REFERENCES["xlm-roberta-cross"]["logits"])
    difference = np.abs(floats(answer.data) - logits).max()
    assert 1e-5 < difference < 0.1


@pytest.mark.skipif(default_precision() == "bf16", reason="this CPU computes in bf16")
@pytest.mark.parametrize("name", ["bert-mean", "bert-cross"])
async def test_bf16_is_refused_where_the_cpu_has_it_not(load: LoadTiny, name: str) -> None:
    with pytest.raises(ModelFailed, match="bf16 needs a CPU with AMX or AVX512-BF16"):
        await load(BY_NAME[name], precision="bf16")


@pytest.mark.parametrize(
    ("tiny", "message"),
    [
        (Tiny("d", "DistilBertModel"), "DistilBertModel cannot be built .* BertModel, .*XLMRobertaModel"),
        (Tiny("m", "MPNetModel"), "others as ONNX or OpenVINO files"),
        (Tiny("e", "ElectraForSequenceClassification"), "BertForSequenceClassification, XLMRobertaFor"),
        (Tiny("g", "GPT2Model"), "GPT2Model cannot be built"),
    ],
)
async def test_other_architectures_are_refused_with_those_there_are(
    load: LoadTiny, tiny: Tiny, message: str
) -> None:
    with pytest.raises(ModelFailed, match=message):
        await load(tiny)


@pytest.mark.parametrize("options", [{"weights": "int3"}, {"weight_format": "int8"}, {"precision": "f64"}])
async def test_options_that_there_are_not_are_refused(load: LoadTiny, options: dict[str, str]) -> None:
    with pytest.raises(CarpoolError):
        await load(BY_NAME["bert-mean"], **options)
