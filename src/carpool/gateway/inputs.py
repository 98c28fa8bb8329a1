"""Inputs as OpenAI takes them: a text, texts, token ids, or lists of token ids."""

from typing import Annotated, cast

from msgspec import Meta

from carpool.errors import InvalidRequest

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Inputs = str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]
Input = str | list[int]


def as_list(inputs: Inputs, param: str, max_inputs: int) -> list[Input]:
    """Each input by itself. Raises `InvalidRequest` for a mixture, for too many, and for empty ones."""
    if isinstance(inputs, str):
        each: list[Input] = [inputs]
    else:
        kinds = set(map(type, inputs))
        if len(kinds) > 1:
            reason = "must hold texts, or token ids, or lists of token ids, and not a mixture of them"
            raise InvalidRequest(f"`{param}` {reason}.", param=param)
        each = [cast("list[int]", inputs)] if kinds == {int} else cast("list[Input]", inputs)
    if len(each) > max_inputs:
        raise InvalidRequest(
            f"`{param}` holds {len(each)} inputs; at most {max_inputs} are served.", param=param
        )
    if not all(each):
        raise InvalidRequest(f"`{param}` must not be empty, nor hold an empty input.", param=param)
    return each
