from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors

from carpool.models import known_words
from carpool.models.known_words import KnownWords

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
PIECES = ["river", "##s", "r", "##i", "##v", "a", "##a", "7", ".", "["]


def bert(*, lowercase: bool = True, added: str = "[MASK]") -> tokenizers.Tokenizer:
    vocabulary = {token: index for index, token in enumerate([*SPECIALS, *PIECES])}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.add_special_tokens(["[CLS]", "[SEP]"])
    backend.add_tokens([AddedToken(added, normalized=True)])
    return backend


def known(backend: tokenizers.Tokenizer) -> KnownWords:
    words = KnownWords.of(backend)
    assert words is not None
    return words


@pytest.mark.parametrize("lowercase", [True, False])
@given(
    texts=st.lists(
        st.lists(
            st.sampled_from(["river", "RIVERS", "a", "77", ".", "_", "[", "[MASK]", "[mask]", " ", "\n"])
            | st.text(max_size=3)
            | st.text(st.characters(max_codepoint=128)),
            max_size=12,
        ).map("".join),
        max_size=6,
    )
)
def test_ids_are_the_backends(lowercase: bool, texts: list[str]) -> None:
    backend = bert(lowercase=lowercase)
    words = known(backend)
    for text in [*texts, *texts]:
        for special in (True, False):
            ids = words.encode(text, special)
            assert ids is None or ids == backend.encode(text, add_special_tokens=special).ids


def test_words_are_learned_a_few_at_a_time() -> None:
    words = known(bert())
    text = "a river runs by a garden of seven"
    assert words.encode(text) is None  # eight minus one words are new, but for "a"
    assert words.encode(text) == bert().encode(text).ids
    assert words.encode("seven rivers") is not None


@pytest.mark.parametrize(
    "text",
    ["caf\u00e9", "a\x00b", "a\x0bb", "[MASK] a", "[mask]", "a" * 33],
    ids=["accent", "control", "vertical tab", "special", "lower-cased", "long"],
)
def test_what_is_left_to_the_backend(text: str) -> None:
    words = known(bert())
    assert words.encode(text) is None
    assert words.encode(text) is None


def test_added_tokens_are_no_words() -> None:
    words = known(bert(added="Rome"))
    assert [words.encode(text) for text in ("to Rome", "to rome")] == [None, None]
    assert words.encode("to a") is not None


def test_all_words_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_words, "_MOST", 10)
    backend = bert()
    words = known(backend)
    for index in range(50):
        assert words.encode(f"a {index}") == backend.encode(f"a {index}").ids


def without_normalizer(backend: tokenizers.Tokenizer) -> None:
    backend.normalizer = None


def split_otherwise(backend: tokenizers.Tokenizer) -> None:
    backend.pre_tokenizer = pre_tokenizers.Whitespace()


def another_model(backend: tokenizers.Tokenizer) -> None:
    backend.model = models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")


def two_in_front(backend: tokenizers.Tokenizer) -> None:
    specials = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing("[CLS] [SEP] $0 [SEP]", special_tokens=specials)


@pytest.mark.parametrize("change", [without_normalizer, split_otherwise, another_model, two_in_front])
def test_other_kinds_are_not_known(change: Callable[[tokenizers.Tokenizer], None]) -> None:
    backend = bert()
    change(backend)
    assert KnownWords.of(backend) is None


@pytest.mark.model
def test_minilm_is_known(minilm_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(minilm_path / "tokenizer.json"))
    backend.no_padding()
    backend.no_truncation()
    words = known(backend)
    text = "The bridge over the river: 3.5 km,\r\n\tand it's Unaffable!"
    found = [words.encode(text) for _ in range(5)]
    assert found[0] is None
    assert found[-1] == backend.encode(text).ids


@pytest.mark.parametrize("added", ["\tq", "\nq", "Q"])
def test_an_added_token_is_found_as_the_backend_reads_it(added: str) -> None:
    backend = bert(added=added)
    words = known(backend)
    for text in ("a q", "a \tq", "a\nq", "aq"):
        for _ in range(2):
            ids = words.encode(text)
            assert ids is None or ids == backend.encode(text).ids


def test_an_added_token_of_any_first_letter_is_no_obstacle() -> None:
    backend = bert(added="aardvark")
    assert KnownWords.of(backend) is not None
