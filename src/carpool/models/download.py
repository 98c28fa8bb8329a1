"""One file over HTTP: resumed where it was broken off, checked against its digest."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx2

from carpool.errors import ModelFailed


def download(
    client: httpx2.Client,
    url: httpx2.URL,
    part: Path,
    sha256: str,
    on_bytes: Callable[[int, int | None], None],
) -> None:
    """Download `url` to `part`, going on from what is already there, until its SHA-256 is `sha256`.

    A broken connection is resumed for as long as each attempt brings new bytes. `on_bytes` is told the bytes
    received and the total, None where the server does not say it. Raises `ModelFailed`: where the server
    could not be reached `part` is kept to be resumed later, where the digest is wrong it is deleted.
    """
    name = url.path.rsplit("/", 1)[-1]
    while True:
        before = _size(part)
        try:
            _receive(client, url, part, on_bytes)
            break
        except httpx2.RequestError as error:
            if _size(part) <= before:
                raise ModelFailed(f"{name} cannot be downloaded from {url.host}: {_reason(error)}") from error
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        part.unlink()
        raise ModelFailed(f"{name} from {url.host} has sha256 {digest}, expected {sha256}; it was deleted")


def get(client: httpx2.Client, url: httpx2.URL, accept: str) -> httpx2.Response:
    """A small document. Raises `ModelFailed` where the server cannot be reached or does not answer 200."""
    try:
        response = client.get(url, headers={"accept": accept})
    except httpx2.RequestError as error:
        raise ModelFailed(f"{url.host} cannot be reached: {_reason(error)}") from error
    _expect(response, 200)
    return response


def _receive(
    client: httpx2.Client, url: httpx2.URL, part: Path, on_bytes: Callable[[int, int | None], None]
) -> None:
    offset = _size(part)
    headers = {"accept-encoding": "identity"}
    if offset:
        headers["range"] = f"bytes={offset}-"
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:  # nothing lies beyond what is there; the digest will tell
            return
        _expect(response, 200, 206)
        if response.status_code == 200:  # the server sends the whole file, whatever was asked
            offset = 0
        length = response.headers.get("content-length", "")
        total = offset + int(length) if length.isdecimal() else None
        with part.open("ab") as file:
            file.truncate(offset)
            on_bytes(offset, total)
            for chunk in response.iter_raw():
                file.write(chunk)
                offset += len(chunk)
                on_bytes(offset, total)


def _expect(response: httpx2.Response, *statuses: int) -> None:
    if response.status_code not in statuses:
        url = response.url
        raise ModelFailed(f"{url.host} answered {response.status_code} for {url.path}")


def _reason(error: httpx2.RequestError) -> str:
    return str(error) or type(error).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
