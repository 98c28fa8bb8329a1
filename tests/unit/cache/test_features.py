import random

import pytest

from carpool.cache.features import NAMES, Candidate, compare, features, with_margins

RARITY = {"what": 1.0, "is": 1.0, "capital": 4.0, "of": 1.0, "france": 5.0, "germany": 6.0}


def shown(first: str, second: str, cosine: float = 0.9) -> dict[str, float]:
    values = features(Candidate(second, cosine, 0.02, 1), compare(first, second, RARITY, 8.0))
    return dict(zip(NAMES, values, strict=True))


def test_what_two_questions_do_not_share() -> None:
    found = shown("What is the capital of France?", "What is the capital of Germany?")
    assert (found["lesser_rarity"], found["greater_rarity"]) == (5.0, 6.0)
    assert (found["lesser_rarest"], found["greater_rarest"]) == (5.0, 6.0)
    assert found["overlap"] == pytest.approx(7 / 18)
    assert (found["name_both_sided"], found["name_one_sided"]) == (1.0, 0.0)
    assert (found["one_sided"], found["equal"], found["question_word"]) == (0.0, 0.0, 0.0)


def test_an_addition_is_one_sided() -> None:
    found = shown("What is the capital?", "What is the capital of Wobble?")
    assert (found["one_sided"], found["name_one_sided"]) == (1.0, 1.0)
    assert (found["lesser_rarity"], found["added_rarity"]) == (0.0, 8.0)


def test_equal_wordings() -> None:
    found = shown("How do I bake bread?", "how can you bake bread", cosine=1.0)
    assert (found["equal"], found["same_words"], found["overlap"], found["common_subsequence"]) == (
        1,
        1,
        1,
        1,
    )
    assert found["distance"] < -6


def test_an_order_is_seen() -> None:
    found = shown("Does a dog chase a cat?", "Does a cat chase a dog?")
    assert (found["same_words"], found["equal"]) == (1.0, 0.0)
    assert found["common_subsequence"] < 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Why is Pluto no planet?", "Is Pluto a planet in 2006?"),
        ("", "What?"),
        ("?!", "..."),
        ("Wie hoch ist der Berg?", "\u5bcc\u58eb\u5c71\u306e\u9ad8\u3055\u306f\uff1f"),
    ],
)
def test_symmetric_and_defined_for_all_texts(first: str, second: str) -> None:
    assert shown(first, second) == shown(second, first)


def test_margins_and_rivals() -> None:
    found = with_margins([("a", 0.95), ("b", 0.93), ("c", 0.85)], 0.8)
    assert [round(each.margin, 6) for each in found] == [0.02, 0.08, 0.05]
    assert [each.rivals for each in found] == [2, 2, 3]
    assert with_margins([], 0.8) == []


def test_the_longest_common_subsequence_is_the_one_of_the_textbook() -> None:
    dice = random.Random(1)
    for _ in range(200):
        first, second = (" ".join(dice.choices(["oak", "ash", "elm", "fir"], k=8)) for _ in range(2))
        row = [0] * 9
        for word in first.split():
            above = row
            row = [0]
            for i, other in enumerate(second.split()):
                row.append(above[i] + 1 if word == other else max(above[i + 1], row[i]))
        assert shown(first, second)["common_subsequence"] == row[-1] / 8
