"""The gateway's part of a graceful stop."""


class Drain:
    """Whether the server is on its way out: it takes no new requests and ends endless streams."""

    def __init__(self) -> None:
        self.begun = False

    def begin(self) -> None:
        """Refuse new requests from now on, except for `/health/`."""
        self.begun = True
