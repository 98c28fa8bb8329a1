"""Messages on a byte stream: a 4-byte little-endian length, then one msgpack-encoded message. No pickle."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import msgspec

from carpool.errors import PayloadTooLarge

MAX_FRAME_BYTES = 256 * 1024 * 1024
"""A longer frame is refused on both sides: the sender does not send it, the receiver gives the stream up."""
READ_BUFFER_BYTES = 256 * 1024
"""For the `limit` of the stream readers: how much is read ahead of the frame in work."""
_LENGTH_BYTES = 4
_WITHIN_A_FRAME = "the stream ended within a frame"

Message = TypeVar("Message")


class FramingError(Exception):
    """What came is not a frame of this protocol; nothing after it on the stream can be trusted."""


async def read_frames(
    reader: asyncio.StreamReader, decoder: "msgspec.msgpack.Decoder[Message]"
) -> AsyncIterator[Message]:
    """Yield messages until the stream ends between two frames.

    Raises `FramingError` for a stream that ends within a frame, a frame over `MAX_FRAME_BYTES` and bytes that
    the decoder does not know. Buffers in a message are views of its frame, not copies.
    """
    rest = b""
    try:
        while chunk := await reader.read(READ_BUFFER_BYTES):
            data, begin = rest + chunk, 0
            while len(data) - begin >= _LENGTH_BYTES:
                end = begin + _LENGTH_BYTES + _size(data, begin)
                if end > len(data):
                    missing = await reader.readexactly(end - len(data))
                    data, begin, end = data[begin:] + missing, 0, end - begin
                yield _decoded(memoryview(data)[begin + _LENGTH_BYTES : end], decoder)
                begin = end
            rest = data[begin:]
    except ConnectionError:
        return  # the other side was killed: for the reader the same as its end
    except asyncio.IncompleteReadError as error:
        raise FramingError(_WITHIN_A_FRAME) from error
    if rest:
        raise FramingError(_WITHIN_A_FRAME)


def _size(data: bytes, begin: int) -> int:
    """The announced length of a frame."""
    size = int.from_bytes(data[begin : begin + _LENGTH_BYTES], "little")
    if size > MAX_FRAME_BYTES:
        raise FramingError(f"a frame of {size} bytes was announced, {MAX_FRAME_BYTES} are allowed")
    return size


def _decoded(frame: memoryview, decoder: "msgspec.msgpack.Decoder[Message]") -> Message:
    try:
        return decoder.decode(frame)
    except msgspec.DecodeError as error:
        raise FramingError(f"not a message of this protocol: {error}") from error


class FrameWriter:
    """Encodes messages onto a stream; after the other side is gone they are dropped.

    What is written in one turn of the event loop leaves together at its end: under load one system call, and
    one awakening of the other side, serves many requests.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._encoder = msgspec.msgpack.Encoder()
        self._frames: list[bytes] = []
        """Lengths and messages of this turn."""

    def write(self, message: Any) -> None:
        """Buffer a message for sending. Raises `PayloadTooLarge` for one over the bound, unsent."""
        frame = self._encoder.encode(message)
        if len(frame) > MAX_FRAME_BYTES:
            raise PayloadTooLarge(
                f"This takes a message of {len(frame)} bytes; {MAX_FRAME_BYTES} are allowed."
            )
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._flush)
        self._frames += (len(frame).to_bytes(_LENGTH_BYTES, "little"), frame)

    def _flush(self) -> None:
        frames, self._frames = self._frames, []
        if frames and not self._writer.is_closing():
            self._writer.writelines(frames)

    async def send(self, message: Any) -> None:
        """`write`, then wait while the other side is far behind."""
        self.write(message)
        if self._writer.transport.get_write_buffer_size():  # mostly there is nothing to wait for
            with contextlib.suppress(ConnectionError):  # the reader of this connection sees its end
                await self._writer.drain()

    def close(self) -> None:
        """Send what is buffered, then end the stream."""
        self._flush()
        self._writer.close()
