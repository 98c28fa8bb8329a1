"""Identical requests share one run of the model: the first leads, the others follow what it publishes.

A flight lives in the table from its first request until its leader ends it, exactly once:

    complete   followers get the rest of the text and the answer
    fail       an error that would strike them as well (a request that is invalid) goes to the followers;
               any other error means `LeaderLost`, and so does every exception after MAX_FAILURES leaders
    abandon    the leader's client left: `LeaderLost`

A follower that gets `LeaderLost` looks up again: the first to do so finds no flight and leads the next one.
Nobody is elected, so no election can be lost. All of this runs on the event loop's thread.
"""

import asyncio
import contextlib
from collections.abc import Callable, Hashable
from types import TracebackType
from weakref import WeakSet

from carpool.cache.answer import Answer, Hit
from carpool.cache.policy import Choice
from carpool.errors import CarpoolError, from_code

MAX_FAILURES = 3
"""Leaders in a row that may fail before their followers get the error: a request that kills its worker must
not do so once per follower."""


class LeaderLost(Exception):
    """The leader ended without an answer; look up again, passing this on."""

    def __init__(self, failures: int) -> None:
        super().__init__("the request that this one followed ended without an answer")
        self.failures = failures


class Flight:
    """The state that a leader and its followers share."""

    def __init__(self, key: Hashable, request_id: str | None, failures: int) -> None:
        self.key = key
        self.request_id = request_id
        self.failures = failures
        self.running = False
        """False until the leader's own search by meaning has missed and the model is asked."""
        self.choice: Choice | None = None
        """What that search has judged, served or not."""
        self.pieces: list[str] = []
        # How it ended; at most one of the three is ever set.
        self.answer: Answer | None = None
        self.hit: Hit | None = None
        self.error: Exception | None = None
        # Weak: a follower whose task was cancelled before it could say goodbye does not count as waiting.
        self.followers: WeakSet[Follower] = WeakSet()

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to come."""
        return not (self.answer is None and self.hit is None and self.error is None)

    def wake(self) -> None:
        """Let every follower look at what has changed."""
        if self.followers:  # mostly there are none, and walking through a weak set costs
            for follower in self.followers:
                follower.changed.set()


class Follower:
    """An asynchronous iterator over the pieces of text that the leader publishes, from the first one on.

    After the last piece `answer` is set. Raises `LeaderLost`, or the leader's error if it would be this
    request's own. A follower that stops before the end must `close`.
    """

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self._taken = 0
        self.changed = asyncio.Event()
        flight.followers.add(self)

    @property
    def answer(self) -> Answer | None:
        """The whole answer, once the leader has completed it."""
        return self._flight.answer

    @property
    def choice(self) -> Choice | None:
        """What the leader's search by meaning has judged, for this request as well; see `search`."""
        return self._flight.choice

    @property
    def request_id(self) -> str | None:
        """The leader's request."""
        return self._flight.request_id

    async def search(self) -> Hit | None:
        """Wait for the outcome of the leader's search by meaning: what it found, or None and pieces follow.

        Raises as the iterator does if the leader ends before that.
        """
        flight = self._flight
        while not (flight.running or flight.ended):
            await self._wait()
        if flight.error is not None and not flight.running:
            self.close()
            raise _own_copy(flight.error)
        return flight.hit

    def __aiter__(self) -> "Follower":
        return self

    async def __anext__(self) -> str:
        while True:
            flight = self._flight
            if self._taken < len(flight.pieces):
                self._taken += 1
                return flight.pieces[self._taken - 1]
            if flight.ended:
                self.close()
                if flight.error is not None:
                    raise _own_copy(flight.error)
                raise StopAsyncIteration
            await self._wait()

    async def _wait(self) -> None:
        self.changed.clear()
        try:
            await self.changed.wait()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop following."""
        self._flight.followers.discard(self)


class Leader:
    """The right and the duty to answer a request for all who ask the same.

    Ends exactly once: the first of `complete`, `fail` and `abandon` counts, later calls do nothing. As a
    context manager it ends as the block does: an error fails it, leaving it without `complete` abandons it.
    """

    def __init__(self, table: "InFlight", flight: Flight, on_complete: Callable[[Answer], None]) -> None:
        self._table = table
        self._flight = flight
        self._on_complete = on_complete
        self._loop = asyncio.get_running_loop()

    @property
    def followers(self) -> int:
        """How many wait for this answer. Above 0, a leader whose own client left had better go on."""
        return len(self._flight.followers)

    @property
    def ended(self) -> bool:
        """Whether one of the three ends was called."""
        return self._flight.ended

    def judged(self, choice: Choice | None) -> None:
        """Note what the search by meaning has judged, before `found` or `start`."""
        self._flight.choice = choice

    def found(self, hit: Hit) -> None:
        """The search by meaning has found an answer: it serves all who wait, and the flight is over."""
        if not self.ended:
            self._flight.hit = hit
            self._table.end(self._flight)

    def start(self) -> None:
        """The search has found nothing and the model is asked: those who wait become followers."""
        self._flight.running = True
        self._flight.wake()

    def publish(self, piece: str) -> None:
        """Hand a piece of text to all followers."""
        if piece and not self.ended:
            self._flight.pieces.append(piece)
            self._flight.wake()

    def complete(self, answer: Answer) -> None:
        """End with the answer; what of its text was not published yet reaches the followers in one piece."""
        if self.ended:
            return
        self.publish(answer.text[sum(map(len, self._flight.pieces)) :])
        self._flight.answer = answer
        self._table.end(self._flight)
        self._on_complete(answer)

    def fail(self, error: Exception) -> None:
        """End with an error of the model or the request."""
        failures = self._flight.failures + 1
        final = isinstance(error, CarpoolError) and not error.retryable
        self._end_with(error if final or failures >= MAX_FAILURES else LeaderLost(failures))

    def abandon(self) -> None:
        """End without a result: the client left, or the answer turned out to be none to share."""
        self._end_with(LeaderLost(self._flight.failures))

    def _end_with(self, error: Exception) -> None:
        if not self.ended:
            self._flight.error = error
            self._table.end(self._flight)

    def __enter__(self) -> "Leader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self.fail(error)
        else:
            self.abandon()

    def __del__(self) -> None:
        # Whoever awaits a lookup may be cancelled while it returns; the leader is then in nobody's hands.
        if not self.ended:
            self._flight.error = LeaderLost(self._flight.failures)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._table.end, self._flight)


class InFlight:
    """The requests that the model is answering now, by what makes two of them the same."""

    def __init__(self, max_flights: int = 4096) -> None:
        self._flights: dict[Hashable, Flight] = {}
        self._max_flights = max_flights

    def __len__(self) -> int:
        return len(self._flights)

    def follow(self, key: Hashable) -> Follower | None:
        """Join the flight of an identical request; None if there is none."""
        flight = self._flights.get(key)
        return None if flight is None or flight.ended else Follower(flight)

    def lead(
        self,
        key: Hashable,
        on_complete: Callable[[Answer], None],
        *,
        shared: bool = True,
        request_id: str | None = None,
        after: LeaderLost | None = None,
    ) -> Leader:
        """Begin a flight. Others can join it if `shared`, no other has its key and the table has room."""
        flight = Flight(key, request_id, after.failures if after else 0)
        if shared and len(self._flights) < self._max_flights:
            self._flights.setdefault(key, flight)
        return Leader(self, flight, on_complete)

    def end(self, flight: Flight) -> None:
        """Forget a flight that has ended and tell its followers."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        flight.wake()


def _own_copy(error: Exception) -> Exception:
    """Each follower raises its own exception, so that their tracebacks do not grow into each other."""
    if isinstance(error, LeaderLost):
        return LeaderLost(error.failures)
    if isinstance(error, CarpoolError):
        return from_code(error.code, error.message, param=error.param, retry_after_s=error.retry_after_s)
    return error
