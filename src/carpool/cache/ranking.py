"""Keys in the order of a number that goes with each, for what must be dropped first."""

import heapq
import itertools


class Ranking:
    """The key with the smallest number is found in O(log n); raising a number and dropping a key cost O(1).

    A heap whose items may be out of date: one whose key has a higher number by now goes back when it comes
    up, one whose key is gone goes. When most of the items are of that kind the heap is made anew.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, float] = {}
        self._heap: list[tuple[float, int, bytes]] = []
        """At least one item of each key has a number not above the key's. Of equals the older is first."""
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, key: bytes, number: float) -> None:
        """Take in a key that is not there, or was discarded."""
        self._numbers[key] = number
        heapq.heappush(self._heap, (number, next(self._order), key))

    def raise_to(self, key: bytes, number: float) -> None:
        """Give a key a number that is not below its present one."""
        self._numbers[key] = number

    def discard(self, key: bytes) -> None:
        """Forget a key, known or not."""
        self._numbers.pop(key, None)
        if len(self._heap) > 2 * len(self._numbers) + 64:
            self._heap = [(number, next(self._order), key) for key, number in self._numbers.items()]
            heapq.heapify(self._heap)

    def smallest(self) -> tuple[bytes, float] | None:
        """The key with the smallest number; None without keys."""
        while self._heap:
            number, _, key = self._heap[0]
            present = self._numbers.get(key)
            if present == number:
                return key, number
            if present is None or present < number:  # gone, or there is another item since it came again
                heapq.heappop(self._heap)
            else:
                heapq.heapreplace(self._heap, (present, next(self._order), key))
        return None
