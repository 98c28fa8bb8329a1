"""GPT-2's tokenizer from vocab.json and merges.txt, for directories without tokenizer.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from carpool.errors import ModelFailed
from carpool.models.byte_level_bpe import begin_with, build_byte_level_bpe, byte_level
from carpool.models.directory import read_json_object

_CLASSES = ("GPT2Tokenizer", "GPT2TokenizerFast")
_MODEL_TYPES = ("gpt2", "gpt_neo")
_END_OF_TEXT = "<|endoftext|>"


def build_gpt2_tokenizer(
    directory: Path, config: Mapping[str, Any], settings: Mapping[str, Any]
) -> Tokenizer | None:
    """The tokenizer of a directory with these two files, None where they are not there.

    `config` and `settings` are config.json and tokenizer_config.json. Raises `ModelFailed` for files of
    another tokenizer, whose splitting rule they do not say, and for malformed ones.
    """
    vocab_file, merges_file = directory / "vocab.json", directory / "merges.txt"
    if not (vocab_file.exists() and merges_file.exists()):
        return None
    kind = settings.get("tokenizer_class")
    if kind not in _CLASSES and (kind is not None or config.get("model_type") not in _MODEL_TYPES):
        raise ModelFailed(
            f"{directory} has no tokenizer.json, and only GPT2Tokenizer can be built from vocab.json; "
            f"this is {kind or 'the tokenizer of ' + repr(config.get('model_type'))}"
        )
    vocab = _read_vocab(vocab_file)
    tokenizer = build_byte_level_bpe(vocab, _read_merges(merges_file), merges_file)
    add_prefix_space = settings.get("add_prefix_space") is True
    tokenizer.pre_tokenizer = byte_level(use_regex=True, add_prefix_space=add_prefix_space)
    _add_tokens(tokenizer, directory / "added_tokens.json")
    if _END_OF_TEXT in vocab:
        tokenizer.add_special_tokens([AddedToken(_END_OF_TEXT, special=True, normalized=False)])
    if settings.get("add_bos_token") is True:
        if _END_OF_TEXT not in vocab:
            raise ModelFailed(f"{directory}: texts must begin with {_END_OF_TEXT}, which {vocab_file} lacks")
        tokenizer.post_processor = begin_with(_END_OF_TEXT, vocab[_END_OF_TEXT])
    return tokenizer


def _read_vocab(path: Path) -> dict[str, int]:
    vocab = read_json_object(path)
    if not _is_numbering(vocab) or sorted(vocab.values()) != list(range(len(vocab))):
        raise ModelFailed(f"{path} must number its tokens from 0")
    return vocab


def _read_merges(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFailed(f"{path} cannot be read: {error}") from error
    return [line for line in lines if line.strip() and not line.startswith("#version")]


def _add_tokens(tokenizer: Tokenizer, path: Path) -> None:
    """Tokens beyond the vocabulary; their ids must follow it without a hole."""
    added = read_json_object(path) if path.exists() else {}
    if not _is_numbering(added):
        raise ModelFailed(f"{path} must give numbers to its tokens")
    for token in sorted(added, key=added.__getitem__):
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        if tokenizer.token_to_id(token) != added[token]:
            raise ModelFailed(f"{path} gives {token!r} the number {added[token]}, which is not the next one")


def _is_numbering(tokens: Mapping[str, Any]) -> bool:
    return all(type(number) is int for number in tokens.values())
