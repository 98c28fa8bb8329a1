"""Errors that cross a process boundary."""

import pytest

from carpool import errors


def every_class(cls: type[errors.CarpoolError]) -> list[type[errors.CarpoolError]]:
    return [cls] + [found for child in cls.__subclasses__() for found in every_class(child)]


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in every_class(errors.CarpoolError)]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("cls", every_class(errors.CarpoolError))
def test_an_error_survives_the_wire(cls: type[errors.CarpoolError]) -> None:
    rebuilt = errors.from_code(cls.code, "why", param="input[3]", retry_after_s=2.5)
    assert type(rebuilt) is cls
    assert (rebuilt.message, rebuilt.param, rebuilt.retry_after_s) == ("why", "input[3]", 2.5)


def test_an_unknown_code_is_an_internal_error() -> None:
    assert errors.from_code("from the future", "why").status == 500
