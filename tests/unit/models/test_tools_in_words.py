"""Tools told in words, for models whose template does not teach the form of calls."""

from typing import Any

from carpool.models.tools_in_words import in_words

WEATHER = {"type": "function", "function": {"name": "weather", "description": "It's 20 °C"}}
USER = {"role": "user", "content": "Is it warm?"}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_the_tools_join_the_system_message_or_are_one() -> None:
    system = {"role": "system", "content": "Be brief."}
    first, second = in_words([system, USER], [WEATHER])
    assert first["role"] == "system"
    assert first["content"].startswith("Be brief.\n\n# Tools\n")
    line = '{"type": "function", "function": {"name": "weather", "description": "It\'s 20 °C"}}'
    assert f"\n<tools>\n{line}\n</tools>\n" in first["content"]
    assert second == USER
    alone, same = in_words([USER], [WEATHER])
    assert alone == {"role": "system", "content": first["content"].removeprefix("Be brief.\n\n")}
    assert same == USER
    assert system == {"role": "system", "content": "Be brief."}, "what was given is left as it was"


def test_calls_and_results_become_texts() -> None:
    calls = [call("weather", city="Rome"), call("time")]
    messages: list[dict[str, Any]] = [
        USER,
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": "20"},
        {"role": "tool", "tool_call_id": "2", "content": "noon"},
        {"role": "assistant", "content": "Let me look.", "tool_calls": calls[1:]},
        {"role": "tool", "tool_call_id": "3", "content": "one"},
    ]
    rome = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    time = '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'
    assert in_words(messages, None) == [
        USER,
        {"role": "assistant", "content": f"{rome}\n{time}"},
        {
            "role": "user",
            "content": "<tool_response>\n20\n</tool_response>\n<tool_response>\nnoon\n</tool_response>",
        },
        {"role": "assistant", "content": f"Let me look.\n{time}"},
        {"role": "user", "content": "<tool_response>\none\n</tool_response>"},
    ]
