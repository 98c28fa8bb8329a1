import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.cache.index import VectorIndex, normalised


@pytest.mark.parametrize(
    "vector",
    [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0], [[1.0, 2.0]], []],
    ids=["zero", "nan", "inf", "2d", "0d"],
)
def test_vectors_without_direction_are_refused(vector: list[float]) -> None:
    with pytest.raises(ValueError, match="direction"):
        normalised(np.array(vector, dtype=np.float32))


def test_huge_and_tiny_vectors_are_normalised() -> None:
    for scale in (1e-30, 1.0, 1e30):
        assert np.allclose(normalised(np.array([3, 4], dtype=np.float32) * np.float32(scale)), [0.6, 0.8])


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.integers(0, 2**32 - 1)), max_size=60),
    st.integers(0, 2**32 - 1),
)
def test_search_finds_what_comparing_all_finds(changes: list[tuple[bool, int, int]], seed: int) -> None:
    index, kept = VectorIndex(4), {}
    for add, number, vector_seed in changes:
        key = bytes([number])
        if add:
            kept[key] = normalised(np.random.default_rng(vector_seed).normal(size=4).astype(np.float32))
            index.add(key, kept[key])
        else:
            kept.pop(key, None)
            index.remove(key)
    query = normalised(np.random.default_rng(seed).normal(size=4).astype(np.float32))
    expected = sorted((float(v @ query) for v in kept.values() if float(v @ query) > 0.1), reverse=True)
    (found,) = index.search(query[None, :], 0.1, 5)
    assert len(index) == len(kept)
    assert np.allclose([cosine for _, cosine in found], expected[:5], atol=1e-6)
    for key, cosine in found:
        assert index.cosine(key, query) == pytest.approx(cosine, abs=1e-6)
        assert float(kept[key] @ query) == pytest.approx(cosine, abs=1e-6)
    assert index.cosine(b"unknown", query) is None


def test_several_searches_are_one_product() -> None:
    index = VectorIndex(2)
    index.add(b"x", np.array([1, 0], dtype=np.float32))
    index.add(b"y", np.array([0, 1], dtype=np.float32))
    found = index.search(np.array([[1, 0], [0, 1], [-1, 0]], dtype=np.float32), 0.5, 3)
    assert [[key for key, _ in row] for row in found] == [[b"x"], [b"y"], []]


@pytest.mark.parametrize("queries", [1, 8, 9, 40])
@pytest.mark.parametrize("floor", [-2.0, 0.2, 0.8])
def test_few_and_many_searches_find_what_float32_finds(queries: int, floor: float) -> None:
    """Crowds of near duplicates, whose int8 codes do not tell them apart, and rows of very uneven size."""
    rng = np.random.default_rng(7)
    crowds = rng.normal(size=(12, 1, 96)) + rng.normal(size=(12, 50, 96)) * 0.01
    spikes = rng.normal(size=(100, 96)) ** 9
    rows = np.concatenate((crowds.reshape(-1, 96), spikes)).astype(np.float32)
    vectors = np.stack([normalised(row) for row in rows])
    index = VectorIndex(96)
    for number, vector in enumerate(vectors):
        index.add(number.to_bytes(2, "big"), vector)
    asked = vectors[rng.choice(len(vectors), queries, replace=False)]
    for query, found in zip(asked, index.search(asked, floor, 8), strict=True):
        cosines = np.sort(vectors @ query)[::-1][:8]
        assert np.allclose([cosine for _, cosine in found], cosines[cosines > floor], atol=1e-6)


def test_an_empty_index_has_nothing() -> None:
    assert VectorIndex(4).search(np.ones((2, 4), dtype=np.float32), 0.5, 3) == [[], []]
