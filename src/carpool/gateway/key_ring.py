"""The keys that are admitted now: those of the settings, and those of the keys file."""

import hashlib
import hmac
import logging

from carpool.errors import StartError
from carpool.gateway.config import GatewayConfig, KeyConfig, check_distinct
from carpool.gateway.key_file import KeyFile
from carpool.gateway.key_limits import KeyLimits

_log = logging.getLogger(__name__)


class KeyRing:
    """Knows keys by their hashes. The file is read again as soon as it has changed.

    A file that is no longer readable changes nothing: the keys before stay in force, and the log says so. A
    server that ever had a key stays closed without one, and one that other machines can reach always is.
    Raises `StartError` for a file that cannot be read at the start.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._fixed = config.keys
        self._file = None if config.keys_file is None else KeyFile(config.keys_file)
        self._stamp: tuple[int, int, int] | None = None
        self._keys: list[tuple[bytes, KeyLimits]] = []
        self._closed = not config.is_loopback
        if self._file is not None:
            self._stamp = self._file.stamp()
        self._put(self._file.read() if self._file is not None else ())

    @property
    def closed(self) -> bool:
        """Whether a key is needed."""
        self._refresh()
        return self._closed

    @property
    def was_closed(self) -> bool:
        """Whether a key was needed when that was asked last, without a look at the file."""
        return self._closed

    def identify(self, presented: bytes | None) -> KeyLimits | None:
        """The key with this text, and what it has used of its limits.

        Every hash is compared, so the time taken tells nothing.
        """
        if presented is None:
            return None
        self._refresh()
        digest = hashlib.sha256(presented).digest()
        found = None
        for known, limits in self._keys:
            if hmac.compare_digest(known, digest):
                found = limits
        return found

    def _refresh(self) -> None:
        if self._file is None or (stamp := self._file.stamp()) == self._stamp:
            return
        self._stamp = stamp
        try:
            self._put(self._file.read())
        except StartError as error:
            _log.error("the keys stay as they were: %s", error.message)
        else:
            _log.info("%s was read again: %d keys are admitted", self._file.path, len(self._keys))

    def _put(self, from_file: tuple[KeyConfig, ...]) -> None:
        keys = (*self._fixed, *from_file)
        check_distinct(keys)
        kept = {limits.key: limits for _, limits in self._keys}  # what it has used of them, too
        self._keys = [
            (bytes.fromhex(key.hash.removeprefix("sha256:")), kept.get(key) or KeyLimits(key)) for key in keys
        ]
        self._closed = self._closed or bool(keys)
