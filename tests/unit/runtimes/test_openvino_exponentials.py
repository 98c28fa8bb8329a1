"""The exponentials by the graph: those of the plain definition, and the same bits whatever else is there."""

import numpy as np
import pytest

from carpool.runtimes.openvino.exponentials import GraphExponentials
from carpool.runtimes.sampling import exponentials


@pytest.mark.parametrize("vocab_size", [7, 1000, 49_152, 50_257])
def test_a_row_has_the_same_weights_in_any_company(vocab_size: int) -> None:
    weigh = GraphExponentials(vocab_size, num_threads=2)
    random = np.random.default_rng(vocab_size)
    logits = random.normal(0, 4, (9, vocab_size)).astype(np.float32)
    logits[4, ::3] = -np.inf
    factors = np.linspace(0.5, 4, 9).astype(np.float32)
    together = weigh(logits, factors).copy()
    np.testing.assert_allclose(together, exponentials(logits, factors), rtol=1e-4, atol=1e-9)
    assert (together.max(axis=1) == 1).all()
    for count in (1, 2, 3, 5):
        for begin in range(10 - count):
            rows = slice(begin, begin + count)
            assert weigh(logits[rows], factors[rows]).tobytes() == together[rows].tobytes()
