"""Batches cut into a part for each thread."""

import numpy as np
import pytest

from carpool.runtimes.openvino.encoder import OpenVinoEncoder
from carpool.runtimes.pooling import Pooling, PoolingMode
from tests.unit.runtimes.tiny_bert import TinyBert


def test_a_large_batch_of_mixed_lengths_is_cut_and_gives_everyone_their_own_vector() -> None:
    checkpoint = TinyBert()
    runtime = OpenVinoEncoder(
        checkpoint, Pooling(PoolingMode.MEAN), num_threads=2, max_tokens=None, precision="f32"
    )
    lengths = [1 + index * 7 % 24 for index in range(40)]
    batch = [[index % 50, *([3] * (length - 1))] for index, length in enumerate(lengths)]
    before = runtime.computed_tokens
    vectors = runtime.encode(batch)
    computed = runtime.computed_tokens - before
    assert not runtime.pads
    assert sum(lengths) <= computed < 1.1 * sum(lengths)
    alone = np.concatenate([runtime.encode([ids]) for ids in batch])
    assert vectors == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("mode", list(PoolingMode))
def test_a_text_without_numbers_takes_no_neighbour_with_it(mode: PoolingMode, normalize: bool) -> None:
    checkpoint = TinyBert()
    words = checkpoint.tensor("embeddings.word_embeddings.weight").data.view(np.float32).reshape(50, -1)
    words[7] = np.nan
    runtime = OpenVinoEncoder(checkpoint, Pooling(mode, normalize), num_threads=1, precision="f32")
    batch = [[3, 4], [5, 7, 6], [8]]
    vectors = runtime.encode(batch)
    assert np.isnan(vectors[1]).all()
    for index in (0, 2):
        assert vectors[index] == pytest.approx(runtime.encode([batch[index]])[0], abs=1e-5)
        assert np.isfinite(vectors[index]).all()
