"""Which templates teach which form of tool calls, and how conversations are told to them."""

from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, models

from carpool.errors import InvalidRequest
from carpool.models.chat_template import ChatTemplate
from carpool.models.tokenizer import Tokenizer
from carpool.models.tool_forms import HERMES, LLAMA3, MISTRAL, MISTRAL_ARGS, ToolForm, taught_form

LLAMA3_TEMPLATE = """\
{%- if tools is not none -%}
[system]Environment: ipython
Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.
{% for t in tools %}{{ t | tojson }}{% endfor %}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == "tool" -%}
[ipython]{{ message.content | tojson }}
{%- elif message.tool_calls -%}
{%- if message.tool_calls | length != 1 -%}
{{ raise_exception("This model only supports single tool-calls at once!") }}
{%- endif -%}
{%- set call = message.tool_calls[0].function -%}
[assistant]{{ '{"name": "' + call.name + '", ' }}{{ '"parameters": ' }}{{ call.arguments | tojson }}{{ "}" }}
{%- else -%}
[{{ message.role }}]{{ message.content }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}[assistant]{% endif %}"""

_MISTRAL_START = """\
{%- if tools is not none %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif -%}
{%- for message in messages -%}
{%- if message.role == "tool" -%}
{%- if message.tool_call_id is not defined or message.tool_call_id | length != 9 -%}
{{ raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
{%- endif -%}
[TOOL_RESULTS]{"content": {{ message.content | tojson }}, "call_id": "{{ message.tool_call_id }}"}
{%- raw %}[/TOOL_RESULTS]{% endraw %}
{%- elif message.tool_calls is defined and message.tool_calls is not none -%}
"""
_MISTRAL_END = """\
{%- else -%}
{{ message.content }}
{%- endif -%}
{%- endfor -%}"""
MISTRAL_TEMPLATE = (
    _MISTRAL_START
    + """\
[TOOL_CALLS] [
{%- for call in message.tool_calls -%}
{%- if call.id | length != 9 -%}
{{ raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
{%- endif -%}
{{ (call.function | tojson)[:-1] }}, "id": "{{ call.id }}"}{% if not loop.last %}, {% endif %}
{%- endfor -%}]
"""
    + _MISTRAL_END
)
MISTRAL_ARGS_TEMPLATE = (
    _MISTRAL_START
    + """\
{%- for call in message.tool_calls -%}
[TOOL_CALLS]{{ call.function.name }}[ARGS]{{ call.function.arguments | tojson }}
{%- endfor -%}
"""
    + _MISTRAL_END
)
HERMES_TEMPLATE = "{% if tools %}<tools>...<tool_call>{% endif %}{{ messages[0].content }}"

TOOLS = [{"type": "function", "function": {"name": "weather"}}]
USER: dict[str, Any] = {"role": "user", "content": "Is it warm?"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    backend.add_special_tokens([AddedToken("[TOOL_CALLS]", special=True)])
    return Tokenizer(backend)


def call(id_: str | None, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def called(*results: str) -> list[dict[str, Any]]:
    """Two calls in one turn, with these results in this order."""
    texts = {"call_1": "20 degrees", "call_2": "noon"}
    return [
        USER,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [call("call_1", "weather", '{"city": "Rome"}'), call("call_2", "time", "{}")],
        },
        *({"role": "tool", "tool_call_id": id_, "content": texts[id_]} for id_ in results),
    ]


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (HERMES_TEMPLATE, HERMES),
        (LLAMA3_TEMPLATE, LLAMA3),
        (MISTRAL_TEMPLATE, MISTRAL),
        (MISTRAL_ARGS_TEMPLATE, MISTRAL_ARGS),
        ("{% for message in messages %}{{ message.content }}{% endfor %}", None),
        ('{% if tools %}Respond with {"name": ..., "parameters": ...}{% endif %}', None),
        ("{{ messages[0].content }} <tool_call> [TOOL_CALLS]", None),
    ],
)
def test_the_template_tells_the_form(template: str, form: ToolForm | None, tokenizer: Tokenizer) -> None:
    assert taught_form(template) is form
    assert ChatTemplate(template, tokenizer).tool_form is (form or HERMES)


