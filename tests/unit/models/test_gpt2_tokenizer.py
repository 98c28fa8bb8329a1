"""vocab.json and merges.txt in place of tokenizer.json; the ids are those of transformers' GPT2Tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest

from carpool.errors import ModelFailed
from carpool.models.gpt2_tokenizer import build_gpt2_tokenizer
from tests.unit.models.tiny_vocabulary import write_vocabulary

SIZE = 320
GPT2 = {"model_type": "gpt2"}


def encode(directory: Path, text: str, config: dict[str, Any] = GPT2, **settings: Any) -> list[int]:
    tokenizer = build_gpt2_tokenizer(directory, config, settings)
    assert tokenizer is not None
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False).endswith(text)
    ids: list[int] = tokenizer.encode(text).ids
    return ids


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("the ride in the 12 ## rides", [116, 257, 32, 263, 32, 259, 258, 32, 264, 32, 260, 32, 263, 115]),
        ("  the\n\nend <|endoftext|> in", [32, 258, 10, 10, 101, 110, 100, 32, 319, 32, 259]),
        ("Grü😀 \t in", [71, 114, 195, 188, 240, 159, 152, 128, 32, 9, 32, 259]),
        ("#version ## x", [35, 118, 101, 114, 115, 105, 111, 110, 32, 260, 32, 120]),
    ],
)
def test_equals_transformers(tmp_path: Path, text: str, ids: list[int]) -> None:
    assert encode(write_vocabulary(tmp_path, SIZE), text) == ids


def test_settings(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, SIZE)
    assert encode(tmp_path, "the in", add_prefix_space=True) == [258, 32, 259]
    assert encode(tmp_path, "the in", add_bos_token=True) == [319, 116, 257, 32, 259]
    assert encode(tmp_path, "the", {"model_type": "opt"}, tokenizer_class="GPT2Tokenizer") == [116, 257]
    assert encode(tmp_path, "the", {"model_type": "gpt_neo"}) == [116, 257]
    (tmp_path / "added_tokens.json").write_text('{"<b>": 321, "<pad>": 320}')
    assert encode(tmp_path, "the<b>in<pad>") == [116, 257, 321, 259, 320]


def test_both_files_must_be_there(tmp_path: Path) -> None:
    (write_vocabulary(tmp_path, SIZE) / "merges.txt").unlink()
    assert build_gpt2_tokenizer(tmp_path, GPT2, {}) is None


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("vocab.json", b"[]", "not a JSON object"),
        ("vocab.json", b'{"a": 1, "b": 2}', "number its tokens from 0"),
        ("vocab.json", b'{"a": "0"}', "number its tokens from 0"),
        ("merges.txt", b"\xff", "cannot be read"),
        ("merges.txt", b"x nothing_like_this\n", "merges are malformed"),
        ("added_tokens.json", b'{"<b>": 500}', "which is not the next one"),
        ("added_tokens.json", b'{"<b>": "x"}', "must give numbers"),
    ],
)
def test_refuses_malformed_files(tmp_path: Path, file: str, content: bytes, words: str) -> None:
    (write_vocabulary(tmp_path, SIZE) / file).write_bytes(content)
    with pytest.raises(ModelFailed, match=words):
        build_gpt2_tokenizer(tmp_path, GPT2, {})


@pytest.mark.parametrize(
    ("config", "settings", "words"),
    [
        (
            GPT2,
            {"tokenizer_class": "Qwen2Tokenizer"},
            "only GPT2Tokenizer can be built.*this is Qwen2Tokenizer",
        ),
        ({"model_type": "qwen2"}, {}, "this is the tokenizer of 'qwen2'"),
    ],
)
def test_refuses_other_tokenizers(
    tmp_path: Path, config: dict[str, Any], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelFailed, match=words):
        build_gpt2_tokenizer(write_vocabulary(tmp_path, SIZE), config, settings)


def test_refuses_a_beginning_that_is_no_token(tmp_path: Path) -> None:
    vocab = json.loads((write_vocabulary(tmp_path, SIZE) / "vocab.json").read_text())
    del vocab["<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    with pytest.raises(ModelFailed, match=r"must begin with <\|endoftext\|>"):
        build_gpt2_tokenizer(tmp_path, GPT2, {"add_bos_token": True})
