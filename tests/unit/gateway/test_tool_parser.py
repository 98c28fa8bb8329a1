"""Replies with tool calls in pieces of every size."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.gateway.tool_parser import CallPart, ToolCallParser
from carpool.models.tool_forms import HERMES, LLAMA3, MISTRAL, MISTRAL_ARGS, TOOL_FORMS, ToolForm

TOKYO = '{"city": "T\\"o}k]y\\\\", "days": [1, {"a": {}}]}'


def call(name: str = "weather", arguments: str = TOKYO) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


Parsed = tuple[str, list[tuple[str, str]], str]


def parsed(pieces: list[str], reason: str = "stop", anywhere: bool = True, form: ToolForm = HERMES) -> Parsed:
    """The text, the calls with their arguments, and the finish reason."""
    parser = ToolCallParser(form, anywhere=anywhere)
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


WEATHER = [("weather", TOKYO)]
BOTH = [*WEATHER, ("time", "{}")]
LLAMA3_CALL, LLAMA3_TIME = (
    f'{{"name": "weather", "parameters": {TOKYO}}}',
    '{"name": "time", "parameters": {}}',
)
LIST_CALL, LIST_TIME = f'{{"name": "weather", "arguments": {TOKYO}}}', '{"name": "time", "arguments": {}}'

CASES_OF = {
    HERMES: CASES,
    LLAMA3: [
        ("", ("", [], "stop")),
        ("Hello {", ("Hello {", [], "stop")),
        ("<|python", ("<|python", [], "stop")),
        (LLAMA3_CALL, ("", WEATHER, "tool_calls")),
        (f"<|python_tag|>{LLAMA3_CALL}", ("", WEATHER, "tool_calls")),
        (f"Well. <|python_tag|>{LLAMA3_CALL}; {LLAMA3_TIME}", ("Well.", BOTH, "tool_calls")),
        (f"{LLAMA3_CALL}; {LLAMA3_TIME}\n", ("", BOTH, "tool_calls")),
        ('{"type": "function", "name": "time", "parameters": {}}', ("", BOTH[1:], "tool_calls")),
        # Not a call, or none any more.
        ('{"answer": 1}', ('{"answer": 1}', [], "stop")),
        ('{"na', ('{"na', [], "stop")),
        ('{"name": "Ada", "born": 1815}', ('{"name": "Ada", "born": 1815}', [], "stop")),
        ('{"name": "", "parameters": {}}', ('{"name": "", "parameters": {}}', [], "stop")),
        (f"See {LLAMA3_CALL}", (f"See {LLAMA3_CALL}", [], "stop")),
        ("<|python_tag|>print(1)", ("<|python_tag|>print(1)", [], "stop")),
        (f"{LLAMA3_CALL} and", (" and", WEATHER, "tool_calls")),
        (f"{LLAMA3_CALL}; {LLAMA3_TIME[:12]}", ("", WEATHER, "tool_calls")),
        (LLAMA3_CALL[:-1], ("", WEATHER, "stop")),
        (LLAMA3_CALL[:20], ("", [], "stop")),
    ],
    MISTRAL: [
        ("Hello [TOOL", ("Hello [TOOL", [], "stop")),
        (f"[TOOL_CALLS] [{LIST_CALL}]", ("", WEATHER, "tool_calls")),
        (f"[TOOL_CALLS][{LIST_CALL}, {LIST_TIME}]", ("", BOTH, "tool_calls")),
        (f"Well. [TOOL_CALLS] [{LIST_CALL}, {LIST_TIME}]\n", ("Well.", BOTH, "tool_calls")),
        ("See [TOOL_CALLS] there", ("See [TOOL_CALLS] there", [], "stop")),
        (f"[TOOL_CALLS] {LIST_CALL}", (f"[TOOL_CALLS] {LIST_CALL}", [], "stop")),
        (f"[TOOL_CALLS] [{LIST_CALL}] and", (" and", WEATHER, "tool_calls")),
        (f"[TOOL_CALLS] [{LIST_CALL}], {LIST_TIME}", (f", {LIST_TIME}", WEATHER, "tool_calls")),
        (f"[TOOL_CALLS] [{LIST_CALL}, 5]", (", 5]", WEATHER, "tool_calls")),
        (f"[TOOL_CALLS] [{LIST_CALL}", ("", WEATHER, "tool_calls")),
        (f"[TOOL_CALLS] [{LIST_CALL[:-1]}", ("", WEATHER, "stop")),
        (f"[TOOL_CALLS] [{LIST_CALL}, {LIST_TIME[:-2]}", ("", [*WEATHER, ("time", "{")], "stop")),
    ],
    MISTRAL_ARGS: [
        ("Hello [TOOL", ("Hello [TOOL", [], "stop")),
        (f"[TOOL_CALLS]weather[ARGS]{TOKYO}", ("", WEATHER, "tool_calls")),
        (f"[TOOL_CALLS]weather[ARGS]{TOKYO}[TOOL_CALLS]time[ARGS]{{}}", ("", BOTH, "tool_calls")),
        (f"Well.\n[TOOL_CALLS]weather[ARGS]{TOKYO}", ("Well.", WEATHER, "tool_calls")),
        ("See [TOOL_CALLS] there", ("See [TOOL_CALLS] there", [], "stop")),
        ("See [TOOL_CALLS]there [ARGS]", ("See [TOOL_CALLS]there [ARGS]", [], "stop")),
        ("[TOOL_CALLS][ARGS]{}", ("[TOOL_CALLS][ARGS]{}", [], "stop")),
        (f"[TOOL_CALLS]weather[ARGS]{TOKYO[:-1]}", ("", [("weather", TOKYO[:-1])], "stop")),
        (f"[TOOL_CALLS]weather[ARGS]{TOKYO} and", (" and", WEATHER, "tool_calls")),
        (f"[TOOL_CALLS]weather[ARGS]{TOKYO}[TOOL_CALLS]ti", ("", WEATHER, "tool_calls")),
    ],
}
ALL = [(form, text, expected) for form, cases in CASES_OF.items() for text, expected in cases]


def test_every_form_is_read() -> None:
    assert set(CASES_OF) == set(TOOL_FORMS.values())


@pytest.mark.parametrize(("form", "text", "expected"), ALL)
def test_at_once_and_character_by_character(form: ToolForm, text: str, expected: Parsed) -> None:
    assert parsed([text], form=form) == expected
    assert parsed(list(text), form=form) == expected
    assert parsed([text], "length", form=form)[2] == "length"


@pytest.mark.parametrize(("form", "text", "expected"), ALL)
def test_in_two_pieces_wherever_they_meet(form: ToolForm, text: str, expected: Parsed) -> None:
    for cut in range(len(text) + 1):
        assert parsed([text[:cut], text[cut:]], form=form) == expected


WORDS = [
    *{text for form in TOOL_FORMS.values() for text in (form.opening, *form.first, *form.next, form.closing)},
    *{text for form in TOOL_FORMS.values() for text in (form.before_arguments, form.after_arguments)},
    *("weather", "{}", TOKYO, " ", "\n", "Hello", "{", "[", ";"),
]


@given(
    st.sampled_from(list(TOOL_FORMS.values())),
    st.booleans(),
    st.one_of(st.sampled_from([text for _, text, _ in ALL]), st.lists(st.sampled_from(WORDS)).map("".join)),
    st.lists(st.integers(0, 120)),
)
def test_where_the_pieces_end_makes_no_difference(
    form: ToolForm, anywhere: bool, text: str, cuts: list[int]
) -> None:
    ends = sorted({*(cut for cut in cuts if cut < len(text)), len(text)})
    pieces = [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    assert parsed(pieces, anywhere=anywhere, form=form) == parsed([text], anywhere=anywhere, form=form)


def test_what_is_certain_is_not_held_back() -> None:
    parser = ToolCallParser(HERMES, anywhere=True)
    assert parser.push("Hello there <") == ("Hello there", [])
    assert parser.push("b> <tool") == (" <b>", [])
    text, (head, arguments) = parser.push('_call>\n{"name": "f", "arguments": {"a')
    assert (text, head.place, head.name, head.arguments) == ("", 0, "f", "")
    assert arguments == CallPart(0, '{"a')
    assert parser.push('": 1') == ("", [CallPart(0, '": 1')])
    assert parser.push("}") == ("", [CallPart(0, "}")])


def test_what_may_be_a_call_is_held_back_only_while_it_may() -> None:
    parser = ToolCallParser(LLAMA3, anywhere=True)
    assert parser.push('{"') == ("", [])
    assert parser.push("answer") == ('{"answer', [])
    assert parser.push('": {"name": "f", "parameters": {}}') == ('": {"name": "f", "parameters": {}}', [])


@pytest.mark.parametrize(("form", "pattern"), [(HERMES, "call_[0-9a-f]{24}"), (MISTRAL, "[a-zA-Z0-9]{9}")])
def test_calls_have_ids_of_their_form(form: ToolForm, pattern: str) -> None:
    call = f"f{form.before_arguments}{{}}{form.after_arguments}"
    text = f"{form.opening}{form.first[0]}{call}{form.next[0]}{call}{form.closing}"
    _, parts = ToolCallParser(form, anywhere=True).push(text)
    ids = [part.id for part in parts if part.id is not None]
    assert len(set(ids)) == 2
    assert all(re.fullmatch(pattern, id_) for id_ in ids)


def test_beside_answers_of_a_schema_calls_need_their_opening() -> None:
    answer = '{"name": "f", "parameters": {}}'
    assert parsed([answer], anywhere=False, form=LLAMA3) == (answer, [], "stop")
    marked = f"<|python_tag|>{answer}"
    assert parsed(list(marked), anywhere=False, form=LLAMA3) == ("", [("f", "{}")], "tool_calls")


def test_in_an_answer_of_a_schema_a_mark_is_text() -> None:
    answer = '{"text": "' + call().replace('"', "'") + '"}'
    assert parsed([answer], anywhere=False) == (answer, [], "stop")
    assert parsed(list(answer), anywhere=False) == (answer, [], "stop")
    both = f"{call()}\n{call()}"
    assert parsed(list(both), anywhere=False) == ("", [("weather", TOKYO)] * 2, "tool_calls")
