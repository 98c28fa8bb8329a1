"""What a client is told of a model that is not up."""

import pytest

from carpool.errors import Overloaded
from carpool.worker.refusals import not_up
from carpool.worker.states import ModelState


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (None, "The model `a` cannot be loaded now."),
        ("it takes 2 GiB", "The model `a` cannot be loaded now: it takes 2 GiB."),
    ],
)
def test_a_model_that_could_not_be_loaded_on_demand(error: str | None, message: str) -> None:
    state = ModelState(
        name="a",
        reference="pypi:a==1",
        revision=None,
        aliases=(),
        created=0,
        phase="unloaded",
        error=error,
    )
    refusal = not_up(state, load_on_demand=True, start_left_s=1.0)
    assert isinstance(refusal, Overloaded)
    assert refusal.message == message
