"""Asks a running server's admin routes. Whatever goes wrong is a `StartError`: one line."""

import argparse
import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from carpool.errors import StartError

KEY_VARIABLE = "CARPOOL_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8000"

_CONNECT_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 900.0
"""Longer than a server takes by its default `gateway.request_timeout_s`."""


def add_server(parser: argparse.ArgumentParser) -> None:
    """`--url` and `--key-file`. The key itself is no option: everybody on a machine can read those."""
    parser.add_argument("--url", default=DEFAULT_URL, help=f"the server (default {DEFAULT_URL})")
    parser.add_argument(
        "--key-file",
        type=Path,
        help=f"file that holds a key with the scope admin; default: the environment variable {KEY_VARIABLE}",
    )


class AdminClient:
    """A connection to one server. Use as a context manager."""

    def __init__(self, url: str, key: str | None) -> None:
        self._url = url.rstrip("/")
        self._has_key = key is not None
        self.headers = {"authorization": f"Bearer {key}"} if key else {}
        """What every request carries."""
        try:
            self._http = httpx2.Client(
                base_url=self._url,
                headers=self.headers,
                timeout=httpx2.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
            )
        except httpx2.InvalidURL:
            raise StartError(f"--url {url} is not a URL") from None

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "AdminClient":
        """By `--url` and the key that is at hand. Raises `StartError`."""
        key = os.environ.get(KEY_VARIABLE)
        origin = KEY_VARIABLE
        if arguments.key_file is not None:
            origin = str(arguments.key_file)
            try:
                key = arguments.key_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise StartError(f"--key-file {origin} cannot be read: {error}") from None
        if key is not None and not (key.isascii() and key.isprintable() and key):
            raise StartError(f"{origin} holds no key")
        return cls(arguments.url, key)

    @property
    def url(self) -> str:
        """The server's, without a slash at the end."""
        return self._url

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """The JSON reply. Parameters that are None are left out."""
        with self._told():
            return self._read(self._http.get(path, params=_given(query or {})))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON reply. Fields that are None are left out."""
        with self._told():
            return self._read(self._http.post(path, json=_given(body)))

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON reply. Fields that are None are sent."""
        with self._told():
            return self._read(self._http.patch(path, json=body))

    def lines(self, path: str, query: Mapping[str, Any]) -> Iterator[bytes]:
        """The reply as it comes, in parts."""
        with self._told(), self._http.stream("GET", path, params=_given(query)) as reply:
            if reply.status_code != 200:
                reply.read()
                self._read(reply)
            yield from reply.iter_bytes()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except httpx2.UnsupportedProtocol:
            raise StartError(f"--url {self._url} must begin with http:// or https://") from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            raise StartError(
                f"no server answers at {self._url}: start `carpool serve`, or give --url"
            ) from None
        except httpx2.HTTPError as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StartError(f"{self._url} broke off: {reason}") from None

    def _read(self, reply: httpx2.Response) -> Any:
        try:
            body = reply.json()
            if reply.status_code in (200, 202):
                return body
            message = body["error"]["message"]
        except (ValueError, KeyError, TypeError):
            raise StartError(
                f"{self._url} does not answer like a Carpool server (status {reply.status_code})"
            ) from None
        if reply.status_code == 401:
            message = (
                "the server does not know this key"
                if self._has_key
                else f"the server asks for a key: set {KEY_VARIABLE} or give --key-file"
            )
        raise StartError(message)


def print_json(body: Any) -> None:
    """For machines."""
    print(json.dumps(body, ensure_ascii=False, indent=1))


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
