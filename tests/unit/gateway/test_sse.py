"""Events that are encoded once and filled in."""

import pytest

from carpool.gateway.chat_reply import ChatForm
from carpool.gateway.sse import TextEvents, event
from carpool.worker.generation import Piece


@pytest.mark.parametrize("text", ["plain", 'a "quote" \\ and\nlines', "\0", "größer 🚲", TextEvents.HOLE])
def test_a_filled_in_event_is_what_encoding_it_gives(text: str) -> None:
    form = ChatForm("req-1", 1, "org/model", include_usage=True)
    filled = [each for index in (0, 1, 0) for each in form.events(Piece(index, text))]
    ended = [form.events(Piece(index, text, "stop"))[0] for index in (0, 1, 0)]
    assert filled == ended


def test_a_piece_without_text_is_no_event() -> None:
    assert ChatForm("req-1", 1, "m", include_usage=False).events(Piece(0, "")) == []


def test_an_event_is_one_line_and_a_blank_one() -> None:
    assert event(Piece(0, "a\nb")).count(b"\n") == 2
