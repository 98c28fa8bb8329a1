from hypothesis import given
from hypothesis import strategies as st

from carpool.cache.ranking import Ranking


def test_of_equals_the_first_that_came() -> None:
    ranking = Ranking()
    for key in (b"b", b"a", b"c"):
        ranking.add(key, 1.0)
    assert ranking.smallest() == (b"b", 1.0)
    ranking.raise_to(b"b", 2.0)
    assert ranking.smallest() == (b"a", 1.0)
    ranking.discard(b"a")
    ranking.discard(b"unknown")
    assert ranking.smallest() == (b"c", 1.0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "raise", "discard", "take"]), st.integers(0, 9), st.integers(0, 99)
        ),
        max_size=400,
    )
)
def test_it_finds_what_comparing_all_finds(history: list[tuple[str, int, int]]) -> None:
    ranking, numbers = Ranking(), dict[bytes, float]()
    for action, name, number in history:
        key = bytes([name])
        if action == "add":
            ranking.discard(key)
            ranking.add(key, number)
            numbers[key] = number
        elif action == "raise" and key in numbers:
            numbers[key] += number
            ranking.raise_to(key, numbers[key])
        elif action == "discard":
            ranking.discard(key)
            numbers.pop(key, None)
        smallest = ranking.smallest()
        assert len(ranking) == len(numbers)
        if smallest is None:
            assert not numbers
        else:
            assert smallest[1] == numbers[smallest[0]] == min(numbers.values())
            if action == "take":
                ranking.discard(smallest[0])
                del numbers[smallest[0]]
