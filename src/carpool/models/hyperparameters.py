"""Numbers out of a config.json or a GGUF file's metadata, each checked before it is used."""

import math
from collections.abc import Mapping
from typing import Any

from carpool.errors import ModelFailed


class Hyperparameters:
    """Checked reading of `values`; a name that is absent or null has the default, without one it is refused.

    Every method raises `ModelFailed` with one sentence that begins with `where`.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self._where = where

    def integer(self, name: str, default: int | None = None) -> int:
        """A positive integer."""
        value = self._value(name, default)
        if type(value) is not int or value < 1:
            raise self._refuse(name, value, "a positive integer")
        return value

    def integer_or_none(self, name: str, default: int) -> int | None:
        """A positive integer where null has a meaning of its own; only an absent name has the default."""
        if name in self._values and self._values[name] is None:
            return None
        return self.integer(name, default)

    def number(self, name: str, default: float | None = None) -> float:
        """A positive, finite number."""
        value = self._value(name, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self._refuse(name, value, "a positive number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._value(name, default)
        if type(value) is not bool:
            raise self._refuse(name, value, "true or false")
        return value

    def text(self, name: str, default: str) -> str:
        """A string."""
        value = self._value(name, default)
        if not isinstance(value, str):
            raise self._refuse(name, value, "a string")
        return value

    def texts(self, name: str, count: int, allowed: tuple[str, ...]) -> list[str] | None:
        """A list of `count` of the allowed strings; None where it is absent."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != count or not all(each in allowed for each in value):
            raise self._refuse(name, value, f"a list of {count} of {', '.join(allowed)}")
        return value

    def section(self, name: str) -> "Hyperparameters | None":
        """An object inside; None where it is absent."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._refuse(name, value, "an object")
        return Hyperparameters(value, f"{self._where}: {name}")

    def _value(self, name: str, default: Any) -> Any:
        value = self._values.get(name)
        return default if value is None else value

    def _refuse(self, name: str, value: Any, wanted: str) -> ModelFailed:
        return ModelFailed(f"{self._where}: {name} must be {wanted}, it is {value!r}")
