"""uvicorn's HTTP protocol with one system call less for every reply."""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class HttpProtocol(HttpToolsProtocol):
    """Sends the head of a reply together with the first part of its body."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        self._head_holder = _HeadHolder(transport)
        super().connection_made(cast("asyncio.Transport", self._head_holder))

    def on_response_complete(self) -> None:
        """The reply is over; to HEAD it has no body."""
        self._head_holder.flush()
        super().on_response_complete()


class _HeadHolder:
    """A transport that holds a reply's head until the next write, which comes at once and may be empty."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        """See `asyncio.Transport`."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100 "):
            self._head = data
            return
        self._transport.write(data)

    def close(self) -> None:
        """See `asyncio.Transport`."""
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Send a head that waits for its body."""
        if self._head:
            self.write(b"")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
