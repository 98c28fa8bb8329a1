"""The beginning of a long text, enough of it to know its first tokens."""

import re

import tokenizers

CHARS_PER_TOKEN = 8
"""Characters that are tried first, for each token that is wanted; English has about four."""

MAX_CHARS_PER_TOKEN = 256
"""What is never looked at lies beyond. No language comes near, but a flood of spaces is no token at all."""

SLACK_TOKENS = 64
"""So many tokens before a cut may be others than they are in the whole text."""

_SPACE = re.compile(r"[ \t\n\r]+")
_BERT_BOUNDARY = re.compile(
    r"[ \t\n\r]+|(?<=[\u3001\u3002\u3400-\u4dbf\u4e00-\u9fff\uff01\uff0c\uff1a\uff1b\uff1f])"
)
"""BERT's ideographs and punctuation are words of their own. (Its special tokens have ASCII's in them.)"""


class TextCut:
    """Cuts texts for one tokenizer.

    Words between white space are encoded one by one by nearly every tokenizer, so a cut before white space
    changes nothing. A text without any is cut anywhere, which changes the last tokens of the beginning only:
    the best path of Unigram and the merges of BPE do not look far. WordPiece does, as a word that is too long
    becomes one unknown token, so its texts are cut at boundaries only.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._anywhere = not isinstance(backend.model, tokenizers.models.WordPiece)
        splits_ideographs = (
            isinstance(backend.pre_tokenizer, tokenizers.pre_tokenizers.BertPreTokenizer)
            and isinstance(backend.normalizer, tokenizers.normalizers.BertNormalizer)
            and backend.normalizer.handle_chinese_chars
        )
        self._boundary = _BERT_BOUNDARY if splits_ideographs else _SPACE

    def beginning(self, text: str, size: int) -> str:
        """From half of `size` to `size` characters; the whole text where it is shorter or must not be cut."""
        if len(text) <= size:
            return text
        last = None
        for last in self._boundary.finditer(text, size // 2, size):  # noqa: B007  # the last one is wanted
            pass
        if last is not None:
            return text[: last.start()]
        return text[:size] if self._anywhere else text