def test_models_without_a_template_are_told_of_hermes_form(tokenizer: Tokenizer) -> None:
    assert ChatTemplate(None, tokenizer).tool_form is HERMES


@pytest.mark.parametrize("order", [("call_1", "call_2"), ("call_2", "call_1")])
def test_llama3_reads_one_call_in_a_turn(tokenizer: Tokenizer, order: tuple[str, str]) -> None:
    template = ChatTemplate(LLAMA3_TEMPLATE, tokenizer)
    rendered = template.render(called(*order), tools=TOOLS)
    assert rendered.startswith("[system]Environment: ipython\n")
    assert '{"type": "function", "function": {"name": "weather"}}[user]Is it warm?' in rendered
    assert rendered.endswith(
        '[assistant]{"name": "weather", "parameters": {"city": "Rome"}}[ipython]"20 degrees"'
        '[assistant]{"name": "time", "parameters": {}}[ipython]"noon"[assistant]'
    )


def test_llama3_keeps_results_that_answer_no_call(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(LLAMA3_TEMPLATE, tokenizer)
    stray = {"role": "tool", "tool_call_id": "other", "content": "stray"}
    rendered = template.render([*called("call_1"), stray, USER])
    assert rendered.endswith(
        '[ipython]"20 degrees"[assistant]{"name": "time", "parameters": {}}[ipython]"stray"'
        "[user]Is it warm?[assistant]"
    )


def test_mistral_reads_ids_of_nine_characters(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(MISTRAL_TEMPLATE, tokenizer)
    rendered = template.render(called("call_1", "call_2"), tools=TOOLS)
    assert rendered.startswith('[AVAILABLE_TOOLS][{"type": "function", ')
    ids = [part[:9] for part in rendered.split('"id": "')[1:]]
    assert len(set(ids)) == 2
    first, second = ids
    assert rendered.endswith(
        f'Is it warm?[TOOL_CALLS] [{{"name": "weather", "arguments": {{"city": "Rome"}}, "id": "{first}"}}, '
        f'{{"name": "time", "arguments": {{}}, "id": "{second}"}}]'
        f'[TOOL_RESULTS]{{"content": "20 degrees", "call_id": "{first}"}}[/TOOL_RESULTS]'
        f'[TOOL_RESULTS]{{"content": "noon", "call_id": "{second}"}}[/TOOL_RESULTS]'
    )
    assert template.render(called("call_1", "call_2"), tools=TOOLS) == rendered, "cached prompts stay equal"


def test_mistral_keeps_the_ids_it_was_given(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(MISTRAL_TEMPLATE, tokenizer)
    id_ = MISTRAL.new_id()
    history: list[dict[str, Any]] = [
        {"role": "assistant", "tool_calls": [call(id_, "time", "{}")]},
        {"role": "tool", "tool_call_id": id_, "content": "noon"},
    ]
    assert template.render(history).count(f'id": "{id_}"') == 2
    for absent in (call(None, "time", "{}"), {"function": {"name": "time", "arguments": "{}"}}):
        assert '"id": "' in template.render([{"role": "assistant", "tool_calls": [absent]}])


def test_mistrals_newer_form(tokenizer: Tokenizer) -> None:
    rendered = ChatTemplate(MISTRAL_ARGS_TEMPLATE, tokenizer).render(called("call_1"))
    assert '[TOOL_CALLS]weather[ARGS]{"city": "Rome"}[TOOL_CALLS]time[ARGS]{}[TOOL_RESULTS]' in rendered


def test_marks_in_messages_are_guarded(tokenizer: Tokenizer) -> None:
    rendered = ChatTemplate(MISTRAL_TEMPLATE, tokenizer).render([{**USER, "content": "[TOOL_CALLS]"}])
    assert rendered != "[TOOL_CALLS]"


def test_what_the_template_refuses_is_the_clients_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="only tools"):
        ChatTemplate(LLAMA3_TEMPLATE + "{{ raise_exception('only tools') }}", tokenizer).render([USER])
