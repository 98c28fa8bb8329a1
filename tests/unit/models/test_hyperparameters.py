from typing import Any

import pytest

from carpool.errors import ModelFailed
from carpool.models.hyperparameters import Hyperparameters


def read(**values: Any) -> Hyperparameters:
    return Hyperparameters(values, "config.json")


def test_values_are_taken_as_they_are() -> None:
    values = read(a=3, b=2.5, c=False, d="x", e=["x", "y"], f={"g": 1})
    assert (values.integer("a"), values.number("a"), values.number("b")) == (3, 3.0, 2.5)
    assert values.flag("c", default=True) is False
    assert values.text("d", "y") == "x"
    assert values.texts("e", 2, ("x", "y")) == ["x", "y"]
    section = values.section("f")
    assert section is not None
    assert section.integer("g") == 1


def test_absent_and_null_have_the_default() -> None:
    for values in (read(), read(a=None)):
        assert (values.integer("a", 7), values.number("a", 0.5), values.text("a", "x")) == (7, 0.5, "x")
        assert values.flag("a", default=True) is True
        assert values.texts("a", 2, ("x",)) is None
        assert values.section("a") is None


def test_null_may_have_a_meaning_of_its_own() -> None:
    assert read().integer_or_none("a", 7) == 7
    assert read(a=None).integer_or_none("a", 7) is None
    assert read(a=5).integer_or_none("a", 7) == 5


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3", [3], None])
def test_integers_are_positive_integers(value: Any) -> None:
    with pytest.raises(ModelFailed, match=r"^config\.json: a must be a positive integer, it is "):
        read(a=value).integer("a")


@pytest.mark.parametrize("value", [0, -0.5, float("nan"), float("inf"), True, "3", None])
def test_numbers_are_positive_and_finite(value: Any) -> None:
    with pytest.raises(ModelFailed, match=r"^config\.json: a must be a positive number, it is "):
        read(a=value).number("a")


def test_other_kinds_are_refused() -> None:
    with pytest.raises(ModelFailed, match="a must be true or false, it is 1"):
        read(a=1).flag("a", default=True)
    with pytest.raises(ModelFailed, match="a must be a string, it is 1"):
        read(a=1).text("a", "x")
    for value in (["x"], ["x", "z"], "xy", [["x"], "y"]):
        with pytest.raises(ModelFailed, match="a must be a list of 2 of x, y, it is"):
            read(a=value).texts("a", 2, ("x", "y"))
    with pytest.raises(ModelFailed, match="a must be an object, it is"):
        read(a=[]).section("a")
    section = read(a={"b": 0}).section("a")
    assert section is not None
    with pytest.raises(ModelFailed, match=r"config\.json: a: b must be a positive integer"):
        section.integer("b")
