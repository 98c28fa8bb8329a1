"""Settings out of range stop the start with a line that names them."""

import math

import pytest

from carpool.errors import StartError
from carpool.generation import GenerationConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_num_seqs", 0),
        ("max_num_batched_tokens", 0),
        ("reserve_tokens", 0),
        ("max_queue_seqs", 0),
        ("max_step_failures", 0),
        ("max_queue_ms", 0.0),
        ("weight", -1.0),
        ("admission_window_ms", -1.0),
        ("admission_window_ms", math.inf),
    ],
)
def test_out_of_range(name: str, value: float) -> None:
    with pytest.raises(StartError, match=name) as caught:
        GenerationConfig(**{name: value})  # type: ignore[arg-type]
    assert caught.value.param == name
