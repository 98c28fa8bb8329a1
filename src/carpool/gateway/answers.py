"""A request's way to its text: the cache first, then the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from carpool.cache.in_flight import LeaderLost
from carpool.cache.lookup import Lookup
from carpool.cache.query import Query
from carpool.cache.service import AnswerCache
from carpool.gateway.prompt_lengths import PromptLengths
from carpool.gateway.reply import Ending, GeneratedReply, Reply, SequentialReply, StoredReply
from carpool.gateway.shared_reply import SharedReply
from carpool.worker.client import WorkerClient
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

        (generate,) = question.generates  # those with a query have one
        while True:
            lookup = await self._cache.lookup(
                question.query,
                request_id=question.request_id,
                after=lost,
                before_work=partial(self._client.check_room, generate.model, generate.n),
            )
            if lookup.answer is not None:
                length = None  # an exact hit's own is the stored one
                if lookup.outcome == "semantic":
                    length = await self._lengths.of(generate, question.query)
                return lookup, StoredReply(lookup.answer, length)
            if lookup.flight is None:
                return lookup, await self._lead(question, lookup)
            try:
                return lookup, await SharedReply.open(lookup.flight, whole, ask_again)
            except LeaderLost as error:
                lost = error

    async def _lead(self, question: Question, lookup: Lookup) -> Reply:
        if lookup.lead is None:
            return await self._generate(question)
        # Those who join may have more time than the one who leads, whose own is watched here.
        generate = msgspec.structs.replace(question.generates[0], timeout_s=self._longest_s)
        try:
            generation = await self._client.generate(generate, stop=question.stop)
        except Exception as error:
            lookup.lead.fail(error)
            raise
        except BaseException:
            lookup.lead.abandon()
            raise
        return GeneratedReply(generation, lookup.lead, question.request_id, 1, question.ending)

    async def _generate(self, question: Question) -> Reply:
        replies: list[Reply] = []
        try:
            for generate in question.generates:
                generation = await self._client.generate(generate, stop=question.stop)
                replies.append(GeneratedReply(generation, None, question.request_id, generate.n))
        except BaseException:
            for reply in replies:
                await reply.aclose()
            raise
        return replies[0] if len(replies) == 1 else SequentialReply(replies, question.generates[0].n)
