"""A request's way to its text: the cache first, then the model."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from carpool.cache.answer import Answer
from carpool.cache.in_flight import Leader, LeaderLost
from carpool.cache.lookup import Lookup
from carpool.cache.query import Query
from carpool.cache.service import AnswerCache
from carpool.gateway.prompt_lengths import PromptLengths
from carpool.gateway.reply import Ending, GeneratedReply, Reply, SequentialReply, StoredReply
from carpool.gateway.shared_reply import SharedReply
from carpool.worker.client import WorkerClient
from carpool.worker.places import Reservation
from carpool.worker.protocol import Generate

_BYPASS = Lookup("bypass")


@dataclass(frozen=True, slots=True)
class Question:
    """A validated request for text."""

    request_id: str
    generates: list[Generate]
    """One for each prompt."""
    stop: Sequence[str]
    query: Query | None
    """Its terms in the cache; None where it has none, which goes for several prompts."""
    ending: Ending | None = None
    """The finish reason of a whole text, where the model's own is not all there is to it."""

    @property
    def choices(self) -> int:
        """Of the reply, those of all prompts together."""
        return sum(generate.n for generate in self.generates)


class Answers:
    """Opens replies."""

    def __init__(self, client: WorkerClient, cache: AnswerCache | None, longest_s: float) -> None:
        """`longest_s` is how long any request may take."""
        self._client = client
        self._cache = cache
        self._longest_s = longest_s
        self._lengths = PromptLengths(client)

    async def open(self, question: Question, whole: bool) -> tuple[Lookup, Reply]:
        """The reply to a question, when it is certain to begin, with what the cache had.

        `whole`: the text is wanted all at once, so a shared answer is waited for. One that fails half-way is
        asked for again. Raises the `CarpoolError` that refuses the request. The caller closes the reply.
        """
        return await self._open(question, whole, None)

    async def _open(self, question: Question, whole: bool, lost: LeaderLost | None) -> tuple[Lookup, Reply]:
        """`lost`: what ended the flight that the request followed before."""
        if self._cache is None or question.query is None:
            return _BYPASS, await self._generate(question)

        async def ask_again(lost: LeaderLost) -> Reply:
            return (await self._open(question, whole, lost))[1]

        reserved: list[Reservation] = []
        try:
            while True:
                lookup = await self._cache.lookup(
                    question.query,
                    request_id=question.request_id,
                    after=lost,
                    before_work=lambda: reserved.append(self._reserve(question)),
                )
                if (answer := lookup.answer) is not None:
                    break
                if lookup.lead is not None:
                    return lookup, await self._lead(question, lookup.lead, reserved[-1])
                if lookup.flight is None:
                    return lookup, await self._generate(question)
                try:
                    return lookup, await SharedReply.open(lookup.flight, whole, ask_again)
                except LeaderLost as error:
                    lost = error
        finally:
            for places in reserved:
                places.close()
        return lookup, await self._stored(question, question.query, lookup.outcome, answer)

    async def _stored(self, question: Question, query: Query, outcome: str, answer: Answer) -> Reply:
        length = None  # an exact hit's own is the stored one
        if outcome == "semantic":
            (generate,) = question.generates  # those with a query have one
            length = await self._lengths.of(generate, query)
        return StoredReply(answer, length)

    def _reserve(self, question: Question) -> Reservation:
        """All places that it needs, before any work is done for it. Raises `Overloaded`."""
        return self._client.reserve(question.generates[0].model, question.choices)

    async def _lead(self, question: Question, lead: Leader, places: Reservation) -> Reply:
        # Those who join may have more time than the one who leads, whose own is watched here.
        generate = msgspec.structs.replace(question.generates[0], timeout_s=self._longest_s)
        try:
            generation = await self._client.generate(generate, stop=question.stop, places=places)
        except Exception as error:
            lead.fail(error)
            raise
        except BaseException:
            lead.abandon()
            raise
        return GeneratedReply(generation, lead, question.request_id, 1, question.ending)

    async def _generate(self, question: Question) -> Reply:
        replies: list[Reply] = []
        places = self._reserve(question)
        try:
            for generate in question.generates:
                generation = await self._client.generate(generate, stop=question.stop, places=places)
                replies.append(GeneratedReply(generation, None, question.request_id, generate.n))
        except BaseException:
            for reply in replies:
                await reply.aclose()
            raise
        finally:
            places.close()
        return replies[0] if len(replies) == 1 else SequentialReply(replies, question.generates[0].n)
