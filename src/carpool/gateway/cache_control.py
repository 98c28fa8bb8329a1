"""What a request wants of the answer cache, and what the reply says of it."""

from dataclasses import dataclass

from carpool.cache.config import Mode
from carpool.cache.lookup import Lookup
from carpool.gateway.call import Headers
from carpool.gateway.sampling_schema import CacheOptions


@dataclass(frozen=True, slots=True)
class CacheWish:
    """The request's own say; None: as configured."""

    mode: Mode | None
    no_cache: bool
    no_store: bool

    @classmethod
    def of(cls, cache_control: bytes | None, options: CacheOptions | None) -> "CacheWish":
        """From the header `cache-control` and the body's field `carpool`."""
        if cache_control is None and options is None:
            return _NONE
        directives = {each.strip() for each in (cache_control or b"").lower().split(b",")}
        options = options or _NO_OPTIONS
        return cls(
            options.cache,
            options.no_cache or b"no-cache" in directives,
            options.no_store or b"no-store" in directives,
        )


_NO_OPTIONS = CacheOptions()
_NONE = CacheWish(None, False, False)


def cache_headers(lookup: Lookup) -> Headers:
    """The `x-carpool-cache` headers of a reply."""
    headers: Headers = [(b"x-carpool-cache", lookup.outcome.encode())]
    if lookup.similarity is not None:
        headers.append((b"x-carpool-cache-similarity", b"%.4f" % lookup.similarity))
    if lookup.match is not None:
        headers.append((b"x-carpool-cache-match", lookup.match.encode()))
    if lookup.age_s is not None:
        headers.append((b"x-carpool-cache-age", b"%d" % lookup.age_s))
    return headers
