"""The body of a completions request."""

from typing import Annotated

from msgspec import Meta

from carpool.gateway.inputs import Inputs
from carpool.gateway.sampling_schema import Label, SamplingFields
from carpool.gateway.validation import require_default


class CompletionRequest(SamplingFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prompts to be continued."""

    prompt: Inputs
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    """How many of the likeliest tokens to tell beside each token."""

    # Accepted with the values that ask for nothing.
    echo: bool | None = None
    suffix: Label | None = None
    best_of: int | None = None

    def check(self) -> None:
        """Refuse what is known but not served. Raises `Unsupported`."""
        super().check()
        require_default("echo", self.echo, (None, False))
        require_default("suffix", self.suffix, (None, ""))
        require_default("best_of", self.best_of, (None, self.n or 1))
