"""The BERT graph against BERT written out in NumPy."""

import gc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from carpool.errors import ModelFailed
from carpool.models.checkpoint import TensorFormat
from carpool.models.open import open_checkpoint
from carpool.runtimes.encoder import EncoderRuntime
from carpool.runtimes.openvino.encoder import OpenVinoEncoder
from carpool.runtimes.pooling import Pooling, PoolingMode
from tests.unit.encoders.tiny_checkpoints import BY_NAME
from tests.unit.runtimes.tiny_bert import TinyBert

MEAN = Pooling(PoolingMode.MEAN)
BATCH: Sequence[Sequence[int]] = [[3], [4, 5, 6], list(range(24)), [49, 0, 0, 7], [1] * 17]
"""Id 0 is a token like any other: padding is told by the mask."""


def encoder(checkpoint: TinyBert, pooling: Pooling = MEAN, max_tokens: int | None = None) -> OpenVinoEncoder:
    return OpenVinoEncoder(checkpoint, pooling, num_threads=1, max_tokens=max_tokens, precision="f32")


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("mode", list(PoolingMode))
def test_every_pooling_matches_its_definition(mode: PoolingMode, normalize: bool) -> None:
    checkpoint, pooling = TinyBert(), Pooling(mode, normalize)
    vectors = encoder(checkpoint, pooling).encode(BATCH)
    assert vectors.dtype == np.float32
    assert vectors == pytest.approx(np.array([checkpoint.vector(ids, pooling) for ids in BATCH]), abs=2e-5)


@pytest.mark.parametrize("stored", [TensorFormat.F32, TensorFormat.F16, TensorFormat.BF16])
@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
def test_stored_formats_and_activations(stored: TensorFormat, activation: str) -> None:
    checkpoint = TinyBert(stored=stored, hidden_act=activation)
    expected = [checkpoint.vector(ids, MEAN) for ids in BATCH]
    assert encoder(checkpoint).encode(BATCH) == pytest.approx(np.array(expected), abs=2e-5)


def test_the_encoder_of_a_checkpoint_with_a_head() -> None:
    checkpoint = TinyBert("BertForMaskedLM", prefix="bert.")
    expected = [checkpoint.vector(ids, MEAN) for ids in BATCH]
    assert encoder(checkpoint).encode(BATCH) == pytest.approx(np.array(expected), abs=2e-5)


def test_a_sequence_has_the_same_vector_alone_and_in_any_company() -> None:
    runtime = encoder(TinyBert())
    together = runtime.encode(BATCH)
    alone = np.concatenate([runtime.encode([ids]) for ids in BATCH])
    backwards = runtime.encode(BATCH[::-1])[::-1]
    assert alone == pytest.approx(together, abs=1e-5)
    assert backwards == pytest.approx(together, abs=1e-5)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_padding_ids_within_a_text_stay_its_own_in_xlm_roberta(tmp_path: Path, num_threads: int) -> None:
    checkpoint = open_checkpoint(BY_NAME["xlm-roberta-mean"].write(tmp_path))
    padding = checkpoint.config["pad_token_id"]
    runtime = OpenVinoEncoder(checkpoint, MEAN, num_threads=num_threads, precision="f32")
    batch = [[5, 6, 7], [8, padding, 9, 10], [padding, 5], [padding], [11, 12, padding]] * 30
    alone = np.concatenate([runtime.encode([ids]) for ids in batch[:5]] * 30)
    assert runtime.encode(batch) == pytest.approx(alone, abs=1e-5)


def test_a_result_is_not_changed_by_the_next_batch() -> None:
    runtime = encoder(TinyBert())
    first = runtime.encode([[3, 4]])
    kept = first.copy()
    runtime.encode([[5, 6]])
    assert np.array_equal(first, kept)


def test_batches_of_several_threads_at_a_time_get_their_own_results() -> None:
    checkpoint = TinyBert()
    runtime = OpenVinoEncoder(checkpoint, MEAN, num_threads=3, precision="f32")
    assert runtime.concurrency == 3
    batches = [
        [[1 + (start + i) % 40] * (1 + (start + i) % 7) for i in range(1 + start % 4)] for start in range(60)
    ]
    with ThreadPoolExecutor(8) as pool:  # more than it computes at a time, and single texts among them
        found = list(pool.map(runtime.encode, batches))
    for batch, vectors in zip(batches, found, strict=True):
        assert vectors == pytest.approx(np.array([checkpoint.vector(ids, MEAN) for ids in batch]), abs=2e-5)
    assert runtime.computed_tokens >= sum(len(ids) for batch in batches for ids in batch)


def test_a_large_model_is_held_once_and_takes_one_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carpool.runtimes.openvino.batch_graph._MOST_BYTES_TWICE", 0)
    checkpoint = TinyBert()
    runtime = OpenVinoEncoder(checkpoint, MEAN, num_threads=2, precision="f32")
    assert runtime.concurrency == 1
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(runtime.encode, [BATCH] * 4))
    for vectors in found:
        assert vectors == pytest.approx(np.array([checkpoint.vector(ids, MEAN) for ids in BATCH]), abs=2e-5)


def test_it_outlives_the_checkpoint() -> None:
    checkpoint = TinyBert()
    expected = np.array([checkpoint.vector(ids, MEAN) for ids in BATCH])
    runtime = encoder(checkpoint)
    del checkpoint
    gc.collect()
    assert runtime.encode(BATCH) == pytest.approx(expected, abs=2e-5)


def test_sizes() -> None:
    runtime: EncoderRuntime = encoder(TinyBert())
    assert (runtime.spec.dimensions, runtime.spec.max_tokens) == (32, 24)
    assert encoder(TinyBert(), max_tokens=10).spec.max_tokens == 10
    assert encoder(TinyBert(), max_tokens=512).spec.max_tokens == 24


@pytest.mark.parametrize(
    "checkpoint",
    [
        TinyBert("LlamaForCausalLM"),
        TinyBert(position_embedding_type="relative_key"),
        TinyBert(hidden_act="mish"),
        TinyBert(prefix="other."),
    ],
    ids=["architecture", "positions", "activation", "tensors"],
)
def test_what_cannot_be_built_is_refused(checkpoint: TinyBert) -> None:
    with pytest.raises(ModelFailed):
        encoder(checkpoint)
