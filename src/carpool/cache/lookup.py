"""The cache's reply to a request."""

from dataclasses import dataclass
from typing import Literal

from carpool.cache.answer import Answer
from carpool.cache.entry import Entry
from carpool.cache.in_flight import Follower, Leader

Outcome = Literal["exact", "joined", "semantic", "miss", "bypass"]


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the cache has for a request. Which of the fields is set follows from the outcome."""

    outcome: Outcome
    answer: Answer | None = None
    """`exact`, `semantic`: the stored answer."""
    entry: Entry | None = None
    """`exact`: where the answer was found; see `AnswerCache.repeat`."""
    flight: Follower | None = None
    """`joined`: the same request's answer as it is generated. On `LeaderLost`, look up again."""
    lead: Leader | None = None
    """`miss`: to be ended by the caller, with `complete`, `fail` or `abandon`."""
    similarity: float | None = None
    """`semantic`: cosine of the two questions."""
    match: str | None = None
    """The id of the request whose answer is used."""
    age_s: float | None = None
    """How old the stored answer is, in seconds."""
