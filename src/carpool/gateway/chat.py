"""`POST /v1/chat/completions`."""

from collections.abc import Callable
from functools import partial

import msgspec

from carpool.cache.query import chat_query
from carpool.gateway.answers import Question
from carpool.gateway.chat_reply import ChatForm
from carpool.gateway.chat_schema import ChatRequest
from carpool.gateway.text_route import Asked, Form, TextRoute
from carpool.gateway.tool_parser import ToolCallParser
from carpool.gateway.validation import BodyReader
from carpool.models.tool_forms import named_form


class ChatCompletions(TextRoute):
    """The endpoint."""

    reader = BodyReader(msgspec.json.Decoder(ChatRequest))

    def question(self, request: ChatRequest, asked: Asked) -> Question:
        """See `TextRoute`."""
        messages = [message.plain() for message in request.messages]
        max_tokens = request.max_completion_tokens or request.max_tokens
        top_logprobs = (request.top_logprobs or 0) if request.logprobs else None
        tools = msgspec.to_builtins(request.usable_tools) or None
        query = None
        if (cache := asked.cache) is not None:
            fields = asked.query_fields(max_tokens, top_logprobs)
            query = chat_query(cache.config, messages=messages, tools=tools, **fields)
        generate = asked.generate(max_tokens, top_logprobs, messages=messages, tools=tools)
        ending = partial(_ending, partial(_call_parser, request, asked)) if tools else None
        return Question(asked.request_id, [generate], request.stops, query, ending)

    def form(self, request: ChatRequest, asked: Asked) -> Form:
        """See `TextRoute`."""
        parser = partial(_call_parser, request, asked) if request.usable_tools else None
        return ChatForm(asked.request_id, asked.created, asked.model, request.include_usage, parser)


def _call_parser(request: ChatRequest, asked: Asked) -> ToolCallParser:
    """To be called when the reply has begun: only then its model is certain to be up, and its form known."""
    return request.call_parser(named_form(asked.services.client.models[asked.model].tool_form))


def _ending(call_parser: Callable[[], ToolCallParser], text: str, finish_reason: str) -> str:
    """The finish reason of a whole reply with tools, given the model's own."""
    parser = call_parser()
    parser.push(text)
    return parser.ending(finish_reason)
