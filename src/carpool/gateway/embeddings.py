"""`POST /v1/embeddings`."""

from collections.abc import Sequence
from typing import cast

import msgspec
from starlette.types import Receive, Scope, Send

from carpool.errors import InvalidRequest
from carpool.gateway.cl100k import Cl100k
from carpool.gateway.embedding_reply import body_slices, shortened
from carpool.gateway.embedding_schema import EmbeddingRequest
from carpool.gateway.exchange import JSON, Exchange
from carpool.gateway.inputs import Input, as_list
from carpool.gateway.lane import lane_of
from carpool.gateway.services import Services
from carpool.gateway.validation import BodyReader
from carpool.worker.protocol import Embed
from carpool.worker.states import ModelState


class Embeddings:
    """The endpoint. Raises `StartError` for a kind of token ids that cannot be read here."""

    _reader = BodyReader(msgspec.json.Decoder(EmbeddingRequest))

    def __init__(self, services: Services) -> None:
        self._services = services
        self._token_ids = services.config.embeddings.token_ids
        self._cl100k = Cl100k() if self._token_ids == "cl100k" else None  # noqa: S105

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        config = self._services.config
        exchange = Exchange(scope, receive, send, config.request_timeout_s)
        with self._services.admission.place(exchange.call.limits):
            body = await exchange.body(config.max_body_bytes)
            request: EmbeddingRequest = self._reader.read(body)
            state = self._services.client.resolve(request.model)
            call = self._call(request, state, exchange)
            async with exchange.attended():
                await self._answer(request, call, exchange)

    def _call(self, request: EmbeddingRequest, state: ModelState, exchange: Exchange) -> Embed:
        """The call to the worker. Raises `InvalidRequest`."""
        config = self._services.config
        inputs = self._read(as_list(request.input, "input", config.embeddings.max_inputs))
        if state.dimensions is not None:  # otherwise it is not up, and its vectors will tell
            _check_dimensions(request, state.name, state.dimensions)
        return Embed(
            id=0,
            model=state.name,
            inputs=inputs,
            truncate=bool(request.truncate),
            priority=lane_of(exchange, len(inputs)),
            tenant=exchange.call.tenant,
            timeout_s=exchange.deadline.left_s,
        )

    def _read(self, inputs: list[Input]) -> Sequence[Input]:
        """Inputs as the model takes them, by the setting for token ids. Raises `InvalidRequest`."""
        if isinstance(inputs[0], str):
            return inputs
        if self._cl100k is not None:
            return self._cl100k.texts(cast("list[list[int]]", inputs), "input")
        if self._token_ids == "own":  # noqa: S105
            return inputs
        raise InvalidRequest(
            "`input` holds token ids, which mean something else to every model; this server takes text. "
            "With LangChain's OpenAIEmbeddings, set check_embedding_ctx_length=False. The setting "
            "embeddings.token_ids accepts ids: `own` as the model's own, `cl100k` as OpenAI's.",
            param="input",
        )

    async def _answer(self, request: EmbeddingRequest, call: Embed, exchange: Exchange) -> None:
        embeddings = await self._services.client.embed(call)
        vectors, num_tokens = embeddings.vectors, sum(embeddings.tokens)
        _check_dimensions(request, call.model, vectors.shape[1])
        if request.dimensions is not None:
            vectors = shortened(vectors, request.dimensions)
        self._services.metrics.embedded(call.model, len(call.inputs), num_tokens)
        coded = request.encoding_format == "base64"
        await exchange.reply_in_slices(body_slices(vectors, call.model, num_tokens, coded), JSON)


def _check_dimensions(request: EmbeddingRequest, model: str, dimensions: int) -> None:
    """Raise `InvalidRequest` for more dimensions than the model has."""
    if request.dimensions is not None and request.dimensions > dimensions:
        raise InvalidRequest(
            f"The model `{model}` has {dimensions} dimensions, so {request.dimensions} are too many.",
            param="dimensions",
        )
