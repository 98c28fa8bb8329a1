import numpy as np
import pytest

from carpool.cache.entry import Entry, Record
from carpool.cache.index import normalised
from tests.unit.cache.bag_of_words import answer, ask


def record(**fields: float) -> Record:
    entry = Entry.of(ask("What?"), answer("That.", **fields), cost_ms=12.5)
    return Record(entry, normalised(np.arange(1, 9, dtype=np.float32)))


def test_a_record_survives_its_encoding() -> None:
    one = record()
    again = Record.decode(one.entry.exact, one.encode("e1"), "e1")
    for name in Entry.__slots__:
        assert getattr(again.entry, name) == getattr(one.entry, name)
    assert again.vector is not None
    assert one.vector is not None
    assert np.allclose(again.vector, one.vector)
    assert Record.decode(one.entry.exact, one.encode("e1"), "e2").vector is None
    assert Record.decode(one.entry.exact, Record(one.entry, None).encode("e1"), "e1").vector is None


def test_no_changed_bit_and_no_cut_goes_unnoticed() -> None:
    one = record()
    data = one.encode("e1")
    for place in range(len(data)):
        for damaged in (data[:place], data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]):
            with pytest.raises(ValueError, match="checksum"):
                Record.decode(one.entry.exact, damaged, "e1")


def test_what_has_a_checksum_and_is_wrong_all_the_same() -> None:
    one = record()
    with pytest.raises(ValueError, match="another request"):
        Record.decode(b"other", one.encode("e1"), "e1")
    with pytest.raises(ValueError, match="not a number"):
        Record.decode(one.entry.exact, record(created=float("nan")).encode("e1"), "e1")
    assert one.vector is not None
    for poison in (np.full(8, np.nan, dtype=np.float32), np.zeros(8, dtype=np.float32)):
        with pytest.raises(ValueError, match="direction"):
            Record.decode(one.entry.exact, Record(one.entry, poison).encode("e1"), "e1")
