"""What the admin routes of the answer cache take, in query strings and bodies."""

from typing import Annotated

import msgspec
from msgspec import Meta

from carpool.cache.selector import Selector
from carpool.errors import InvalidRequest
from carpool.gateway.sampling_schema import ModelName

Tenant = Annotated[str, Meta(min_length=1, max_length=64)]
Seconds = Annotated[float, Meta(ge=0)]
RequestId = Annotated[str, Meta(min_length=1, max_length=128)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Selection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Entries that meet every condition given; without conditions, all."""

    tenant: Tenant | None = None
    model: ModelName | None = None
    older_than_s: Seconds | None = None
    """Answered longer ago than this."""
    request_id: RequestId | None = None
    """Answered to this request: what `x-carpool-cache-match` names."""
    digest: Digest | None = None
    """Of the exact request, in 64 hexadecimal digits."""

    @property
    def selector(self) -> Selector:
        """The conditions as the cache takes them."""
        return Selector(self.tenant, self.model, self.older_than_s, self.request_id, self.digest)


class EntryQuery(Selection, frozen=True, kw_only=True):
    """Which entries to show, newest first."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 20


class Invalidation(Selection, frozen=True, kw_only=True):
    """Which entries to drop. Without any condition it is refused, unless `all` is true."""

    all: bool = False
    dry_run: bool = False
    """Only count them."""

    def check(self) -> None:
        """Raises `InvalidRequest` unless it is clear what is meant."""
        if self.all and self.selector != Selector():
            raise InvalidRequest("Give conditions or `all`, not both.", param="all")
        if not self.all and self.selector == Selector():
            raise InvalidRequest(
                "Give a condition (tenant, model, older_than_s, request_id, digest), or `all`: true."
            )


class AuditQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which pending audits to show, oldest first."""

    tenant: Tenant | None = None
    model: ModelName | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 20


class VerdictRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person's verdict."""

    wrong: bool
    """The stored answer does not serve the question."""
