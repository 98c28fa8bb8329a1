"""The bytes that single tokens stand for, where a text is the concatenation of its tokens' bytes."""

import json
import re
from typing import Any

import tokenizers

from carpool.errors import ModelFailed

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """Bytes by token id, computed once per token. Raises `ModelFailed` for tokenizers of other kinds.

    Two kinds exist: byte-level BPE (GPT-2 and after), which writes bytes as printable characters, and
    SentencePiece (Llama 2, Mistral, Gemma), which writes a space as U+2581 and single bytes as <0xAB>.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        decoder: dict[str, Any] = {"type": None}
        if backend.decoder is not None:
            decoder = json.loads(backend.decoder.__getstate__())
        steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
        kinds = [step["type"] for step in steps]
        self._is_byte_level = kinds == ["ByteLevel"]
        if not self._is_byte_level and not set(kinds) <= {
            "Replace",
            "ByteFallback",
            "Fuse",
            "Strip",
            "Metaspace",
        }:
            raise ModelFailed(f"tokenizers with the decoder {kinds} cannot be used to generate text")
        self.strips_leading_space = not {"Strip", "Metaspace"}.isdisjoint(kinds)
        """Whether a text's first space is dropped."""
        self._backend = backend
        self._known: dict[int, bytes] = {}

    def __getitem__(self, id_: int) -> bytes:
        """Bytes of a token; none for an id beyond the vocabulary."""
        known = self._known.get(id_)
        if known is None:
            known = self._known[id_] = self._compute(self._backend.id_to_token(id_) or "")
        return known

    def _compute(self, token: str) -> bytes:
        if not self._is_byte_level:
            byte_token = _BYTE_TOKEN.fullmatch(token)
            return bytes.fromhex(byte_token[1]) if byte_token else token.replace("\u2581", " ").encode()
        try:
            return bytes(_BYTE_OF[character] for character in token)
        except KeyError:  # an added token, written as it is
            return token.encode()


def _byte_of() -> dict[str, int]:
    """The inverse of GPT-2's `bytes_to_unicode`: printable bytes are themselves, others begin at U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_of()
