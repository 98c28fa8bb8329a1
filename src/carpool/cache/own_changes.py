"""Which entries of a shared store have a change of this process under way: it has the last word on them."""

from collections import Counter


class OwnChanges:
    """Follows own changes from the queue into the log of changes, until they are read there.

    While one of an entry is under way, whatever others have done to that entry stands before it in the log,
    and whatever a read of the store finds may be older: neither may be applied here.
    """

    def __init__(self) -> None:
        self._unwritten: Counter[bytes] = Counter()
        self._unread: Counter[bytes] = Counter()

    def __contains__(self, key: bytes) -> bool:
        """Whether a change of this entry is under way."""
        return key in self._unread

    def queued(self, key: bytes) -> None:
        """It waits to be written."""
        self._unwritten[key] += 1
        self._unread[key] += 1

    def written(self, key: bytes) -> bool:
        """It is in the log, where it may have been read already. Whether no other of this entry waits."""
        _decrement(self._unwritten, key)
        return key not in self._unwritten

    def refused(self, key: bytes) -> None:
        """It is not in the log, or the log is not followed from here on."""
        _decrement(self._unwritten, key)
        _decrement(self._unread, key)

    def read(self, key: bytes) -> None:
        """It was read in the log."""
        _decrement(self._unread, key)

    def follow_anew(self) -> None:
        """The log is followed from its present end on. Nothing may be on its way to it at this moment."""
        self._unread = self._unwritten.copy()


def _decrement(counter: Counter[bytes], key: bytes) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
