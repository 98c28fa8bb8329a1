"""Replies with tool calls in pieces of every size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.gateway.tool_parser import CallPart, ToolCallParser

TOKYO = '{"city": "T\\"o}k]y\\\\", "days": [1, {"a": {}}]}'


def call(name: str = "weather", arguments: str = TOKYO) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def parsed(
    pieces: list[str], reason: str = "stop", anywhere: bool = True
) -> tuple[str, list[tuple[str, str]], str]:
    """The text, the calls with their arguments, and the finish reason."""
    parser = ToolCallParser(anywhere=anywhere)
    content, calls = "", list[tuple[str, str]]()
    for piece in pieces:
        text, parts = parser.push(piece)
        content += text
        for part in parts:
            if part.name is not None:
                assert part.place == len(calls)
                calls.append((part.name, part.arguments))
            else:
                name, arguments = calls.pop()
                assert part.place == len(calls)
                calls.append((name, arguments + part.arguments))
    return content + parser.flush(), calls, parser.ending(reason)


CASES = [
    ("", ("", [], "stop")),
    ("Hello. ", ("Hello. ", [], "stop")),
    ("a < b <tool_cal", ("a < b <tool_cal", [], "stop")),
    ("<<tool_call", ("<<tool_call", [], "stop")),
    ("See <tool_call> there", ("See <tool_call> there", [], "stop")),
    (call(), ("", [("weather", TOKYO)], "tool_calls")),
    (f"Let me look.\n\n{call()}", ("Let me look.", [("weather", TOKYO)], "tool_calls")),
    (f"{call()}\n{call('time', '{}')}", ("", [("weather", TOKYO), ("time", "{}")], "tool_calls")),
    (f"{call()}\n", ("", [("weather", TOKYO)], "tool_calls")),
    # Cut off, such as by a stop string of the client's own.
    ("Well <tool_call>\n{", ("Well", [], "stop")),
    (call()[:50], ("", [("weather", TOKYO[: 50 - call().index(TOKYO)])], "stop")),
    (call()[:-3], ("", [("weather", TOKYO)], "stop")),
    (f"{call()}\n<tool_call>\n", ("", [("weather", TOKYO)], "tool_calls")),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_at_once_and_character_by_character(
    text: str, expected: tuple[str, list[tuple[str, str]], str]
) -> None:
    assert parsed([text]) == expected
    assert parsed(list(text)) == expected
    assert parsed([text], "length")[2] == "length"


@given(st.sampled_from([text for text, _ in CASES]), st.lists(st.integers(0, 120)))
def test_where_the_pieces_end_makes_no_difference(text: str, cuts: list[int]) -> None:
    ends = sorted({*cuts, len(text)})
    pieces = [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    assert parsed(pieces) == parsed([text])


def test_what_is_certain_is_not_held_back() -> None:
    parser = ToolCallParser(anywhere=True)
    assert parser.push("Hello there <") == ("Hello there", [])
    assert parser.push("b> <tool") == (" <b>", [])
    assert parser.push('_call>\n{"name": "f", "arguments": {"a') == (
        "",
        [CallPart(0, "f", ""), CallPart(0, None, '{"a')],
    )
    assert parser.push('": 1') == ("", [CallPart(0, None, '": 1')])
    assert parser.push("}") == ("", [CallPart(0, None, "}")])


def test_in_an_answer_of_a_schema_a_mark_is_text() -> None:
    answer = '{"text": "' + call().replace('"', "'") + '"}'
    assert parsed([answer], anywhere=False) == (answer, [], "stop")
    assert parsed(list(answer), anywhere=False) == (answer, [], "stop")
    both = f"{call()}\n{call()}"
    assert parsed(list(both), anywhere=False) == ("", [("weather", TOKYO)] * 2, "tool_calls")
