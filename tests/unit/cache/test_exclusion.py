import pytest

from carpool.cache.exclusion import exclusion

CAPITALS = "What is the capital city of France?"
TEMPLATE = "Is it a good idea to eat an apple at night before one goes to"


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (CAPITALS, "What is the capital city of Spain?", "names"),
        ("Translate to French: good morning", "Translate to French: good evening", "material"),
        ("Translate to French: good morning", "translate to french: Good morning!", None),
        (f"{TEMPLATE} bed?", f"{TEMPLATE} a hard bed?", "addition"),
        (f"{TEMPLATE} bed?", f"{TEMPLATE} work?", None),
        (CAPITALS, "Which city is the capital of France?", None),
    ],
)
def test_exclusion(first: str, second: str, reason: str | None) -> None:
    assert exclusion(first, second, min_shared=8) == reason
    assert exclusion(second, first, min_shared=8) == reason


def test_few_shared_words_are_no_template() -> None:
    two = "Is Python good for servers?", "Is Python good for web servers?"
    assert exclusion(*two, min_shared=0) == "addition"
    assert exclusion(*two, min_shared=8) is None
