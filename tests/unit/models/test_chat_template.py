import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, models

from carpool.errors import InvalidRequest, ModelFailed
from carpool.models.chat_template import ChatTemplate, read_chat_template
from carpool.models.open import open_checkpoint
from carpool.models.tokenizer import GUARD, Tokenizer
from tests.unit.models.conftest import WriteSafetensors
from tests.unit.models.tiny_llama import TinyLlama

PLAIN = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[a]{% endif %}"
)
USER = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    backend.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", "</s>", "<|im_end|>")])
    return Tokenizer(backend, bos_token="<s>", eos_token="</s>")


def test_renders(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(PLAIN, tokenizer)
    assert not template.is_fallback
    assert template.render(USER) == "[user]hi[a]"
    assert template.render(USER, add_generation_prompt=False) == "[user]hi"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ bos_token }}{{ eos_token }}", "<s></s>"),
        ("  {% if true %}\nx\n  {% endif %}\ny", "x\ny"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% generation %}x{% endgeneration %}", "x"),
        ("{{ {'a': '<é>'} | tojson }}", '{"a": "<é>"}'),
        ("{{ {'a': 1} | tojson(indent=2) }}", '{\n  "a": 1\n}'),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{{ enable_thinking }}", "False"),
        ("{{ tools is none }}", "True"),
    ],
)
def test_speaks_the_dialect_of_the_hub(tokenizer: Tokenizer, source: str, expected: str) -> None:
    assert ChatTemplate(source, tokenizer).render(USER, enable_thinking=False) == expected


def test_variables_of_the_caller_do_not_replace_the_messages(tokenizer: Tokenizer) -> None:
    assert ChatTemplate(PLAIN, tokenizer).render(USER, messages_=[], bos_token="x") == "[user]hi[a]"


def test_tools_reach_the_template(tokenizer: Tokenizer) -> None:
    template = ChatTemplate("<tool_call>{{ tools[0].function.name }}", tokenizer)
    assert template.render(USER, tools=[{"type": "function", "function": {"name": "f"}}]) == "<tool_call>f"


def test_arguments_of_calls_are_objects_for_the_template(tokenizer: Tokenizer) -> None:
    source = "{{ messages[0].tool_calls[0].function.arguments.x }}{% if tools %}<tool_call>{% endif %}"
    template = ChatTemplate(source, tokenizer)
    call = {"id": "1", "function": {"name": "f", "arguments": '{"x": 5}'}}
    assert template.render([{"role": "assistant", "content": None, "tool_calls": [call]}]) == "5"
    broken = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}
    with pytest.raises(InvalidRequest) as caught:
        template.render([broken])
    assert caught.value.param == "messages[0].tool_calls[0].function.arguments"


def test_text_parts_are_joined(tokenizer: Tokenizer) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert ChatTemplate(PLAIN, tokenizer).render([{"role": "user", "content": parts}]) == "[user]a\nb[a]"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "messages[1].content"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content"),
        ({"role": "user", "content": ["x"]}, "messages[1].content"),
        ({"role": "user", "content": 5}, "messages[1].content"),
        ({"content": "x"}, "messages[1].role"),
        ({"role": "assistant", "tool_calls": ["x"]}, "messages[1].tool_calls[0]"),
        ({"role": "assistant", "tool_calls": 5}, "messages[1].tool_calls"),
    ],
)
def test_bad_messages_name_their_field(tokenizer: Tokenizer, message: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ChatTemplate(PLAIN, tokenizer).render([*USER, message])
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "refuses the messages: roles must alternate"),
        ("{{ messages[7].content }}", "refuses"),
        ("{{ messages[0].content + 1 }}", "refuses"),
        ("{{ messages[0].content.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "[Rr]ange"),
        ("{{ 1 // 0 }}", "refuses"),
    ],
)
def test_refusals_of_the_template_are_the_clients_error(
    tokenizer: Tokenizer, source: str, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        ChatTemplate(source, tokenizer).render(USER)


def test_deep_nesting_is_refused(tokenizer: Tokenizer) -> None:
    nested: Any = "x"
    for _ in range(2000):
        nested = [nested]
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        ChatTemplate(PLAIN, tokenizer).render([{"role": "user", "content": "x", "extra": nested}])


def test_a_broken_template_fails_the_model(tokenizer: Tokenizer) -> None:
    with pytest.raises(ModelFailed, match="chat template is not valid"):
        ChatTemplate("{% if %}", tokenizer)


def test_special_tokens_in_messages_are_guarded(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(PLAIN + "<|im_end|>{{ tools[0].name }}<tool_call>", tokenizer)
    rendered = template.render([{"role": "user", "content": "x<|im_end|>"}], tools=[{"name": "<s>"}])
    assert rendered == f"[user]x<{GUARD}|im_end|>[a]<|im_end|><{GUARD}s><tool_call>"
    told = ChatTemplate(PLAIN, tokenizer).render(USER, tools=[{"name": "<s>"}])
    assert f'{{"name": "<{GUARD}s>"}}' in told


def test_models_without_a_template_use_the_plain_form(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(None, tokenizer)
    assert template.is_fallback
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    expected = "System: Be brief.\n\nUser: Hi\n\nAssistant: Hello\n\nUser: Bye"
    assert template.render(messages, add_generation_prompt=False) == expected
    assert template.render(messages) == f"{expected}\n\nAssistant:"
    with_tools = template.render(messages, tools=[{"type": "function"}])
    assert with_tools.startswith("System: Be brief.\n\n# Tools\n")
    assert with_tools.endswith("\n\nUser: Hi\n\nAssistant: Hello\n\nUser: Bye\n\nAssistant:")


def test_template_of_gguf_metadata(tmp_path: Path, tiny_llama: TinyLlama) -> None:
    path = tmp_path / "m.gguf"
    assert read_chat_template(open_checkpoint(tiny_llama.write(path))) is None
    tiny_llama.metadata["tokenizer.chat_template"] = PLAIN
    assert read_chat_template(open_checkpoint(tiny_llama.write(path))) == PLAIN
    tiny_llama.metadata["tokenizer.chat_template"] = 5
    with pytest.raises(ModelFailed, match="not a string"):
        read_chat_template(open_checkpoint(tiny_llama.write(path)))


def test_template_of_a_directory(tmp_path: Path, write_safetensors: WriteSafetensors) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["X"]}')
    write_safetensors(tmp_path / "model.safetensors", {}, b"")
    checkpoint = open_checkpoint(tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    assert read_chat_template(checkpoint) is None
    settings.write_text("{}")
    assert read_chat_template(checkpoint) is None
    settings.write_text('{"chat_template": "one"}')
    assert read_chat_template(checkpoint) == "one"
    several = [{"name": "tool_use", "template": "two"}, {"name": "default", "template": "three"}]
    settings.write_text(json.dumps({"chat_template": several}))
    assert read_chat_template(checkpoint) == "three"
    (tmp_path / "chat_template.jinja").write_text("four")
    assert read_chat_template(checkpoint) == "four"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ModelFailed, match="cannot be read"):
        read_chat_template(checkpoint)
