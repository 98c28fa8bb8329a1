"""Server-sent events as OpenAI writes them: `data` lines only, and `[DONE]` where a stream is complete."""

import msgspec

DONE = b"data: [DONE]\n\n"

_encoder = msgspec.json.Encoder()


def event(data: msgspec.Struct) -> bytes:
    """An event with a JSON value."""
    return raw_event(_encoder.encode(data))


class TextEvents:
    """Events that are alike but for one text: encoded once, then filled in, in a third of the time."""

    HOLE = "\0text\0"
    """What stands in the text's place in the example."""

    def __init__(self, example: msgspec.Struct) -> None:
        self._before, self._after = event(example).split(_encoder.encode(self.HOLE))

    def event(self, text: str) -> bytes:
        """The event with this text."""
        return b"%b%b%b" % (self._before, _encoder.encode(text), self._after)


def raw_event(data: bytes) -> bytes:
    """An event with JSON that is encoded already; it holds no line break."""
    return b"data: %b\n\n" % data
