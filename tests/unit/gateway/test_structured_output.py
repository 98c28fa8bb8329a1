"""`response_format` and `structured_outputs`: what reaches the worker and what is refused."""

import json
import re
from typing import Any

import openai
import pydantic
import pytest

from carpool.errors import InvalidRequest
from carpool.worker.protocol import Grammar
from tests.unit.gateway.serving import CHAT_PATH, Service, chat, events

COMPLETION_PATH = "/v1/completions"
SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}}


def schema_format(**fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, **fields}}


def complete(**fields: Any) -> dict[str, Any]:
    return {"model": "parrot", "prompt": "hello", **fields}


async def grammar_of(path: str, body: dict[str, Any]) -> Grammar | None:
    service = Service()
    async with service.http() as http:
        reply = await http.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return service.client.generates[0].grammar


@pytest.mark.parametrize(("path", "ask"), [(CHAT_PATH, chat), (COMPLETION_PATH, complete)])
async def test_each_form_becomes_a_grammar(path: str, ask: Any) -> None:
    field = "response_format.json_schema.schema"
    found = await grammar_of(path, ask(response_format=schema_format(strict=True, description="A thing.")))
    assert found is not None
    assert (found.kind, found.field) == ("json_schema", field)
    assert list(json.loads(found.text)["properties"]) == ["b", "a"], "the order is the client's"
    assert await grammar_of(path, ask(response_format=schema_format(strict=False))) == found
    for any_object in ({"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "any"}}):
        grammar = await grammar_of(path, ask(response_format=any_object))
        assert grammar is not None
        assert (grammar.kind, json.loads(grammar.text)) == ("json_schema", {"type": "object"})
    for nothing in (None, {"type": "text"}):
        assert await grammar_of(path, ask(response_format=nothing, structured_outputs=None)) is None


@pytest.mark.parametrize(
    ("structured", "kind", "text"),
    [
        ({"json": {"type": "string"}}, "json_schema", '{"type": "string"}'),
        ({"json": '{"type":"string"}'}, "json_schema", '{"type":"string"}'),
        ({"json_object": True}, "json_schema", '{"type":"object"}'),
        ({"regex": r"\d+"}, "regex", r"\d+"),
        ({"grammar": 'start: "a"'}, "lark", 'start: "a"'),
        ({"choice": ["yes", "no"], "json": None, "json_object": False}, "regex", "yes|no"),
    ],
)
async def test_vllms_field(structured: dict[str, Any], kind: str, text: str) -> None:
    grammar = await grammar_of(CHAT_PATH, chat(structured_outputs=structured))
    assert grammar is not None
    assert grammar.kind == kind
    assert grammar.text.replace(" ", "") == text.replace(" ", "")
    assert grammar.field == f"structured_outputs.{next(iter(structured))}"


async def test_choices_are_taken_by_the_letter() -> None:
    choices = ["".join(map(chr, range(32, 127))), "a|b", "(", "\\d", "é\n\U0001f600"]
    grammar = await grammar_of(CHAT_PATH, chat(structured_outputs={"choice": choices}))
    assert grammar is not None
    for choice in choices:
        assert re.fullmatch(grammar.text, choice)
    assert not re.fullmatch(grammar.text, "a")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name"),
        ({"response_format": schema_format(name="a b")}, "response_format.json_schema.name"),
        ({"response_format": schema_format(schema=[1])}, "response_format.json_schema.schema"),
        ({"response_format": schema_format(schema=True)}, "response_format.json_schema.schema"),
        ({"response_format": schema_format(strict="yes")}, "response_format.json_schema.strict"),
        ({"response_format": schema_format(mood=1)}, "response_format.json_schema.mood"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"choice": [""]}}, "structured_outputs.choice[0]"),
        ({"structured_outputs": {"choice": "yes"}}, "structured_outputs.choice"),
        ({"structured_outputs": {"json": "type: string"}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": 5}}, "structured_outputs.json"),
        ({"structured_outputs": {"whitespace_pattern": " "}}, "structured_outputs.whitespace_pattern"),
        (
            {"structured_outputs": {"choice": ["a"]}, "response_format": {"type": "json_object"}},
            "structured_outputs",
        ),
    ],
)
async def test_what_contradicts_itself_is_refused(fields: dict[str, Any], param: str) -> None:
    service = Service()
    async with service.http() as http:
        for path, body in ((CHAT_PATH, chat(**fields)), (COMPLETION_PATH, complete(**fields))):
            reply = await http.post(path, json=body)
            assert reply.status_code == 400
            assert reply.json()["error"]["param"] == param
    assert not service.client.generates


