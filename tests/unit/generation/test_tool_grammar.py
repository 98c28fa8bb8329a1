"""Replies with tool calls: which texts the grammar lets through, and how far."""

import json
from typing import Any

import pytest

from carpool.errors import InvalidRequest
from carpool.generation import Grammar, GrammarCompiler, GrammarKind, GrammarSource
from carpool.generation.grammar import Matcher
from carpool.generation.tool_grammar import MAX_CALLS
from carpool.models.tokenizer import Tokenizer
from carpool.models.tool_forms import HERMES, LLAMA3, MISTRAL, MISTRAL_ARGS, TOOL_FORMS, ToolForm
from tests.unit.generation.grammars import END, TOKENIZER, allowed_ids, ascii_tokenizer

CITY = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/name"}},
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"name": {"type": "string"}},
}
WEATHER = {"name": "weather", "parameters": CITY}
ANYTHING = {"name": "any", "parameters": {"type": "object"}}


async def grammar(
    *functions: dict[str, Any], form: ToolForm = HERMES, tokenizer: Tokenizer = TOKENIZER, **fields: Any
) -> Grammar:
    rule = {"functions": functions, "required": False, "parallel": True, "answer": None, **fields}
    compiler = GrammarCompiler(tokenizer, tokenizer.vocab_size, tool_form=form)
    try:
        return await compiler.compile(GrammarSource(GrammarKind.TOOL_CALLS, json.dumps(rule)))
    finally:
        compiler.close()


def call(name: str = "weather", arguments: str = '{"city": "Rome"}') -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def follows(rules: Grammar, text: str, tokenizer: Tokenizer = TOKENIZER) -> str:
    """How much of a text may be drawn; with a full stop where it may also end there."""
    matcher = Matcher(rules)
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    for taken, token_id in enumerate(token_ids):
        if matcher.finished or token_id not in allowed_ids(matcher):
            return tokenizer.decode(token_ids[:taken], skip_special_tokens=False)
        matcher.advance(token_id)
    assert matcher.error is None
    may_end = matcher.finished or END in allowed_ids(matcher)
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


MARKED = {form: ascii_tokenizer(marks=form.marks) for form in TOOL_FORMS.values()}
"""Tokenizers that have the marks of a form as special tokens."""


def in_form(form: ToolForm, *names: str, arguments: str = '{"city": "Rome"}', bare: bool = False) -> str:
    calls = [f"{name}{form.before_arguments}{arguments}{form.after_arguments}" for name in names]
    opening = "" if bare else form.opening
    return f"{opening}{form.first[0]}{form.next[0].join(calls)}{form.closing}"


FORMS = [(form, tokenizer) for form, marked in MARKED.items() for tokenizer in (TOKENIZER, marked)]


@pytest.mark.parametrize(("form", "tokenizer"), FORMS)
async def test_in_every_form_with_and_without_tokens_for_its_marks(
    form: ToolForm, tokenizer: Tokenizer
) -> None:
    one, two = in_form(form, "weather"), in_form(form, "weather", "any")
    required = await grammar(WEATHER, ANYTHING, required=True, form=form, tokenizer=tokenizer)
    single = await grammar(WEATHER, required=True, parallel=False, form=form, tokenizer=tokenizer)
    free = await grammar(WEATHER, ANYTHING, form=form, tokenizer=tokenizer)
    for text in (one, two):
        assert follows(required, text, tokenizer) == f"{text}."
        assert follows(free, text, tokenizer) == f"{text}."
        assert follows(free, f"Let me look.\n{text}", tokenizer) == f"Let me look.\n{text}."
        assert follows(free, f"{text} x", tokenizer) == text
    assert follows(required, "Hello", tokenizer) == ""
    assert follows(free, "Hello {[<", tokenizer) == "Hello {[<."
    assert follows(single, one, tokenizer) == f"{one}."
    assert follows(single, two, tokenizer) == one.removesuffix(form.closing)
    bad = in_form(form, "weather", arguments='{"town": 1}')
    assert follows(required, bad, tokenizer) == bad[: bad.index("town")]
    other = in_form(form, "other")
    assert follows(free, f"Ah {other}", tokenizer) == f"Ah {other[: other.index('other')]}"


@pytest.mark.parametrize(("form", "tokenizer"), FORMS)
async def test_in_every_form_beside_an_answer_of_a_schema(form: ToolForm, tokenizer: Tokenizer) -> None:
    answer = {"type": "object", "properties": {"name": {"type": "string"}}, "additionalProperties": False}
    rules = await grammar(WEATHER, answer=answer, form=form, tokenizer=tokenizer)
    for text in ('{"name": "Ada"}', in_form(form, "weather")):
        assert follows(rules, text, tokenizer) == f"{text}."
    assert follows(rules, "Hello", tokenizer) == ""
    bare = in_form(LLAMA3, "weather", bare=True)
    assert follows(rules, bare, tokenizer) == '{"name": "weather"'


@pytest.mark.parametrize("tokenizer", [TOKENIZER, MARKED[LLAMA3]])
async def test_llama3_begins_with_a_call_or_text(tokenizer: Tokenizer) -> None:
    required = await grammar(WEATHER, ANYTHING, required=True, form=LLAMA3, tokenizer=tokenizer)
    free = await grammar(WEATHER, ANYTHING, form=LLAMA3, tokenizer=tokenizer)
    typed = '{"type": "function", "name": "any", "parameters": {}}'
    for text in (in_form(LLAMA3, "weather", "any", bare=True), typed, f"{typed}; {typed}"):
        assert follows(required, text, tokenizer) == f"{text}."
        assert follows(free, text, tokenizer) == f"{text}."
    assert follows(free, '{"answer": 1}', tokenizer) == '{"answer": 1}.'
    assert follows(free, '{"name": "Ada"}', tokenizer) == '{"name": "'
    assert follows(free, 'See {"name": "Ada"}', tokenizer) == 'See {"name": "Ada"}.'


async def test_mistral_may_put_a_space_behind_its_mark() -> None:
    rules = await grammar(WEATHER, form=MISTRAL, tokenizer=MARKED[MISTRAL])
    spaced = in_form(MISTRAL, "weather").replace("[{", " [{")
    assert follows(rules, spaced, MARKED[MISTRAL]) == f"{spaced}."


async def test_marks_that_are_tokens_are_drawn_as_tokens() -> None:
    tokenizer = MARKED[MISTRAL_ARGS]
    rules = await grammar(WEATHER, required=True, form=MISTRAL_ARGS, tokenizer=tokenizer)
    first = allowed_ids(Matcher(rules))
    assert [tokenizer.decode([id_], skip_special_tokens=False) for id_ in first] == ["[TOOL_CALLS]"]
    free = await grammar(WEATHER, form=MISTRAL_ARGS, tokenizer=tokenizer)
    allowed = allowed_ids(Matcher(free))
    assert first[0] in allowed
    (args,) = tokenizer.encode("[ARGS]", add_special_tokens=False)
    assert args not in allowed
