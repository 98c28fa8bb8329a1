"""Statistics by the graph: those of the plain definition, and the same bits whatever else is there."""

import numpy as np
import openvino as ov
import pytest

from carpool.runtimes.half import Logits
from carpool.runtimes.openvino.strand_statistics import GraphStatistics
from carpool.runtimes.selection import STRAND, strand_statistics, whole_strands
from tests.unit.runtimes.halves import halved

HALF, WHOLE = ov.Type.bf16, ov.Type.f32


@pytest.mark.parametrize("element_type", [HALF, WHOLE], ids=["bf16", "f32"])
@pytest.mark.parametrize("vocab_size", [7, 1000, 49_152, 50_257])
def test_a_row_has_the_same_statistics_in_any_company(vocab_size: int, element_type: ov.Type) -> None:
    statistics = GraphStatistics(vocab_size, element_type, num_threads=2)
    random = np.random.default_rng(vocab_size)
    wide = random.normal(0, 4, (9, vocab_size)).astype(np.float32)
    wide[4, ::3] = -np.inf
    wide[5, :STRAND] = -np.inf
    wide[6] = 1.5
    logits: Logits = whole_strands(halved(wide) if element_type == HALF else wide)
    for number in (1, 2):
        factors = np.linspace(0.5, 4, 9 * number).reshape(9, number).astype(np.float32)
        together = [each.copy() for each in statistics(logits, factors)]
        maxima, sums = strand_statistics(logits, factors)
        np.testing.assert_array_equal(np.maximum(together[0], np.finfo(np.float32).min), maxima)
        np.testing.assert_allclose(together[1], sums, rtol=1e-4, atol=1e-9)
        for count in (1, 2, 3, 5):
            for begin in range(10 - count):
                rows = slice(begin, begin + count)
                for few, all_ in zip(statistics(logits[rows], factors[rows]), together, strict=True):
                    assert few.tobytes() == all_[rows].tobytes()


@pytest.mark.parametrize("element_type", [HALF, WHOLE], ids=["bf16", "f32"])
@pytest.mark.parametrize("number", [np.nan, -np.nan, np.inf], ids=["nan", "-nan", "inf"])
def test_what_is_not_a_number_is_seen_wherever_it_is(element_type: ov.Type, number: float) -> None:
    size = 4 * STRAND
    statistics = GraphStatistics(size, element_type, num_threads=2)
    sound = np.random.default_rng(1).normal(0, 4, (2, size)).astype(np.float32)
    for place in range(0, size, 3):
        wide = sound.copy()
        wide[1, place] = number
        rows: Logits = halved(wide) if element_type == HALF else wide
        maxima, sums = statistics(rows, np.ones((2, 1), np.float32))
        assert np.isfinite(maxima[0]).all()
        assert np.isfinite(sums[0]).all()
        assert not (np.isfinite(maxima[1]).all() and np.isfinite(sums[1]).all())
