"""Token ids to text while they are generated."""

import codecs
from collections.abc import Collection, Iterable

from carpool.models.tokenizer import Tokenizer

_Decoder = codecs.getincrementaldecoder("utf-8")


class IncrementalDetokenizer:
    """The text of one answer, piece by piece.

    All pieces together, `flush` included, are `Tokenizer.decode` of all ids, however they are split. A
    character whose bytes have not all come is held back. Time is linear in the number of bytes. Special
    tokens give no text, but for those that are to be `shown`.
    """

    def __init__(self, tokenizer: Tokenizer, shown: Collection[int] = ()) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._hidden_ids = tokenizer.special_ids.difference(shown) if shown else tokenizer.special_ids
        self._decoder = _Decoder(errors="replace")
        self._incomplete = False
        """Whether the decoder holds the beginning of a character."""
        self._at_start = self._token_bytes.strips_leading_space

    def push(self, ids: Iterable[int]) -> str:
        """Text that is certain after these further tokens; it may be empty."""
        return self._decode(b"".join([self._token_bytes[id_] for id_ in ids if id_ not in self._hidden_ids]))

    def flush(self) -> str:
        """What is left when the answer is over: U+FFFD for a character that stayed incomplete, or nothing."""
        return self._decode(b"", final=True)

    def _decode(self, data: bytes, final: bool = False) -> str:
        # The usual case, and fast.
        if data.isascii() and not self._incomplete:
            text = data.decode("ascii")
        else:
            text = self._decoder.decode(data, final)
            self._incomplete = bool(self._decoder.getstate()[0])
        if self._at_start and text:
            self._at_start = False
            text = text.removeprefix(" ")
        return text
