"""Tool calls of the real model: a small one, so what it calls is held to its form by the grammar alone."""

import json
from typing import Annotated, Any, Literal

import openai
import pydantic
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.server import Server

MODEL = "smollm2-135m-instruct"


class GetWeather(pydantic.BaseModel):
    """The weather of a city."""

    model_config = pydantic.ConfigDict(extra="forbid")
    city: Annotated[str, pydantic.Field(max_length=20)]
    unit: Literal["celsius", "fahrenheit"]
    days: Annotated[int, pydantic.Field(ge=1, le=7)]


def test_required_calls_match_the_schema_whole_and_streamed(server: Server) -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "What is the weather in Paris? Use celsius."}
    ]
    tool = openai.pydantic_function_tool(GetWeather, name="get_weather")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        whole = client.chat.completions.create(
            model=MODEL,
            messages=messages,
            tools=[tool],
            tool_choice="required",
            parallel_tool_calls=False,
            temperature=0,
            max_tokens=120,
        )
        (choice,) = whole.choices
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls is not None
        (call,) = choice.message.tool_calls
        assert call.type == "function"
        assert call.function.name == "get_weather"
        GetWeather.model_validate_json(call.function.arguments)

        conversation: list[Any] = [
            *messages,
            choice.message,
            {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21}'},
        ]
        answered = client.chat.completions.create(
            model=MODEL,
            messages=conversation,
            tools=[tool],
            tool_choice="auto",
            temperature=0,
            max_tokens=16,
        )
        assert answered.choices[0].message.content or answered.choices[0].message.tool_calls

        with client.chat.completions.stream(
            model=MODEL,
            messages=messages,
            tools=[tool],
            tool_choice={"type": "function", "function": {"name": "get_weather"}},
            temperature=0,
            max_tokens=120,
        ) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].finish_reason == "tool_calls"
        assert final.choices[0].message.tool_calls is not None
        arguments = json.loads(final.choices[0].message.tool_calls[0].function.arguments)
        GetWeather.model_validate(arguments)
        assert arguments == json.loads(call.function.arguments)
