import pytest

from carpool.cache.vetoes import vetoed


@pytest.mark.parametrize(
    ("first", "second", "veto"),
    [
        ("What is the square root of 18?", "What is the square root of 16?", "numbers"),
        ("How to get thin in two weeks?", "How to get thin in four weeks?", "numbers"),
        ("Is the Moto G good?", "Is the Moto G2 good?", "numbers"),
        ("Is 3.5 more than 35?", "Is 35 more than 35?", "numbers"),
        ("How many moons has Mars?", "How many moons have 2 planets?", "numbers"),
        ("Can I train with weights?", "Can I train without weights?", "negation"),
        ("Should I invest?", "Why shouldn\u2019t I invest?", "negation"),
        ("Is Pluto a planet?", "Is Pluto not a planet?", "negation"),
        ("Can animals speak?", "Why can't animals speak?", "negation"),
        ("What is 2+2?", "What is 2-2?", "symbols"),
        ("What is 2 + 3?", "What is 2*3?", "symbols"),
        ("Is x < y?", "Is x > y?", "symbols"),
        ("What does it cost in \u20ac?", "What does it cost in $?", "symbols"),
        ("Convert 5 miles to km", "Convert 5 km to miles", "order"),
        ("Is Python faster than C?", "Is C faster than Python?", "order"),
        ("Does a dog chase a cat?", "Does a cat chase a dog?", "order"),
        ("Who is the father of Luke?", "Who is Luke the father of?", "order"),
        ("What is a well-known book?", "What is a well known book?", None),
        ("How do I boil an egg?", "How can I boil eggs?", None),
        (
            "What is the largest planet of our solar system?",
            "Which is the largest planet in our solar system?",
            None,
        ),
        ("What is 10 plus 5?", "what's ten plus 5", None),
        ("How far is 1,000 km?", "How far is 1000 km?", None),
        ("Which one is better?", "Which is better?", None),
        ("Why is PayPal not in India?", "Why isn't PayPal in India?", None),
        ("How do bees fly?", "How does a bee fly?", None),
    ],
)
def test_vetoes(first: str, second: str, veto: str | None) -> None:
    assert vetoed(first, second) == veto
    assert vetoed(second, first) == veto
