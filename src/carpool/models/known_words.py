"""Token ids of texts whose words have been seen: several times cheaper than to encode them anew."""

import re
from collections.abc import Iterable
from itertools import chain, islice
from string import ascii_lowercase
from typing import Final, Self

import tokenizers

_WORD: Final = re.compile(r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]")
"""How BERT splits printable ASCII: at spaces, and around each punctuation mark."""
_LONGEST: Final = 32
"""Characters of a word that is kept. Longer ones are hardly seen twice."""
_MOST: Final = 65_536
"""Words, of about 200 bytes each with their ids, until all are forgotten."""
_LEARNED: Final = 4
"""Words of a text that are encoded one by one. Each takes a tenth to a fifth of a text's time."""


class KnownWords:
    """Remembers words of a tokenizer whose tokens of a word never depend on the text around; see `of`.

    Safe to use from several threads.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        around = backend.encode("").ids
        self._opening, self._closing = around[:1], around[1:]
        # Control characters are dropped from the middle of words, and special tokens are no words.
        added = [token.content for token in backend.get_added_tokens_decoder().values()]
        normalize = backend.normalizer.normalize_str
        starts = {form[:1] for content in added for form in (content, normalize(content))}
        excluded = {form for start in starts for form in (start, start.lower(), start.upper())}
        printable = map(chr, (*b"\t\n\r", *range(32, 127)))
        plain = [char for char in printable if excluded.isdisjoint((char, normalize(char)))]
        self._plain = re.compile(f"[{re.escape(''.join(plain))}]*")
        self._ids: dict[str, list[int]] = {}

    @classmethod
    def of(cls, backend: tokenizers.Tokenizer) -> Self | None:
        """For a tokenizer of BERT's kind; None for any other."""
        is_bert = (
            isinstance(backend.normalizer, tokenizers.normalizers.BertNormalizer)
            and isinstance(backend.pre_tokenizer, tokenizers.pre_tokenizers.BertPreTokenizer)
            and isinstance(backend.model, tokenizers.models.WordPiece)
            and all(token.content.isascii() for token in backend.get_added_tokens_decoder().values())
        )
        if not is_bert:
            return None
        words = cls(backend)
        probe = next((char for char in ascii_lowercase if words._plain.fullmatch(char)), "")
        return words if probe and words.encode(probe) == backend.encode(probe).ids else None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int] | None:
        """The ids of a text; None if the backend has to encode it, for what it holds or for its new words."""
        if not self._plain.fullmatch(text):
            return None
        words = _WORD.findall(text)
        known = self._ids
        if new := set(words).difference(known):
            self._learn(islice(new, _LEARNED), known)
            if not new <= known.keys():
                return None
        ids = chain.from_iterable(map(known.__getitem__, words))
        return [*self._opening, *ids, *self._closing] if add_special_tokens else [*ids]

    def _learn(self, words: Iterable[str], known: dict[str, list[int]]) -> None:
        for word in words:
            if len(word) <= _LONGEST:
                known[word] = self._backend.encode(word, add_special_tokens=False).ids
        if len(known) > _MOST:
            self._ids = {}  # whoever is at work has the other dictionary
