import itertools

from hypothesis import given
from hypothesis import strategies as st

from carpool.models.stop import StopChecker

TEXT = st.text(alphabet="abc", max_size=30)
STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=5), max_size=4)


def reference(text: str, stops: list[str], skipped: int = 0) -> tuple[str, str | None]:
    """What is shown, and the stop string: the first to be complete, of several the longest."""
    for end in range(skipped + 1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: max(skipped, end - len(longest))], longest
    return text, None


@given(TEXT, STOPS, st.lists(st.integers(0, 30)))
def test_equals_the_search_in_the_whole_text_for_every_split(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    checker = StopChecker(stops)
    shown, pushed = "", ""
    matched: str | None = None
    for begin, end in itertools.pairwise(edges):
        emitted, matched = checker.push(text[begin:end])
        shown += emitted
        pushed += text[begin:end]
        if matched:
            break
        held = pushed[len(shown) :]
        assert pushed == shown + held
        assert not held or any(stop.startswith(held) for stop in stops), "more is held back than may match"
    if not matched:
        shown += checker.flush()
    assert (shown, matched) == reference(text, stops)


@given(TEXT, STOPS, st.lists(st.integers(0, 30)), st.integers(0, 30), st.integers(0, 30))
def test_what_is_skipped_stops_nothing_but_may_begin_what_does(
    text: str, stops: list[str], cuts: list[int], first: int, second: int
) -> None:
    skipped = min(max(first, second), len(text))
    first = min(first, second, skipped)
    checker = StopChecker(stops)
    shown = checker.skip(text[:first]) + checker.skip(text[first:skipped])
    matched: str | None = None
    for begin, end in itertools.pairwise(
        sorted({skipped, len(text), *(cut for cut in cuts if skipped < cut < len(text))})
    ):
        emitted, matched = checker.push(text[begin:end])
        shown += emitted
        if matched:
            break
    if not matched:
        shown += checker.flush()
    assert (shown, matched) == reference(text, stops, skipped)


def test_spans_tokens_and_holds_back_only_what_may_match() -> None:
    checker = StopChecker(["\n\nUser:"])
    assert checker.push("Hello\n") == ("Hello", None)
    assert checker.push("World\n\nUs") == ("\nWorld", None)
    assert checker.push("er: more") == ("", "\n\nUser:")
    assert checker.push("and more") == ("", "\n\nUser:")
    assert checker.flush() == ""


def test_flush_gives_what_was_held() -> None:
    checker = StopChecker(["END"])
    assert checker.push("the EN") == ("the ", None)
    assert checker.flush() == "EN"
    assert checker.flush() == ""


def test_no_stop_strings() -> None:
    checker = StopChecker([])
    assert checker.push("abc") == ("abc", None)
    assert checker.flush() == ""
