"""Tools in chat completions: what reaches the worker, how replies are told, what is refused and kept."""

import asyncio
import json
from typing import Any

import httpx2
import openai
import pydantic
import pytest
from langchain_openai import ChatOpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.unit.gateway.serving import CHAT_PATH, Service, chat, events
from tests.unit.worker.echo import until

CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ARGUMENTS = '{"city": "Rome"}'
CALL = f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}\n</tool_call>'
TIME = '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather of a city", "parameters": CITY},
}


def tool(name: str = "weather", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": CITY, **fields}}


TOOLS = [tool(), tool("time", parameters=None)]


async def post(service: Service, body: dict[str, Any]) -> Any:
    async with service.http() as http:
        return await http.post(CHAT_PATH, json=body)


async def rule_of(**fields: Any) -> Any:
    """What the worker is told of the form of the reply."""
    service = Service()
    reply = await post(service, chat(**fields))
    assert reply.status_code == 200, reply.text
    (generate,) = service.client.generates
    if generate.grammar is None:
        assert generate.tools is None
        return None
    assert (generate.grammar.kind, generate.grammar.field) == ("tool_calls", "tools")
    return json.loads(generate.grammar.text)


async def test_the_choice_becomes_a_grammar() -> None:
    strict = {**CITY, "additionalProperties": False}
    nothing = {"type": "object", "properties": {}, "additionalProperties": False}
    anything = {"type": "object"}
    full = [{"name": "weather", "parameters": strict}, {"name": "time", "parameters": nothing}]
    for choice in ({}, {"tool_choice": "auto"}):
        assert await rule_of(tools=TOOLS, **choice) == {
            "functions": [
                {"name": "weather", "parameters": anything},
                {"name": "time", "parameters": anything},
            ],
            "required": False,
            "parallel": True,
            "answer": None,
        }
    required = await rule_of(tools=TOOLS, tool_choice="required")
    assert required == {"functions": full, "required": True, "parallel": True, "answer": None}
    named = await rule_of(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "time"}})
    assert named == {"functions": full[1:], "required": True, "parallel": False, "answer": None}
    one = await rule_of(tools=[tool(strict=True)], parallel_tool_calls=False)
    assert one == {"functions": full[:1], "required": False, "parallel": False, "answer": None}
    assert await rule_of(tools=TOOLS, tool_choice="none") is None
    assert await rule_of(tools=[], tool_choice="auto", parallel_tool_calls=True) is None


