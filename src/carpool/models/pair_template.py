"""How a tokenizer puts two texts into one sequence."""

from dataclasses import dataclass

import tokenizers

from carpool.errors import ModelFailed


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """The special tokens around two texts, such as [CLS] first [SEP] second [SEP]."""

    before: list[int]
    between: list[int]
    after: list[int]
    between_first: int
    """How many of the tokens between the texts are of type 0, the first text's."""

    @classmethod
    def of(cls, backend: tokenizers.Tokenizer) -> "PairTemplate":
        """That of a tokenizer. Raises `ModelFailed` for one that turns the texts round or drops one."""
        encoding = backend.encode("a", "a")
        # None for special tokens, else which of the texts a token belongs to.
        texts = encoding.sequence_ids
        if 0 not in texts or 1 not in texts or texts.index(1) < texts.index(0):
            raise ModelFailed("the tokenizer does not put two texts into one sequence")
        first_end = len(texts) - texts[::-1].index(0)
        second_end = len(texts) - texts[::-1].index(1)
        second_start = texts.index(1)
        types = encoding.type_ids[first_end:second_start]
        return cls(
            before=encoding.ids[: texts.index(0)],
            between=encoding.ids[first_end:second_start],
            after=encoding.ids[second_end:],
            between_first=types.index(1) if 1 in types else len(types),
        )

    @property
    def num_tokens(self) -> int:
        """Special tokens around a pair."""
        return len(self.before) + len(self.between) + len(self.after)
