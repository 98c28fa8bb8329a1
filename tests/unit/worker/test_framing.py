"""Messages through any cuts of the stream, and streams that are not ours."""

import asyncio
import socket

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpool.errors import PayloadTooLarge
from carpool.worker import framing, protocol
from carpool.worker.framing import FrameWriter, FramingError, read_frames

IDS = st.integers(0, 2**31)
MESSAGES = st.one_of(
    st.builds(protocol.Hello, st.text(), st.text()),
    st.builds(protocol.Accepted, IDS, IDS),
    st.builds(
        protocol.Error, IDS, st.text(), st.text(), st.none() | st.text(), st.none() | st.floats(0, 1e6)
    ),
    st.builds(protocol.Result, IDS, IDS, st.binary(max_size=2000).map(memoryview), st.lists(IDS)),
    st.builds(
        protocol.Step,
        st.text(),
        st.lists(
            st.builds(
                protocol.StepEntry,
                IDS,
                IDS,
                st.lists(IDS),
                st.none() | st.lists(st.tuples(st.floats(-9, 0), st.lists(st.tuples(IDS, st.floats(-9, 0))))),
                st.none() | st.sampled_from(["stop", "length"]),
            )
        ),
    ),
)


def encode(messages: list[protocol.FromWorker]) -> bytes:
    """What is sent for these messages."""

    async def write() -> bytes:
        ours, theirs = socket.socketpair()
        reader, other = await asyncio.open_unix_connection(sock=theirs)
        _, writer = await asyncio.open_unix_connection(sock=ours)
        frames = FrameWriter(writer)
        try:
            for message in messages:
                frames.write(message)
            frames.close()
            return await reader.read()
        finally:
            for end in (writer, other):
                end.close()
                await end.wait_closed()

    return asyncio.run(write())


def decode(chunks: list[bytes]) -> list[protocol.FromWorker]:
    """What is read from a stream that comes in these chunks and then ends."""

    async def read() -> list[protocol.FromWorker]:
        reader = asyncio.StreamReader()

        async def feed() -> None:
            for chunk in chunks:
                reader.feed_data(chunk)
                await asyncio.sleep(0)
            reader.feed_eof()

        feeding = asyncio.create_task(feed())
        try:
            decoder = msgspec.msgpack.Decoder(protocol.FromWorker)
            return [message async for message in read_frames(reader, decoder)]
        finally:
            await feeding

    return asyncio.run(read())


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(st.lists(MESSAGES, max_size=4), st.lists(IDS, max_size=20))
@settings(max_examples=50, deadline=None)
def test_messages_survive_any_cuts(messages: list[protocol.FromWorker], cuts: list[int]) -> None:
    assert decode(split(encode(messages), cuts)) == messages


@given(MESSAGES, IDS)
@settings(max_examples=50, deadline=None)
def test_a_stream_that_ends_within_a_frame_is_refused(message: protocol.FromWorker, cut: int) -> None:
    data = encode([message])
    with pytest.raises(FramingError, match="within a frame"):
        decode([data[: 1 + cut % (len(data) - 1)]])


@given(st.binary(min_size=1, max_size=200))
@settings(deadline=None)
def test_garbage_is_refused(body: bytes) -> None:
    with pytest.raises(FramingError):
        decode([len(body).to_bytes(4, "little") + body])


def test_an_oversize_frame_is_refused_before_it_is_read() -> None:
    with pytest.raises(FramingError, match="was announced"):
        decode([(framing.MAX_FRAME_BYTES + 1).to_bytes(4, "little")])


def test_an_oversize_message_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_FRAME_BYTES", 1000)
    with pytest.raises(PayloadTooLarge, match="1000 are allowed"):
        encode([protocol.Hello("x" * 1000, "cpu")])


def test_a_result_is_a_view_of_its_frame() -> None:
    [result] = decode([encode([protocol.Result(1, 2, memoryview(b"\0" * 8), [3])])])
    assert isinstance(result, protocol.Result)
    assert isinstance(result.data.obj, bytes)
    assert len(result.data.obj) > len(result.data)


def test_what_is_written_in_one_turn_leaves_together() -> None:
    class Stream:
        """Remembers what is written at a time."""

        def __init__(self) -> None:
            self.written: list[list[bytes]] = []

        def is_closing(self) -> bool:
            return False

        def writelines(self, data: list[bytes]) -> None:
            self.written.append(data)

    async def write() -> list[list[bytes]]:
        stream = Stream()
        frames = FrameWriter(stream)  # type: ignore[arg-type]
        frames.write(protocol.Accepted(1, 5))
        frames.write(protocol.Accepted(2, 5))
        assert not stream.written
        await asyncio.sleep(0)
        frames.write(protocol.Accepted(3, 5))
        await asyncio.sleep(0)
        return stream.written

    together, alone = asyncio.run(write())
    assert decode([b"".join(together)]) == [protocol.Accepted(1, 5), protocol.Accepted(2, 5)]
    assert decode([b"".join(alone)]) == [protocol.Accepted(3, 5)]
