import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.cache.catalogue import Catalogue
from carpool.cache.config import CacheConfig
from carpool.cache.entry import Entry, Record
from carpool.cache.index import normalised, stored_bytes
from carpool.cache.selector import Selector
from tests.unit.cache.bag_of_words import Clock, answer, ask, embed_text


def record(
    question: str,
    clock: Clock,
    *,
    tenant: str = "local",
    dimensions: int | None = 8,
    cost_ms: float = 0.0,
    text: str = "An answer.",
) -> Record:
    entry = Entry.of(ask(question, tenant=tenant), answer(text, created=clock()), cost_ms)
    return Record(entry, normalised(embed_text(question, dimensions)) if dimensions else None)


def full_catalogue(*records: Record) -> Catalogue:
    """A catalogue that has room for these records and no more."""
    catalogue = Catalogue(CacheConfig(max_entries=len(records)), Clock())
    for one in records:
        assert catalogue.add(one) == []
    return catalogue


def test_of_equals_the_oldest_goes_first_and_use_saves_from_that() -> None:
    clock = Clock()
    a, b, c, d = (record(f"question {name}", clock, cost_ms=9) for name in "abcd")
    catalogue = full_catalogue(a, b)
    catalogue.touch(a.entry)
    assert catalogue.add(c) == [b.entry.exact]
    assert catalogue.add(d) == [c.entry.exact]
    assert catalogue.get(a.entry.exact) is a.entry


def test_what_saves_most_for_its_size_stays() -> None:
    clock = Clock()
    slow, quick = record("slow", clock, cost_ms=2000), record("quick", clock, cost_ms=20)
    large = record("large", clock, cost_ms=2000, text="x" * 100_000)
    catalogue = full_catalogue(slow, quick, large)
    new = record("new", clock, cost_ms=2000)
    assert catalogue.add(new) == [quick.entry.exact]
    assert catalogue.add(record("newer", clock, cost_ms=2000)) == [large.entry.exact]


def test_what_was_useful_long_ago_ages() -> None:
    clock = Clock()
    old, other = record("old", clock, cost_ms=100), record("other", clock, cost_ms=100)
    catalogue = full_catalogue(old, other)
    for _ in range(5):
        catalogue.touch(old.entry)
    evicted = [catalogue.add(record(f"q{number:04}", clock, cost_ms=100)) for number in range(40)]
    assert [old.entry.exact] in evicted[3:]  # it outlives newer ones that nobody asked for, but not for ever
    assert catalogue.get(old.entry.exact) is None


def test_a_vector_makes_an_entry_larger_and_less_useful_by_the_byte() -> None:
    clock = Clock()
    a, b = (record(f"question {name}", clock, dimensions=None, cost_ms=9) for name in "ab")
    catalogue = full_catalogue(a, b)
    catalogue.attach(b.entry, normalised(np.ones(512, dtype=np.float32)))
    assert catalogue.add(record("question c", clock, dimensions=None, cost_ms=9)) == [b.entry.exact]


def test_bytes_are_bounded_and_counted_exactly() -> None:
    clock = Clock()
    one = record("one question", clock)
    size = one.entry.size_bytes + stored_bytes(8)
    catalogue = Catalogue(CacheConfig(max_bytes=3 * size + 200), clock)
    for number in range(10):
        catalogue.add(record(f"question {number}", clock))
        assert catalogue.size_bytes <= 3 * size + 200
    assert len(catalogue) == 3
    catalogue.remove(catalogue.keys())
    assert (len(catalogue), catalogue.vectors, catalogue.size_bytes) == (0, 0, 0)


def test_what_is_too_large_by_itself_does_not_displace_the_rest() -> None:
    clock = Clock()
    catalogue = Catalogue(CacheConfig(max_bytes=5000), clock)
    catalogue.add(record("small", clock))
    large = Entry.of(ask("large"), answer("x" * 5000))
    assert catalogue.add(Record(large, None)) == [large.exact]
    assert len(catalogue) == 1


