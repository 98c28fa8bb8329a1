"""Inputs as OpenAI takes them: a text, texts, token ids, or lists of token ids."""

from typing import Annotated, cast

from msgspec import Meta

from carpool.errors import InvalidRequest

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Inputs = str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]
Input = str | list[int]


def as_list(inputs: Inputs, param: str, max_inputs: int) -> list[Input]:
    """Each input by itself.

    Raises `InvalidRequest` for a mixture, for too many, and for empty ones; it names the first at fault.
    """
    if isinstance(inputs, str):
        each: list[Input] = [inputs]
    else:
        kinds = list(map(type, inputs))
        if others := set(kinds) - {kinds[0]}:
            where = f"{param}[{min(map(kinds.index, others))}]"
            raise InvalidRequest(
                f"`{param}` must hold texts, or token ids, or lists of token ids, and not a mixture of them; "
                f"{where} is another than those before it.",
                param=where,
            )
        each = [cast("list[int]", inputs)] if kinds[0] is int else cast("list[Input]", inputs)
    if len(each) > max_inputs:
        raise InvalidRequest(
            f"`{param}` holds {len(each)} inputs; at most {max_inputs} are served.", param=param
        )
    if not all(each):
        empty = type(each[0])()  # all are of one kind
        where = f"{param}[{each.index(empty)}]" if each is inputs else param
        raise InvalidRequest(f"`{where}` must not be empty.", param=where)
    return each
