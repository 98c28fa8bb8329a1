"""What becomes of clients' grammars: compiled once, or refused with a reason, and in little time."""

import asyncio
import json
from typing import Any

import pytest

from carpool.errors import InvalidRequest
from carpool.generation import GrammarKind, GrammarSource, grammar_compiler
from carpool.generation.grammar import Matcher
from tests.unit.generation.grammars import ascii_tokenizer, compiler
from tests.unit.generation.test_grammar import EXHAUSTING

SCHEMA, REGEX, LARK = GrammarKind.JSON_SCHEMA, GrammarKind.REGEX, GrammarKind.LARK


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (REGEX, "(abc", "unclosed group"),
        (REGEX, r"(?=a)b", "look-ahead"),
        (REGEX, r"(a)\1", "backreferences"),
        (LARK, "start: foo", 'unknown name: "foo"'),
        (LARK, "start: start", "no text can match"),
        (SCHEMA, '{"type": "foo"}', "Invalid type: foo"),
        (SCHEMA, '{"type": "object", "not": {}}', "Unimplemented keys"),
        (SCHEMA, '{"not": {}, "x-guidance": {"lenient": true}}', "Unimplemented keys"),
        (SCHEMA, '{"type": "integer", "minimum": 5, "maximum": 3}', "minimum"),
        (SCHEMA, '{"$ref": "http://example.com/schema.json"}', "not present in a registry"),
        (SCHEMA, '{"$ref": "#"}', "no text can match"),
        (
            SCHEMA,
            '{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}',
            "no text can match",
        ),
        (SCHEMA, '{"type": ', "EOF while parsing"),
        (SCHEMA, '"text"', "object schema"),
        (SCHEMA, json.dumps(nested(200)), "recursion limit"),
        (SCHEMA, json.dumps({"enum": ["x" * 50] * 3000}), "characters; 131072 are allowed"),
    ],
)
async def test_what_is_wrong_is_said(kind: GrammarKind, text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        await compiler().compile(GrammarSource(kind, text))
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 600


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 99999989},
        {"type": "string", "allOf": [{"pattern": f"a{{{i},}}b.*c{{{i}}}"} for i in range(1, 40)]},
    ],
    ids=["multipleOf", "allOf"],
)
async def test_what_would_take_for_ever_is_refused_and_nothing_waits_for_it(schema: dict[str, Any]) -> None:
    shared = compiler()
    hostile = asyncio.create_task(shared.compile(GrammarSource(SCHEMA, json.dumps(schema))))
    await shared.compile(GrammarSource(REGEX, "a+"))
    with pytest.raises(InvalidRequest, match="more than 2 s or 512 MiB"):
        await hostile


async def test_deep_but_bounded_schemas_are_served() -> None:
    await compiler().compile(GrammarSource(SCHEMA, json.dumps(nested(50))))


async def test_a_model_without_an_end_token_follows_no_grammar() -> None:
    with pytest.raises(InvalidRequest, match="no end token"):
        await compiler(ascii_tokenizer(end=None)).compile(GrammarSource(REGEX, "a+"))


async def test_a_grammar_is_compiled_once_for_all_who_ask() -> None:
    shared, source = compiler(), GrammarSource(REGEX, "a+")
    impatient = asyncio.create_task(shared.compile(source))
    others = [asyncio.create_task(shared.compile(source)) for _ in range(3)]
    await asyncio.sleep(0)
    impatient.cancel()
    grammars = await asyncio.gather(*others, shared.compile(source))
    assert len(set(grammars)) == 1
    assert await shared.compile(GrammarSource(REGEX, "b+")) is not grammars[0]


async def test_the_least_recently_used_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_compiler, "MAX_GRAMMARS", 2)
    shared = compiler()
    a, b, c = (GrammarSource(REGEX, letter) for letter in "abc")
    first, second = await shared.compile(a), await shared.compile(b)
    assert await shared.compile(a) is first
    await shared.compile(c)
    assert await shared.compile(a) is first
    assert await shared.compile(b) is not second


async def test_a_grammar_that_failed_is_compiled_anew() -> None:
    shared, source = compiler(), GrammarSource(REGEX, EXHAUSTING)
    grammar = await shared.compile(source)
    matcher = Matcher(grammar)
    while matcher.error is None:
        matcher.mask()
        matcher.advance(0)
    assert "too many expressions" in matcher.error
    assert await shared.compile(source) is not grammar
