"""`POST /v1/completions`."""

import msgspec

from carpool.cache.query import completion_query
from carpool.gateway.answers import Question
from carpool.gateway.completion_reply import CompletionForm
from carpool.gateway.completion_schema import CompletionRequest
from carpool.gateway.inputs import Input
from carpool.gateway.text_route import Asked, Form, TextRoute
from carpool.gateway.validation import BodyReader
from carpool.worker.protocol import Generate


class Completions(TextRoute):
    """The endpoint."""

    reader = BodyReader(msgspec.json.Decoder(CompletionRequest))

    def question(self, request: CompletionRequest, asked: Asked) -> Question:
        """See `TextRoute`. Several prompts do without the cache."""
        prompts = request.prompts
        query = None
        if len(prompts) == 1 and (cache := asked.cache) is not None:
            fields = asked.query_fields(request.max_tokens, request.logprobs)
            query = completion_query(cache.config, prompt=prompts[0], **fields)
        generates = [_generate(request, asked, prompt) for prompt in prompts]
        return Question(asked.request_id, generates, request.stops, query)

    def form(self, request: CompletionRequest, asked: Asked) -> Form:
        """See `TextRoute`."""
        return CompletionForm(asked.request_id, asked.created, asked.model, request.include_usage)


def _generate(request: CompletionRequest, asked: Asked, prompt: Input) -> Generate:
    given = {"prompt": prompt} if isinstance(prompt, str) else {"prompt_ids": prompt}
    return asked.generate(request.max_tokens, request.logprobs, **given)
