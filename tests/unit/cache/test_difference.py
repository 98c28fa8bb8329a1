import pytest

from carpool.cache.difference import difference, words


def test_words() -> None:
    assert words("What\u2019s UP, doc? E=mc²_x") == ("what's", "up", "doc", "e", "mc²", "x")


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        ("What is the capital of France?", "What is the capital of Germany?", ("france", "germany")),
        ("Translate to French: good morning", "Translate to French: good evening", ("morning", "evening")),
        ("Is Python good for servers?", "Is Python good for web servers?", ("", "web")),
        ("Is Python good?", "Is Python good for web servers?", None),
        ("Wolves are large dogs. What do they eat?", "Wolves are large dogs. Where do they live?", None),
        (
            "Wolves are large grey dogs of the north that live in packs. What do they eat?",
            "Wolves are large grey dogs of the north that live in packs. Where do they sleep?",
            ("what they eat", "where they sleep"),
        ),
        ("Please, how do I make a cake?", "How to make cakes", ("", "")),
        ("What's a synopsis?", "what is synopsis", ("", "")),
        ("How can I learn Go?", "How do you learn Go?", ("", "")),
        (
            "What is the largest planet of our solar system?",
            "Which is the largest planet in our solar system?",
            ("", ""),
        ),
        ("Where is the bus stop?", "Where is the bu stop?", ("bus", "bu")),
        ("Who was Mary's tutor at court?", "Who was Mary\u2019s friend at court?", ("tutor", "friend")),
        ("a b", "", None),
        ("", "", None),
    ],
)
def test_difference(first: str, second: str, left: tuple[str, str] | None) -> None:
    assert difference(first, second) == left
    assert difference(second, first) == (left and left[::-1])


def test_few_shared_words_may_be_too_few_to_tell_a_template() -> None:
    capitals = "What is the capital of France?", "What is the capital of Germany?"
    assert difference(*capitals, min_shared=4) == ("france", "germany")
    assert difference(*capitals, min_shared=5) is None


def test_different_wordings_are_compared_whole() -> None:
    assert difference("Who wrote the play Faust?", "Which author is the play Faust by?") is None


def test_the_shared_start_and_end_do_not_overlap() -> None:
    assert difference("very very very good", "very very good") == ("very", "")
