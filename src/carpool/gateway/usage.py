"""Token counts as OpenAI tells them."""

import msgspec

from carpool.gateway.reply import Tokens


class PromptTokensDetails(msgspec.Struct, frozen=True):
    """Of the prompt tokens, those that need not be computed again."""

    cached_tokens: int


class Usage(msgspec.Struct, frozen=True):
    """What a request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails

    @classmethod
    def of(cls, tokens: Tokens) -> "Usage":
        """The usage of a reply that has ended."""
        return cls(
            tokens.prompt,
            tokens.completion,
            tokens.prompt + tokens.completion,
            PromptTokensDetails(tokens.cached),
        )
