"""Replies with tool calls: which texts the grammar lets through, and how far."""

import json
from typing import Any

import pytest

from carpool.errors import InvalidRequest
from carpool.generation import Grammar, GrammarKind
from carpool.generation.grammar import Matcher, next_masks
from carpool.generation.tool_grammar import MAX_CALLS
from tests.unit.generation.grammars import END, TOKENIZER, compiled, ids

CITY = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/name"}},
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"name": {"type": "string"}},
}
WEATHER = {"name": "weather", "parameters": CITY}
ANYTHING = {"name": "any", "parameters": {"type": "object"}}


async def grammar(*functions: dict[str, Any], **fields: Any) -> Grammar:
    rule = {"functions": functions, "required": False, "parallel": True, "answer": None, **fields}
    return await compiled(GrammarKind.TOOL_CALLS, json.dumps(rule))


def call(name: str = "weather", arguments: str = '{"city": "Rome"}') -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def follows(rules: Grammar, text: str) -> str:
    """How much of a text may be drawn; with a full stop where it may also end there."""
    matcher = Matcher(rules)
    for taken, token_id in enumerate(TOKENIZER.encode(text, add_special_tokens=False)):
        if token_id not in ids(next_masks([matcher])[0]):
            return text[:taken]
        matcher.advance(token_id)
    assert matcher.error is None
    may_end = matcher.finished or END in ids(next_masks([matcher])[0])
    return f"{text}." if may_end else text


async def test_required_calls_match_their_schemas() -> None:
    rules = await grammar(WEATHER, ANYTHING, required=True)
    both = "\n".join([call(), call("any", '{"a": [1, {}]}')])
    assert follows(rules, call()) == f"{call()}."
    assert follows(rules, both) == f"{both}."
    assert follows(rules, "Hello") == ""
    assert follows(rules, call("other")) == '<tool_call>\n{"name": "'
    assert follows(rules, call(arguments='{"town": 1}')) == '<tool_call>\n{"name": "weather", "arguments": {"'
    assert follows(rules, call(arguments="[]")) == '<tool_call>\n{"name": "weather", "arguments": '
    assert follows(rules, f"{call()} and") == f"{call()}"


async def test_without_parallel_calls_there_is_one() -> None:
    assert follows(await grammar(WEATHER, required=True, parallel=False), f"{call()}\n") == call()
    optional = await grammar(WEATHER, parallel=False)
    assert follows(optional, f"Well: {call()}") == f"Well: {call()}."
    assert follows(optional, f"Well: {call()}\n") == f"Well: {call()}"


async def test_calls_are_bounded() -> None:
    rules = await grammar(WEATHER, required=True)
    most = "\n".join([call()] * MAX_CALLS)
    assert follows(rules, most) == f"{most}."
    assert follows(rules, f"{most}\n") == most


async def test_free_text_may_turn_into_calls() -> None:
    rules = await grammar(WEATHER, ANYTHING)
    for text in ("Hello", "a < b <tool_ca", "<tools> {}", f"Let me look.\n{call()}", call()):
        assert follows(rules, text) == f"{text}."
    assert follows(rules, "See <tool_call> there") == "See <tool_call>"
    assert follows(rules, f"Ah {call('other')}") == 'Ah <tool_call>\n{"name": "'
    assert follows(rules, f"{call()} and") == call()


async def test_calls_or_an_answer_of_a_schema() -> None:
    rules = await grammar(WEATHER, answer=CITY)
    assert follows(rules, '{"city": "<tool_call>"}') == '{"city": "<tool_call>"}.'
    assert follows(rules, call()) == f"{call()}."
    assert follows(rules, "Hello") == ""


async def test_a_schema_that_cannot_be_kept_is_refused() -> None:
    impossible = {"name": "a", "parameters": {"type": "object", "not": {}}}
    with pytest.raises(InvalidRequest, match="Unimplemented keys"):
        await grammar(impossible, required=True)
