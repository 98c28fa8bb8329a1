import itertools
import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models

from carpool.models.detokenizer import IncrementalDetokenizer
from carpool.models.open import open_checkpoint
from carpool.models.tokenizer import Tokenizer
from tests.unit.models.tiny_llama import byte_level_alphabet


def byte_level() -> Tokenizer:
    """One token per byte, a few longer ones that begin or end inside a character, and added ones."""
    alphabet = byte_level_alphabet()
    pieces = [b"\xf0\x9f", b"\x98\x80", b"\x80 a", b"hello", b" \xc3", b"\xa9\xc3"]
    tokens = [*alphabet, *("".join(alphabet[byte] for byte in piece) for piece in pieces)]
    backend = tokenizers.Tokenizer(
        models.BPE(vocab={token: id_ for id_, token in enumerate(tokens)}, merges=[])
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<|end|>", special=True)])
    backend.add_tokens([AddedToken("<think> \u4e2d", normalized=False)])
    return Tokenizer(backend)


def sentence_piece() -> Tokenizer:
    """Llama 2's scheme."""
    tokens = [
        "<unk>",
        "\u2581",
        "\u2581Hello",
        "\u2581w\u00f6rld",
        "!",
        "\u4e2d",
        *(f"<0x{b:02X}>" for b in range(256)),
    ]
    backend = tokenizers.Tokenizer(
        models.BPE(vocab={token: id_ for id_, token in enumerate(tokens)}, merges=[])
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(backend)


BYTE_LEVEL = byte_level()
SENTENCE_PIECE = sentence_piece()


def in_pieces(tokenizer: Tokenizer, ids: list[int], cuts: list[int]) -> list[str]:
    detokenizer = IncrementalDetokenizer(tokenizer)
    edges = sorted({0, len(ids), *(cut for cut in cuts if cut < len(ids))})
    pieces = [detokenizer.push(ids[begin:end]) for begin, end in itertools.pairwise(edges)]
    return [*pieces, detokenizer.flush()]


ANY_IDS = st.lists(st.integers(0, BYTE_LEVEL.vocab_size + 1), max_size=30)
TEXTS = st.text(max_size=20).map(lambda text: list(text.encode()))
CUTS = st.lists(st.integers(0, 60))


@given(ANY_IDS | TEXTS, CUTS)
def test_equals_the_full_decode_for_every_split(ids: list[int], cuts: list[int]) -> None:
    assert "".join(in_pieces(BYTE_LEVEL, ids, cuts)) == BYTE_LEVEL.decode(ids)


@given(st.text(max_size=20))
def test_valid_text_never_shows_a_replacement_character(text: str) -> None:
    pieces = in_pieces(BYTE_LEVEL, list(text.encode()), list(range(100)))
    assert "".join(pieces) == text
    assert sum("\ufffd" in piece for piece in pieces) == sum(character == "\ufffd" for character in text)


def test_special_tokens_are_text_where_they_are_to_be_shown() -> None:
    tokenizer = byte_level()
    (end,) = tokenizer.special_ids
    ids = [end, *b"hi", end]
    assert IncrementalDetokenizer(tokenizer).push(ids) == "hi"
    shown = tokenizer.special_ids_of(["<|end|>", "hi"])
    assert shown == {"<|end|>": end}
    assert IncrementalDetokenizer(tokenizer, shown.values()).push(ids) == "<|end|>hi<|end|>"


def test_half_characters_are_held_back() -> None:
    detokenizer = IncrementalDetokenizer(BYTE_LEVEL)
    first, second, third, fourth = "\U0001f600".encode()
    assert [detokenizer.push([byte]) for byte in (first, second, third, fourth)] == ["", "", "", "\U0001f600"]
    assert detokenizer.push([first]) == ""
    assert detokenizer.flush() == "\ufffd"


@given(st.text(alphabet=" !\u4e2dH\u00f6\U0001f600", max_size=10), CUTS)
def test_sentence_piece_equals_the_full_decode(text: str, cuts: list[int]) -> None:
    ids = [2, 3]
    for character in text:
        ids += {" ": [1], "!": [4], "\u4e2d": [5]}.get(character) or [6 + byte for byte in character.encode()]
    assert "".join(in_pieces(SENTENCE_PIECE, ids, cuts)) == SENTENCE_PIECE.decode(ids)


@pytest.mark.model
@given(ids=st.lists(st.integers(0, 49151), max_size=40), cuts=CUTS)
def test_the_chat_starters_tokens(smollm2_tokenizer: Tokenizer, ids: list[int], cuts: list[int]) -> None:
    assert "".join(in_pieces(smollm2_tokenizer, ids, cuts)) == smollm2_tokenizer.decode(ids)


@pytest.mark.model
def test_the_stored_texts(smollm2_tokenizer: Tokenizer) -> None:
    fixture = json.loads((Path(__file__).parent / "fixtures" / "smollm2_tokens.json").read_text())
    for case in fixture["texts"]:
        text = "".join(in_pieces(smollm2_tokenizer, case["ids"], list(range(1000))))
        assert text == smollm2_tokenizer.decode(case["ids"])


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_path: Path) -> Tokenizer:
    return Tokenizer.from_checkpoint(open_checkpoint(smollm2_path))
