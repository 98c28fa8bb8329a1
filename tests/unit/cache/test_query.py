import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.cache.config import CacheConfig, Mode
from carpool.cache.query import Query, chat_query, completion_query, resolve_mode
from tests.unit.cache.bag_of_words import ask

CONFIG = CacheConfig()

# Few letters and short texts, so that different requests are often alike and their parts run into each other.
text = st.text("ab\x00\x01", max_size=3)
value = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from([0.0, 1.0, 0.5]) | text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=4,
)
part = st.fixed_dictionaries({"type": st.sampled_from(["text", "a"]), "text": text})
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant"]), "content": text | st.lists(part, max_size=2)},
    optional={"name": st.none() | text},
)
request = st.fixed_dictionaries(
    {
        "messages": st.lists(message, max_size=3),
        "tenant": text,
        "model": text,
        "revision": text,
        "parameters": st.dictionaries(text, value, max_size=2),
    },
    optional={"tools": st.none() | st.lists(value, max_size=1), "user": st.none() | text},
)


def plain(fields: dict[str, Any]) -> dict[str, Any]:
    """The request in the only form that another request may share with it."""
    messages = [{k: v for k, v in message.items() if v is not None} for message in fields["messages"]]
    if messages and messages[-1]["role"] == "user":
        content = messages[-1]["content"]
        if isinstance(content, list) and len(content) == 1 and content[0]["type"] == "text":
            messages[-1]["content"] = content[0]["text"]
    return {
        **fields,
        "messages": messages,
        "parameters": {k: v for k, v in fields["parameters"].items() if v is not None},
        "tools": fields.get("tools"),
        "user": fields.get("user"),
    }


def dump(value: object) -> str:
    return json.dumps(value, sort_keys=True)


@given(request, request)
def test_digests_are_equal_exactly_if_the_requests_are(a: dict[str, Any], b: dict[str, Any]) -> None:
    first, second = chat_query(CONFIG, **a), chat_query(CONFIG, **b)
    same = dump(plain(a)) == dump(plain(b))
    assert (first.exact == second.exact) == same
    if same:
        assert first.partition == second.partition


@given(request, text, text)
def test_only_the_last_turn_is_outside_of_the_partition(fields: dict[str, Any], a: str, b: str) -> None:
    def with_turn(turn: str) -> Query:
        return chat_query(
            CONFIG, **{**fields, "messages": [*fields["messages"], {"role": "user", "content": turn}]}
        )

    assert with_turn(a).partition == with_turn(b).partition
    assert (with_turn(a).exact == with_turn(b).exact) == (a == b)


BASE: dict[str, Any] = {
    "tenant": "t",
    "model": "m",
    "revision": "1",
    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "How do bees fly?"}],
    "parameters": {"top_p": 0.9, "stop": ["x"], "logit_bias": {1: 2.0}},
    "temperature": 0.1,
}


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": "u"},
        {"tenant": "tm", "model": ""},
        {"model": "n"},
        {"revision": "2"},
        {"user": "ann"},
        {"temperature": None},
        {"temperature": 0.2},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"parameters": {"top_p": 0.9, "stop": "x", "logit_bias": {1: 2.0}}},
        {"parameters": {"top_p": 0.9, "stop": ["x"], "logit_bias": {1: 2.5}}},
        {"parameters": {"top_p": 0.9, "stop": ["x"], "logit_bias": {1: 2.0}, "seed": 0}},
        {
            "parameters": {
                "top_p": 0.9,
                "stop": ["x"],
                "logit_bias": {1: 2.0},
                "response_format": {"type": "j"},
            }
        },
        {"messages": [{"role": "user", "content": "How do bees fly?"}]},
        {"messages": [{"role": "system", "content": "sHow do bees"}, {"role": "user", "content": " fly?"}]},
        {
            "messages": [
                {"role": "developer", "content": "s"},
                {"role": "user", "content": "How do bees fly?"},
            ]
        },
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "How do bees fly?", "name": "ann"},
            ]
        },
    ],
)
def test_whatever_changes_the_answer_is_another_partition(change: dict[str, Any]) -> None:
    assert chat_query(CONFIG, **BASE).partition != chat_query(CONFIG, **{**BASE, **change}).partition


def test_what_does_not_change_the_answer_is_not_part_of_a_digest() -> None:
    base = chat_query(CONFIG, **BASE)
    for same in (
        {"max_tokens": 7},
        {"no_store": True},
        {"parameters": {**BASE["parameters"], "seed": None}},
        {"parameters": dict(reversed(BASE["parameters"].items()))},
    ):
        query = chat_query(CONFIG, **{**BASE, **same})
        assert (query.partition, query.exact) == (base.partition, base.exact)


def test_a_chat_and_a_completion_never_share() -> None:
    fields: dict[str, Any] = {"tenant": "t", "model": "m", "revision": "1", "parameters": {}}
    chat = chat_query(CONFIG, messages=[{"role": "user", "content": "Bees fly"}], **fields)
    texts = completion_query(CONFIG, prompt="Bees fly", **fields)
    ids = completion_query(CONFIG, prompt=[1, 2], **fields)
    assert len({chat.partition, texts.partition}) == 2
    assert len({chat.exact, texts.exact, ids.exact}) == 3
    assert (texts.turn, ids.turn) == ("Bees fly", None)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function"}]},
        {"requested": "exact"},
        {"mode": "exact"},
        {"messages": [{"role": "user", "content": "What is new today?"}]},
        {"messages": [{"role": "user", "content": "word " * 81}]},
        {"messages": [{"role": "user", "content": "?!"}]},
        {"messages": [{"role": "user", "content": "Hello there"}, {"role": "assistant", "content": "Hi, I"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]},
        {"messages": []},
    ],
)
def test_exact_only(fields: dict[str, Any]) -> None:
    query = chat_query(CONFIG, **{**BASE, **fields})
    assert query.mode != "off"
    assert query.turn is None


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"logprobs": True},
        {"n": 2, "requested": "on"},
        {"temperature": 0.7},
        {"mode": "opt-in"},
        {"mode": "off", "requested": "on"},
        {"requested": "off"},
        {"parameters": {"seed": 2**70}},
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"parameters": {"x": object()}},
    ],
)
def test_bypass(fields: dict[str, Any]) -> None:
    query = chat_query(CONFIG, **{**BASE, **fields})
    assert (query.mode, query.turn) == ("off", None)


def test_a_high_temperature_is_cached_only_for_those_who_ask() -> None:
    assert ask("How do bees fly?", temperature=0.7).mode == "off"
    assert ask("How do bees fly?", temperature=0.7, requested="on").turn == "How do bees fly?"
    assert ask("How do bees fly?", temperature=0.3).turn == "How do bees fly?"
    assert ask("How do bees fly?").turn == "How do bees fly?"


@pytest.mark.parametrize(
    ("configured", "requested", "resolved"),
    [
        ("on", None, "on"),
        ("on", "exact", "exact"),
        ("on", "off", "off"),
        ("exact", None, "exact"),
        ("exact", "on", "exact"),
        ("opt-in", None, "off"),
        ("opt-in", "on", "on"),
        ("opt-in", "exact", "exact"),
        ("off", "on", "off"),
        ("on", "opt-in", "off"),
    ],
)
def test_a_request_may_only_narrow_what_is_configured(
    configured: Mode, requested: Mode | None, resolved: Mode
) -> None:
    assert resolve_mode(configured, requested) == resolved
