"""Statistics by the graph: those of the plain definition, and the same bits whatever else is there."""

import numpy as np
import pytest

from carpool.runtimes.openvino.strand_statistics import GraphStatistics
from carpool.runtimes.selection import strand_statistics, whole_strands


@pytest.mark.parametrize("vocab_size", [7, 1000, 49_152, 50_257])
def test_a_row_has_the_same_statistics_in_any_company(vocab_size: int) -> None:
    statistics = GraphStatistics(vocab_size, num_threads=2)
    random = np.random.default_rng(vocab_size)
    logits = random.normal(0, 4, (9, vocab_size)).astype(np.float32)
    logits[4, ::3] = -np.inf
    logits = whole_strands(logits)
    factors = np.linspace(0.5, 4, 9).astype(np.float32)
    together = [each.copy() for each in statistics(logits, factors)]
    maxima, sums = strand_statistics(logits, factors)
    np.testing.assert_array_equal(together[0], maxima)
    np.testing.assert_allclose(together[1], sums, rtol=1e-4, atol=1e-9)
    for count in (1, 2, 3, 5):
        for begin in range(10 - count):
            rows = slice(begin, begin + count)
            for few, all_ in zip(statistics(logits[rows], factors[rows]), together, strict=True):
                assert few.tobytes() == all_[rows].tobytes()
