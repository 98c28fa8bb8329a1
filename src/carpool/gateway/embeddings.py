"""`POST /v1/embeddings`."""

import asyncio

import msgspec
from starlette.types import Receive, Scope, Send

from carpool.errors import InvalidRequest
from carpool.gateway.embedding_reply import body_slices, shortened
from carpool.gateway.embedding_schema import EmbeddingRequest
from carpool.gateway.exchange import JSON, Exchange
from carpool.gateway.inputs import as_list
from carpool.gateway.services import Services
from carpool.gateway.validation import BodyReader
from carpool.inference_engine import Priority
from carpool.worker.protocol import Embed
from carpool.worker.states import ModelState

_BULK_INPUTS = 64
"""From so many inputs on, a request yields to those that somebody waits for."""


class Embeddings:
    """The endpoint."""

    _reader = BodyReader(msgspec.json.Decoder(EmbeddingRequest))

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        exchange = Exchange(scope, receive, send)
        config = self._services.config
        with self._services.admission.place():
            body = await exchange.body(config.max_body_bytes, config.request_timeout_s)
            request: EmbeddingRequest = self._reader.read(body)
            state = self._services.client.resolve(request.model)
            call = self._call(request, state, exchange.call.tenant)
            async with exchange.attended(config.request_timeout_s):
                await self._answer(request, call, exchange)

    def _call(self, request: EmbeddingRequest, state: ModelState, tenant: str) -> Embed:
        """The call to the worker. Raises `InvalidRequest`."""
        config = self._services.config
        inputs = as_list(request.input, "input", config.max_embedding_inputs)
        if isinstance(inputs[0], list) and config.embeddings_token_ids != "own":  # noqa: S105
            raise InvalidRequest(
                "`input` holds token ids, which mean something else to every model; this server takes text. "
                "With LangChain's OpenAIEmbeddings, set check_embedding_ctx_length=False. If the ids are "
                "the model's own, the setting gateway.embeddings_token_ids: own accepts them.",
                param="input",
            )
        dimensions = request.dimensions
        if dimensions is not None and state.dimensions is not None and dimensions > state.dimensions:
            raise InvalidRequest(
                f"The model `{state.name}` has {state.dimensions} dimensions, so {dimensions} are too many.",
                param="dimensions",
            )
        return Embed(
            id=0,
            model=state.name,
            inputs=inputs,
            priority=Priority.BULK if len(inputs) >= _BULK_INPUTS else Priority.INTERACTIVE,
            tenant=tenant,
            timeout_s=config.request_timeout_s,
        )

    async def _answer(self, request: EmbeddingRequest, call: Embed, exchange: Exchange) -> None:
        embeddings = await self._services.client.embed(call)
        vectors, num_tokens = embeddings.vectors, sum(embeddings.tokens)
        if request.dimensions is not None:
            vectors = shortened(vectors, request.dimensions)
        self._services.metrics.embedded(call.model, len(call.inputs), num_tokens)
        slices = body_slices(vectors, call.model, num_tokens, coded=request.encoding_format == "base64")
        part = next(slices)
        following = next(slices, None)
        if following is None:
            await exchange.reply(part, JSON)
            return
        await exchange.start(JSON)
        while following is not None:
            await exchange.write(part)
            await asyncio.sleep(0)
            part, following = following, next(slices, None)
        await exchange.finish(part)
