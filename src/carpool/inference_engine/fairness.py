"""Shares of one resource by start-time fair queueing."""

from __future__ import annotations

_PRUNE_FLOOR = 64


class FairShare:
    """Start-time fair queueing (Goyal, Vin, Cheng 1996), after the fair queueing of Demers et al. (1989).

    Every owner has a start tag: the virtual time at which its next service begins. Whoever has the lowest
    goes next, and is charged afterwards with what the service took divided by its weight. Nothing has to be
    known about a service beforehand, which is why this variant fits model calls. An owner that was away
    starts at the present virtual time, so that idling earns no credit.
    """

    def __init__(self) -> None:
        self.virtual_time = 0.0
        self._finish: dict[str, float] = {}
        self._prune_at = _PRUNE_FLOOR

    def start(self, owner: str) -> float:
        """The owner's start tag."""
        return max(self.virtual_time, self._finish.get(owner, 0.0))

    def begin(self, owner: str) -> None:
        """The owner's service begins: virtual time moves to its start tag."""
        self.virtual_time = self.start(owner)

    def charge(self, owner: str, amount: float) -> None:
        """Charge the owner, in any unit, already divided by its weight."""
        self._finish[owner] = self.start(owner) + amount
        if len(self._finish) > self._prune_at:
            now = self.virtual_time
            self._finish = {name: finish for name, finish in self._finish.items() if finish > now}
            self._prune_at = 2 * len(self._finish) + _PRUNE_FLOOR

    def refund(self, owner: str, amount: float) -> None:
        """Take back a charge whose service did not happen."""
        self._finish[owner] = self._finish.get(owner, self.virtual_time) - amount

    def reset(self) -> None:
        """Forget everything: nobody waits, so nobody can be behind."""
        self.virtual_time = 0.0
        self._finish.clear()