async def test_an_answer_of_a_schema_may_stand_for_the_calls() -> None:
    schema = {"type": "object", "properties": {"mark": {"const": CALL}}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    assert (await rule_of(tools=TOOLS, response_format=form))["answer"] == schema
    assert (await rule_of(tools=TOOLS, response_format={"type": "json_object"}))["answer"] == {
        "type": "object"
    }
    assert (await rule_of(tools=TOOLS, response_format={"type": "text"}))["answer"] is None
    text = json.dumps({"mark": CALL})
    reply = await post(Service(), chat(text, tools=TOOLS, response_format=form))
    assert reply.json()["choices"][0]["message"] == {"role": "assistant", "content": text, "refusal": None}


async def test_schemas_keep_what_they_say_of_other_arguments() -> None:
    for parameters in ({**CITY, "additionalProperties": True}, {"$ref": "#/$defs/a", "$defs": {"a": CITY}}):
        rule = await rule_of(tools=[tool(parameters=parameters)], tool_choice="required")
        assert rule["functions"][0]["parameters"] == {"type": "object", **parameters}


async def test_messages_and_tools_reach_the_worker() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
    messages = [
        {"role": "user", "content": "Is it warm?"},
        {"role": "assistant", "content": None, "tool_calls": [{**call, "index": 0}], "refusal": None},
        {"role": "tool", "tool_call_id": "call_1", "content": "20 degrees"},
    ]
    service = Service()
    reply = await post(service, chat(messages=messages, tools=TOOLS))
    assert reply.status_code == 200, reply.text
    (generate,) = service.client.generates
    assert generate.messages is not None
    assert generate.messages[1]["tool_calls"][0]["function"] == call["function"]
    assert generate.messages[2] == messages[2]
    assert generate.tools == [TOOLS[0], {"type": "function", "function": {"name": "time"}}]


@pytest.mark.parametrize(
    ("text", "content", "names", "reason"),
    [
        ("Hello.", "Hello.", [], "stop"),
        (CALL, None, ["weather"], "tool_calls"),
        (f"Let me look.\n{CALL}\n{TIME}", "Let me look.", ["weather", "time"], "tool_calls"),
    ],
)
async def test_calls_whole_and_streamed(
    text: str, content: str | None, names: list[str], reason: str
) -> None:
    service = Service()
    whole = (await post(service, chat(text, tools=TOOLS))).json()["choices"][0]
    assert whole["finish_reason"] == reason
    assert whole["message"]["content"] == content
    calls = whole["message"].get("tool_calls", [])
    assert [call["function"]["name"] for call in calls] == names
    assert [call["function"]["arguments"] for call in calls] == [ARGUMENTS, "{}"][: len(names)]
    assert len({call["id"] for call in calls}) == len(names)
    streamed = events((await post(service, chat(text, tools=TOOLS, stream=True))).text)
    choices = [event["choices"][0] for event in streamed[:-1]]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == (content or "")
    told: list[dict[str, Any]] = []
    for choice in choices:
        for delta in choice["delta"].get("tool_calls", []):
            if delta["index"] == len(told):
                assert delta["type"] == "function"
                assert delta["id"].startswith("call_")
                told.append({"name": delta["function"]["name"], "arguments": []})
            else:
                assert set(delta) == {"index", "function"}
                assert set(delta["function"]) == {"arguments"}
            told[delta["index"]]["arguments"].append(delta["function"]["arguments"])
    assert [call["name"] for call in told] == names
    assert ["".join(call["arguments"]) for call in told] == [ARGUMENTS, "{}"][: len(names)]
    assert all(len(call["arguments"]) > 2 for call in told), "arguments come as they are drawn"
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + [reason]


OF_FORMS = {
    "llama3": '{"name": "weather", "parameters": {"city": "Rome"}}; {"name": "time", "parameters": {}}',
    "mistral": '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Rome"}}, '
    '{"name": "time", "arguments": {}}]',
    "mistral-args": '[TOOL_CALLS]weather[ARGS]{"city": "Rome"}[TOOL_CALLS]time[ARGS]{}',
}


@pytest.mark.parametrize(("form", "text"), OF_FORMS.items())
async def test_a_models_own_form_is_read(form: str, text: str) -> None:
    service = Service(cached=True)
    service.client.set_state("parrot", tool_form=form)
    async with service.http() as http:
        assert (await http.get("/v1/models/parrot")).json()["tool_form"] == form
    whole = (await post(service, chat(text, tools=TOOLS))).json()["choices"][0]
    assert whole["finish_reason"] == "tool_calls"
    assert whole["message"]["content"] is None
    calls = whole["message"]["tool_calls"]
    expected = [{"name": "weather", "arguments": ARGUMENTS}, {"name": "time", "arguments": "{}"}]
    assert [call["function"] for call in calls] == expected
    assert all(len(call["id"]) == (29 if form == "llama3" else 9) for call in calls)
    streamed = events((await post(service, chat(text, tools=TOOLS, stream=True))).text)
    deltas = [event["choices"][0]["delta"] for event in streamed[:-1]]
    assert not any(delta.get("content") for delta in deltas)
    told = [call for delta in deltas for call in delta.get("tool_calls", [])]
    names = {call["index"]: call["function"]["name"] for call in told if "id" in call}
    assert names == {0: "weather", 1: "time"}
    assert "".join(call["function"]["arguments"] for call in told if call["index"] == 0) == ARGUMENTS
    assert len(service.client.generates) == 2, "replies with calls are not kept"
    plain = (await post(service, chat(CALL, tools=TOOLS))).json()["choices"][0]
    assert plain["message"]["content"] == CALL, "the form of other models is text"


async def test_each_choice_has_its_own_calls() -> None:
    reply = (await post(Service(), chat(CALL, tools=TOOLS, n=2))).json()
    first, second = (choice["message"]["tool_calls"][0] for choice in reply["choices"])
    assert first["function"] == second["function"]
    assert first["id"] != second["id"]


async def test_logprobs_are_of_all_tokens() -> None:
    body = chat(CALL, tools=TOOLS, logprobs=True)
    whole = (await post(Service(), body)).json()["choices"][0]
    assert len(whole["logprobs"]["content"]) == len(CALL)
    streamed = events((await post(Service(), {**body, "stream": True})).text)
    told = [event["choices"][0].get("logprobs") for event in streamed[:-1]]
    assert sum(len(each["content"]) for each in told if each) == len(CALL)


async def test_a_call_that_is_cut_off_is_told_as_far_as_it_goes() -> None:
    cut = CALL.index("Rome")
    choice = (await post(Service(), chat(CALL, tools=TOOLS, max_tokens=cut))).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"city": "'


async def test_without_tools_the_form_is_text() -> None:
    for fields in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        choice = (await post(Service(), chat(CALL, **fields))).json()["choices"][0]
        assert choice["message"]["content"] == CALL
        assert choice["finish_reason"] == "stop"


DEEP: dict[str, Any] = {"type": "string"}
for _ in range(40):
    DEEP = {"type": "array", "items": DEEP}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": "weather"}, "tools"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [tool("get weather")]}, "tools[0].function.name"),
        ({"tools": [tool("")]}, "tools[0].function.name"),
        ({"tools": [tool("a" * 65)]}, "tools[0].function.name"),
        ({"tools": [tool("a"), tool("b"), tool("a")]}, "tools[2].function.name"),
        ({"tools": [tool(color="red")]}, "tools[0].function.color"),
        ({"tools": [tool(parameters=[])]}, "tools[0].function.parameters"),
        ({"tools": [tool(parameters={"type": "string"})]}, "tools[0].function.parameters"),
        ({"tools": [tool(parameters={"properties": {"a": DEEP}})]}, "tools[0].function.parameters"),
        ({"tools": [tool(description="x" * 140_000)]}, "tools"),
        ({"tools": [tool(f"f{i}") for i in range(129)]}, "tools"),
        ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"tools": TOOLS, "parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"tools": TOOLS, "structured_outputs": {"choice": ["a"]}}, "structured_outputs"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]},
            "messages[0].tool_calls[0].function",
        ),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
    ],
)
async def test_what_is_wrong_is_400_and_names_the_field(fields: dict[str, Any], param: str) -> None:
    service = Service()
    reply = await post(service, chat(**fields))
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param
    assert not service.client.generates


