"""Log lines on standard error."""

import asyncio
import logging
from io import StringIO
from typing import Any

from carpool.cli.logs import LinesOfATurn


class Stream(StringIO):
    """Remembers what is written at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def write(self, text: str) -> int:
        self.written.append(text)
        return len(text)


def logger_to(stream: Stream) -> logging.Logger:
    logger = logging.Logger("test")
    logger.addHandler(LinesOfATurn(stream))
    return logger


async def test_the_lines_of_a_turn_leave_together() -> None:
    stream = Stream()
    logger = logger_to(stream)
    logger.info("one %d", 1)
    logger.info("two")
    assert not stream.written
    await asyncio.sleep(0)
    logger.info("three")
    await asyncio.sleep(0)
    assert stream.written == ["one 1\ntwo\n", "three\n"]


async def test_other_threads_do_not_wait_for_the_event_loop() -> None:
    stream = Stream()
    logger = logger_to(stream)
    logger.info("here")
    await asyncio.to_thread(logger.info, "there")
    assert stream.written[0].startswith("here\n")
    assert "".join(stream.written) == "here\nthere\n"


def test_without_an_event_loop_a_line_is_written_at_once() -> None:
    stream = Stream()
    logger_to(stream).info("one")
    assert stream.written == ["one\n"]


class Closed(Stream):
    """Whose reader has gone."""

    def write(self, text: str) -> int:
        super().write(text)
        raise BrokenPipeError


def test_a_reader_that_has_gone_fails_nobody_who_logs() -> None:
    logger_to(Closed()).info("one")


async def test_a_reader_that_has_gone_is_no_error_of_the_event_loop() -> None:
    stream = Closed()
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, error: errors.append(error))
    logger_to(stream).info("one")
    await asyncio.sleep(0)
    assert stream.written == ["one\n"]
    assert not errors
