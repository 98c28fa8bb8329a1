"""Which entries an operator means."""

from dataclasses import dataclass

from carpool.cache.entry import Entry


@dataclass(frozen=True, slots=True)
class Selector:
    """The entries that meet every condition given; without conditions, all."""

    tenant: str | None = None
    model: str | None = None
    older_than_s: float | None = None
    """Answered longer ago than this."""
    request_id: str | None = None
    """Answered to this request: what `x-carpool-cache-match` names."""
    digest: str | None = None
    """Of the exact request, in hexadecimal digits."""

    def matches(self, entry: Entry, now: float) -> bool:
        """Whether the entry is selected at this time, in Unix seconds."""
        return (
            self.tenant in (None, entry.tenant)
            and self.model in (None, entry.model)
            and (self.older_than_s is None or now - entry.created > self.older_than_s)
            and (self.digest is None or self.digest == entry.exact.hex())
            # Last, as it decodes the answer.
            and (self.request_id is None or self.request_id == entry.answer.request_id)
        )
