"""The keys file: what `carpool keys` writes and a running server reads again whenever it changes."""

import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from carpool.errors import StartError
from carpool.gateway.config import KeyConfig

_OTHERS_MAY_WRITE = 0o022


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    keys: tuple[KeyConfig, ...]


class KeyFile:
    """A JSON file of hashed keys, for its owner only. It need not exist. All errors are `StartError`s."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser()

    def stamp(self) -> tuple[int, int, int] | None:
        """Differs whenever the content may; None where there is no file."""
        try:
            status = os.stat(self.path)  # for each request, and twice as quick
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def read(self) -> tuple[KeyConfig, ...]:
        """The keys. Raises for a file that others may write, and for one that is not a keys file."""
        try:
            text = self.path.read_bytes()
            mode = self.path.stat().st_mode
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StartError(f"{self.path}: {error.strerror}") from None
        if mode & _OTHERS_MAY_WRITE:
            raise StartError(f"{self.path} may be written by others, who could admit themselves: chmod 600")
        try:
            return msgspec.json.decode(text, type=_Content).keys
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StartError(f"{self.path} is not a keys file: {error}") from None
        except StartError as error:  # of a key in it
            raise StartError(f"{self.path}: {error.message}") from None

    def add(self, key: KeyConfig) -> None:
        """Admit a key. Raises if its name is taken."""
        with self._locked() as keys:
            if any(key.name == other.name for other in keys):
                raise StartError(f"there is a key {key.name!r} in {self.path}; revoke it or choose a name")
            self._write((*keys, key))

    def remove(self, name: str) -> None:
        """Admit a key no more. Raises if there is none of this name."""
        with self._locked() as keys:
            left = tuple(key for key in keys if key.name != name)
            if len(left) == len(keys):
                raise StartError(f"there is no key {name!r} in {self.path}")
            self._write(left)

    @contextmanager
    def _locked(self) -> Iterator[tuple[KeyConfig, ...]]:
        """The keys, while nobody else changes them."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path.with_name(f"{self.path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise StartError(f"{self.path}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.read()
        finally:
            os.close(lock)

    def _write(self, keys: Iterable[KeyConfig]) -> None:
        """Replace the file in one go, so that a reader sees the old keys or the new ones."""
        text = msgspec.json.format(msgspec.json.encode(_Content(tuple(keys))), indent=2)
        try:
            # Made with mode 0600.
            with tempfile.NamedTemporaryFile(dir=self.path.parent, delete=False) as file:
                file.write(text + b"\n")
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(self.path)
        except OSError as error:
            raise StartError(f"{self.path}: {error.strerror}") from None
