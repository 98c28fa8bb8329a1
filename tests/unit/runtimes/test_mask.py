"""Which tokens a mask lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpool.runtimes.mask import FEW, mask_of

SIZE = 6016


def bits_of(allowed: set[int]) -> bytes:
    """A bit for each of `SIZE` tokens."""
    bits = np.zeros(SIZE, np.uint8)
    bits[[*allowed]] = 1
    return np.packbits(bits, bitorder="little").tobytes()


@given(st.sets(st.integers(0, SIZE - 1), max_size=40))
@settings(deadline=None)
def test_a_mask_lists_what_it_allows_or_all_that_it_forbids(some: set[int]) -> None:
    few, most = mask_of(bits_of(some)), mask_of(bits_of({*range(SIZE)} - some))
    assert few.lists_allowed
    assert not most.lists_allowed
    assert few.ids.tolist() == most.ids.tolist() == sorted(some)


@pytest.mark.parametrize(("count", "lists_allowed"), [(FEW, True), (FEW + 1, False)])
def test_few_are_listed_themselves(count: int, lists_allowed: bool) -> None:
    mask = mask_of(bits_of({*range(count)}))
    assert mask.lists_allowed is lists_allowed
    assert len(mask.ids) == (count if lists_allowed else SIZE - count)


def test_masks_that_recur_are_shared_and_cannot_be_changed() -> None:
    mask = mask_of(bits_of({1, 2}))
    assert mask_of(bits_of({1, 2})) is mask
    with pytest.raises(ValueError, match="read-only"):
        mask.ids[0] = 0
