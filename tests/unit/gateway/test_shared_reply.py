"""Answers from where they are shared."""

import asyncio
from collections.abc import Sequence

from carpool.cache.answer import Answer
from carpool.cache.in_flight import InFlight, LeaderLost
from carpool.gateway.reply import Reply
from carpool.gateway.shared_reply import SharedReply
from carpool.worker.generation import Piece


async def test_others_get_their_turn_while_a_late_follower_catches_up() -> None:
    table = InFlight()
    leader = table.lead("question", lambda _: None)
    follower = table.follow("question")
    assert follower is not None
    leader.start()
    for _ in range(1000):
        leader.publish("a")
    leader.complete(
        Answer(
            text="a" * 1000,
            finish_reason="stop",
            prompt_tokens=1,
            completion_tokens=1000,
            request_id="request",
            created=0,
        )
    )
    reply = await SharedReply.open(follower, False, _nobody)
    text: list[str] = []

    def take(pieces: Sequence[Piece]) -> None:
        text.extend(piece.text for piece in pieces)

    delivery = asyncio.create_task(reply.deliver(take))
    await asyncio.sleep(0)
    assert len(text) < 100
    await delivery
    assert "".join(text) == "a" * 1000


async def _nobody(lost: LeaderLost) -> Reply:
    raise lost
