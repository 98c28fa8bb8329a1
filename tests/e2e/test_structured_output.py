"""Answers of a given form from the running server: the official client and plain HTTP."""

import json
import re
from typing import Annotated, Literal

import openai
import pydantic
import pytest

from tests.e2e.server import Server

MODEL = "smollm2-135m-instruct"


def connect(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


class City(pydantic.BaseModel):
    city: Literal["Paris", "Rome", "Berlin"]
    population_millions: Annotated[int, pydantic.Field(ge=0, le=99)]


def test_the_official_client_parses_a_pydantic_model(server: Server) -> None:
    with connect(server) as client:
        completion = client.chat.completions.parse(
            model=MODEL,
            messages=[{"role": "user", "content": "Name the capital of France. Answer as JSON."}],
            response_format=City,
            temperature=0,
            max_tokens=100,
        )
    choice = completion.choices[0]
    assert choice.finish_reason == "stop"
    assert isinstance(choice.message.parsed, City)


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Is the sky blue?"}]}),
        ("/v1/completions", {"prompt": "Is the sky blue?"}),
    ],
)
@pytest.mark.parametrize(
    ("structured", "pattern"),
    [({"choice": ["yes", "no"]}, "yes|no"), ({"regex": r"\d{2}:\d{2}"}, r"\d{2}:\d{2}")],
)
def test_choice_and_regex_whole_and_streamed(
    server: Server, path: str, prompt: dict[str, object], structured: dict[str, object], pattern: str
) -> None:
    body = {"model": MODEL, **prompt, "structured_outputs": structured, "temperature": 0}
    with server.client() as client:
        reply = client.post(path, json=body)
        assert reply.status_code == 200, reply.text
        choice = reply.json()["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        assert re.fullmatch(pattern, text)
        assert choice["finish_reason"] == "stop"
        streamed = client.post(path, json={**body, "stream": True, "carpool": {"cache": "off"}})
        chunks = [json.loads(line[6:]) for line in streamed.text.split("\n\n") if line.startswith("data: {")]
        choices = [chunk["choices"][0] for chunk in chunks]
        pieces = [each["delta"].get("content") or "" if "delta" in each else each["text"] for each in choices]
        assert "".join(pieces) == text
        assert choices[-1]["finish_reason"] == "stop"


def test_an_invalid_schema_is_400_with_the_reason(server: Server) -> None:
    schema: dict[str, object] = {"type": "object", "properties": {"a": {"type": "strin"}}}
    with connect(server) as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hello"}],
            response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
        )
    assert "Invalid type: strin" in caught.value.message
    assert caught.value.param == "response_format.json_schema.schema"