def test_age_is_fixed_however_often_an_entry_is_used() -> None:
    clock = Clock()
    catalogue = Catalogue(CacheConfig(ttl_s=60), clock)
    old = record("old", clock)
    catalogue.add(old)
    clock.now += 59
    new = record("new", clock)
    catalogue.add(new)
    assert catalogue.get(old.entry.exact) is old.entry
    catalogue.touch(old.entry)
    assert catalogue.expire() == []
    clock.now += 1
    assert catalogue.get(old.entry.exact) is None
    assert catalogue.expire() == [old.entry.exact]
    assert len(catalogue) == 1


def test_a_vector_that_comes_late_is_for_its_own_entry_only() -> None:
    clock = Clock()
    catalogue = Catalogue(CacheConfig(), clock)
    first, second = record("same", clock, dimensions=None), record("same", clock, dimensions=None)
    catalogue.add(first)
    catalogue.add(second)
    vector = normalised(np.ones(8, dtype=np.float32))
    assert catalogue.attach(first.entry, vector) == []
    assert catalogue.vectors == 0
    catalogue.attach(second.entry, vector)
    assert (len(catalogue), catalogue.vectors) == (1, 1)
    assert catalogue.searchable(second.entry.partition)


def test_vectors_of_different_length_do_not_meet() -> None:
    clock = Clock()
    catalogue = Catalogue(CacheConfig(), clock)
    a, b = record("first", clock, dimensions=8), record("second", clock, dimensions=16)
    catalogue.add(a)
    catalogue.add(b)
    for dimensions in (8, 16):
        index = catalogue.index(a.entry.partition, dimensions)
        assert index is not None
        assert len(index) == 1
    assert catalogue.index(a.entry.partition, 32) is None


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        (Selector(), {"a", "b", "c"}),
        (Selector(tenant="red"), {"a", "b"}),
        (Selector(tenant="red", older_than_s=10), {"a"}),
        (Selector(model="other"), set()),
        (Selector(model="m", tenant="blue"), {"c"}),
        (Selector(request_id="req-1", tenant="red"), {"a", "b"}),
        (Selector(request_id="req-2"), set()),
        (Selector(digest=ask("a", tenant="red").exact.hex()), {"a"}),
    ],
)
def test_selector(selector: Selector, selected: set[str]) -> None:
    clock = Clock()
    catalogue = Catalogue(CacheConfig(), clock)
    names = {}
    for name, tenant in (("a", "red"), ("b", "red"), ("c", "blue")):
        one = record(name, clock, tenant=tenant)
        catalogue.add(one)
        names[one.entry.exact] = name
        clock.now += 5
    held = [catalogue.get(key) for key in names]
    assert {names[each.exact] for each in held if each and selector.matches(each, clock())} == selected


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "bare", "touch", "remove", "wait"]), st.integers(0, 9)), max_size=80
    )
)
def test_the_books_balance_after_any_history(history: list[tuple[str, int]]) -> None:
    clock = Clock()
    config = CacheConfig(max_entries=5, max_bytes=6000, ttl_s=20)
    catalogue = Catalogue(config, clock)
    for action, number in history:
        one = record(f"question {number}", clock, dimensions=None if action == "bare" else 8)
        if action in ("add", "bare"):
            catalogue.add(one)
        elif action == "touch":
            entry = catalogue.get(one.entry.exact)
            if entry:
                catalogue.touch(entry)
        elif action == "remove":
            catalogue.remove([one.entry.exact])
        else:
            clock.now += number
            catalogue.expire()
        assert len(catalogue) <= 5
        assert catalogue.size_bytes <= 6000
    catalogue.remove(catalogue.keys())
    assert (len(catalogue), catalogue.vectors, catalogue.size_bytes) == (0, 0, 0)
    assert not catalogue.searchable(one.entry.partition if history else b"")