async def test_a_schema_nested_beyond_measure_is_refused() -> None:
    body = json.dumps(chat(response_format=schema_format())).replace(
        '"integer"', "[" * 100_000 + "]" * 100_000
    )
    async with Service().http() as http:
        reply = await http.post(CHAT_PATH, content=body)
    assert reply.status_code == 400
    assert "nested too deeply" in reply.json()["error"]["message"]


@pytest.mark.parametrize("with_tools", [False, True])
@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("{bad", "is not valid JSON"),
        ('{"a": 1} {', "is not valid JSON"),
        ('{"a": 1e999}', "is not valid JSON"),
        ("[1]", "must be a JSON schema"),
        ('{"a":' * 65 + "{}" + "}" * 65, "nested more than 64 levels deep"),
        ('{"a":' * 100_000 + "{}" + "}" * 100_000, "nested more than 64 levels deep"),
    ],
)
async def test_the_text_of_a_schema_is_read_before_it_goes_on(
    schema: str, reason: str, with_tools: bool
) -> None:
    field = "response_format.json_schema.schema"
    tools = [{"type": "function", "function": {"name": "look"}}] if with_tools else None
    service = Service()
    async with service.http() as http:
        reply = await http.post(
            CHAT_PATH, json=chat(tools=tools, response_format=schema_format(schema=schema))
        )
    assert reply.status_code == 400, reply.text
    assert reason in reply.json()["error"]["message"]
    assert reply.json()["error"]["param"] == field
    assert not service.client.generates


async def test_the_workers_reason_reaches_the_client() -> None:
    service = Service()
    service.client.refusal = InvalidRequest("Invalid type: foo", param="structured_outputs.json")
    async with service.http() as http:
        for stream in (False, True):
            body = chat(structured_outputs={"json": {"type": "foo"}}, stream=stream)
            reply = await http.post(CHAT_PATH, json=body)
            assert reply.status_code == 400
            assert reply.json()["error"] == {
                "message": "Invalid type: foo",
                "type": "invalid_request_error",
                "param": "structured_outputs.json",
                "code": "invalid_request",
            }


async def test_the_cache_keeps_forms_apart() -> None:
    forms: list[dict[str, Any]] = [
        {},
        {"response_format": {"type": "json_object"}},
        {"response_format": schema_format()},
        {"response_format": schema_format(schema={"type": "object"})},
        {"structured_outputs": {"regex": "a+"}},
        {"structured_outputs": {"choice": ["a+"]}},
        {"structured_outputs": {"grammar": "a+"}},
    ]
    service = Service(cached=True)
    async with service.http() as http:
        for expected in ("miss", "exact"):
            outcomes = [
                (await http.post(CHAT_PATH, json=chat(**form))).headers["x-carpool-cache"] for form in forms
            ]
            assert outcomes == [expected] * len(forms)
        same = await http.post(CHAT_PATH, json=chat(response_format={"type": "text"}))
        assert same.headers["x-carpool-cache"] == "exact"


class Thing(pydantic.BaseModel):
    name: str
    sizes: list[int]


async def test_the_official_clients_parse() -> None:
    text = '{"name": "lamp", "sizes": [1, 2]}'
    service = Service()
    async with (
        service.listening() as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        whole = await client.chat.completions.parse(
            model="parrot", messages=[{"role": "user", "content": text}], response_format=Thing
        )
        assert whole.choices[0].message.parsed == Thing(name="lamp", sizes=[1, 2])
        async with client.chat.completions.stream(
            model="parrot", messages=[{"role": "user", "content": text}], response_format=Thing
        ) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.parsed == whole.choices[0].message.parsed
    for generate in service.client.generates:
        assert generate.grammar is not None
        assert json.loads(generate.grammar.text)["required"] == ["name", "sizes"]


async def test_a_stream_with_a_grammar_is_a_stream() -> None:
    async with Service().http() as http:
        reply = await http.post(
            CHAT_PATH, json=chat("yes", structured_outputs={"choice": ["yes"]}, stream=True)
        )
    assert reply.status_code == 200
    assert events(reply.text)[-1] == "[DONE]"
