"""GPT-2's vocabulary in small, as vocab.json and merges.txt."""

import json
from pathlib import Path

from tests.unit.models.tiny_llama import byte_level_alphabet

END_OF_TEXT = "<|endoftext|>"
MERGES = ["\u0120 t", "h e", "\u0120t he", "i n", "# #", "r i", "ri d", "rid e", "1 2", "\u010a \u010a"]
"""Spaces and newlines as byte-level BPE writes them; a line that begins with # is no comment."""


def tiny_vocabulary(size: int) -> dict[str, int]:
    """So many tokens: bytes, merges, unused ones, and the end of text."""
    tokens = [*byte_level_alphabet(), *(merge.replace(" ", "") for merge in MERGES)]
    tokens += [f"<unused{number}>" for number in range(size - 1 - len(tokens))]
    return {token: id_ for id_, token in enumerate([*tokens, END_OF_TEXT])}


def write_vocabulary(directory: Path, size: int) -> Path:
    """Put the two files into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.json").write_text(json.dumps(tiny_vocabulary(size)))
    (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
    return directory
