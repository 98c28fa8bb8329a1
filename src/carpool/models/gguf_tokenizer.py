"""Byte-level BPE tokenizers rebuilt from a GGUF file's metadata."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from carpool.errors import ModelFailed
from carpool.models.byte_level_bpe import begin_with, build_byte_level_bpe, byte_level

_CONTROL, _USER_DEFINED = 3, 4
"""Token types of llama.cpp that are cut out of a text before anything else."""

_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_2 = _LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True, slots=True)
class _Kind:
    """What `tokenizer.ggml.pre` stands for, as the models' own tokenizer.json files define it."""

    pre_tokenizer: Callable[[], pre_tokenizers.PreTokenizer]
    ignore_merges: bool = False
    """Whether a word that is in the vocabulary is taken whole."""
    add_bos: bool = False
    """Where the file does not say it."""
    nfc: bool = False


def _digits_then_words() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level(use_regex=True)]
    )


def _split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, byte_level(use_regex=False)])


_KINDS = {
    "gpt-2": _Kind(lambda: byte_level(use_regex=True)),
    "smollm": _Kind(_digits_then_words),
    "llama-bpe": _Kind(lambda: _split_by(_LLAMA_3), ignore_merges=True, add_bos=True),
    "qwen2": _Kind(lambda: _split_by(_QWEN_2), nfc=True),
}


def build_from_gguf(metadata: Mapping[str, Any], path: Path) -> Tokenizer:
    """The tokenizer a GGUF file describes, equal to the one of the original model.

    Raises `ModelFailed` for another kind than byte-level BPE, for a splitting rule that is not known, and for
    malformed metadata; `path` is for the messages.
    """
    model, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if model != "gpt2" or pre not in _KINDS:
        kinds = ", ".join(_KINDS)
        raise ModelFailed(
            f"{path} has the tokenizer {model!r} of kind {pre!r}; supported are 'gpt2' of {kinds}"
        )
    kind = _KINDS[pre]
    tokens = _strings(metadata, "tokenizer.ggml.tokens", path)
    merges = _strings(metadata, "tokenizer.ggml.merges", path)
    types = metadata.get("tokenizer.ggml.token_type")
    if not isinstance(types, list) or len(types) != len(tokens) or len(set(tokens)) != len(tokens):
        raise ModelFailed(f"{path}: the token list is malformed")
    vocab = {token: id_ for id_, token in enumerate(tokens)}
    tokenizer = build_byte_level_bpe(vocab, merges, path, ignore_merges=kind.ignore_merges)
    if kind.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = kind.pre_tokenizer()
    tokenizer.add_special_tokens(_added(tokens, types, _CONTROL))
    tokenizer.add_tokens(_added(tokens, types, _USER_DEFINED))
    if metadata.get("tokenizer.ggml.add_bos_token", kind.add_bos):
        bos_id = metadata.get("tokenizer.ggml.bos_token_id")
        if type(bos_id) is not int or not 0 <= bos_id < len(tokens):
            raise ModelFailed(f"{path}: texts must begin with a BOS token, but the file names none")
        tokenizer.post_processor = begin_with(tokens[bos_id], bos_id)
    return tokenizer


def _added(tokens: list[str], types: list[int], wanted: int) -> list[AddedToken]:
    return [
        AddedToken(token, special=wanted == _CONTROL, normalized=False)
        for token, token_type in zip(tokens, types, strict=True)
        if token_type == wanted
    ]


def _strings(metadata: Mapping[str, Any], key: str, path: Path) -> list[str]:
    value = metadata.get(key)
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise ModelFailed(f"{path}: metadata {key} must be a list of strings")
    return value