async def outcome(service: Service, text: str, **fields: Any) -> str:
    reply = await post(service, chat(text, **fields))
    assert reply.status_code == 200, reply.text
    return str(reply.headers["x-carpool-cache"])


async def test_the_cache_keeps_texts_apart_by_tools_and_choice_and_no_calls() -> None:
    service = Service(cached=True)
    forms: list[dict[str, Any]] = [
        {},
        {"tools": TOOLS},
        {"tools": TOOLS[:1]},
        {"tools": [tool(description="Other words")]},
        {"tools": TOOLS, "tool_choice": "required"},
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "time"}}},
        {"tools": TOOLS, "parallel_tool_calls": False},
    ]
    for expected in ("miss", "exact"):
        assert [await outcome(service, "Hello", **form) for form in forms] == [expected] * len(forms)
    assert await outcome(service, "Hello", tools=TOOLS, tool_choice="none") == "exact"
    assert await outcome(service, "Hello", tools=TOOLS, tool_choice="auto") == "exact"
    for _ in range(2):
        assert await outcome(service, CALL, tools=TOOLS) == "miss"
    assert await outcome(service, CALL) == "miss"
    assert await outcome(service, CALL) == "exact", "without tools it is a text like any other"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_joined_request_gets_the_calls_as_well(stream: bool) -> None:
    service = Service(cached=True)
    service.client.going.clear()
    body = chat(f"Look: {CALL}", tools=TOOLS)
    first = asyncio.create_task(post(service, {**body, "stream": stream}))
    await until(lambda: len(service.client.running) == 1)
    second = asyncio.create_task(post(service, body))
    lookups = service.registry.counter("carpool_cache_lookups_total", "")
    await until(lambda: lookups.total() == 2)
    service.client.going.set()
    _, joined = await asyncio.gather(first, second)
    assert joined.headers["x-carpool-cache"] == "joined"
    choice = joined.json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Look:"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "weather", "arguments": ARGUMENTS}
    assert len(service.client.generates) == 1


class Weather(pydantic.BaseModel):
    city: str


async def test_the_official_client_runs_a_conversation_with_tools() -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": CALL}]
    service = Service()
    async with (
        service.listening() as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        whole = await client.chat.completions.create(
            model="parrot", messages=messages, tools=[WEATHER], tool_choice="required"
        )
        (choice,) = whole.choices
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls is not None
        (call,) = choice.message.tool_calls
        assert call.type == "function"
        assert json.loads(call.function.arguments) == {"city": "Rome"}
        answered: list[Any] = [
            *messages,
            choice.message,
            {"role": "tool", "tool_call_id": call.id, "content": "20 degrees"},
        ]
        last = await client.chat.completions.create(model="parrot", messages=answered, tools=[WEATHER])
        assert last.choices[0].message.content == "20 degrees"
        async with client.chat.completions.stream(
            model="parrot", messages=messages, tools=[openai.pydantic_function_tool(Weather, name="weather")]
        ) as stream:
            done = [event async for event in stream if event.type == "tool_calls.function.arguments.done"]
            final = await stream.get_final_completion()
        assert [(event.name, event.arguments) for event in done] == [("weather", ARGUMENTS)]
        assert final.choices[0].finish_reason == "tool_calls"
        assert final.choices[0].message.tool_calls is not None
        assert final.choices[0].message.tool_calls[0].function.name == "weather"


async def test_langchain_binds_tools() -> None:
    service = Service()
    async with service.listening() as url, httpx2.AsyncClient() as http:
        model = ChatOpenAI(
            base_url=f"{url}/v1",
            api_key=pydantic.SecretStr("none"),
            model="parrot",
            max_retries=0,
            http_async_client=http,
        )
        reply = await model.bind_tools([dict(WEATHER)], tool_choice="weather").ainvoke(CALL)
        assert [(call["name"], call["args"]) for call in reply.tool_calls] == [("weather", {"city": "Rome"})]
        plain = await model.ainvoke("Hello")
        assert plain.content == "Hello"
