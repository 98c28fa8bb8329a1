"""The body of a completions request."""

from typing import Annotated

from msgspec import Meta

from carpool.gateway.inputs import Input, Inputs, as_list
from carpool.gateway.sampling_schema import Label, SamplingFields
from carpool.gateway.validation import require_default

_MAX_PROMPTS = 128


class CompletionRequest(SamplingFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prompts to be continued."""

    prompt: Inputs
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    """How many of the likeliest tokens to tell beside each token."""

    # Accepted with the values that ask for nothing.
    echo: bool | None = None
    suffix: Label | None = None
    best_of: int | None = None

    @property
    def prompts(self) -> list[Input]:
        """Each by itself. Raises `InvalidRequest`."""
        return as_list(self.prompt, "prompt", _MAX_PROMPTS)

    @property
    def choices(self) -> int:
        """See `SamplingFields`. Raises `InvalidRequest`."""
        return len(self.prompts) * super().choices

    def check(self) -> None:
        """Refuse what is known but not served. Raises `Unsupported`."""
        super().check()
        require_default("echo", self.echo, (None, False))
        require_default("suffix", self.suffix, (None, ""))
        require_default("best_of", self.best_of, (None, self.n or 1))
