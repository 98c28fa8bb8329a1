"""Server-sent events as OpenAI writes them: `data` lines only, and `[DONE]` where a stream is complete."""

import msgspec

DONE = b"data: [DONE]\n\n"

_encoder = msgspec.json.Encoder()


def event(data: msgspec.Struct) -> bytes:
    """An event with a JSON value."""
    return raw_event(_encoder.encode(data))


def raw_event(data: bytes) -> bytes:
    """An event with JSON that is encoded already; it holds no line break."""
    return b"data: %b\n\n" % data
