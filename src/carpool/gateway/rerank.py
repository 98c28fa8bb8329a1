"""`POST /rerank`, `/v1/rerank` and `/v2/rerank`, in Cohere's and Jina's shape and in TEI's."""

from collections.abc import Iterator

import msgspec
from starlette.types import Receive, Scope, Send

from carpool.errors import InvalidRequest, ModelLoading, ModelNotFound
from carpool.gateway.exchange import JSON, Exchange
from carpool.gateway.lane import lane_of
from carpool.gateway.rerank_reply import ranked, ranking_slices, tei_slices
from carpool.gateway.rerank_schema import Question, RerankRequest, TeiRerankRequest, check_window, is_tei
from carpool.gateway.services import Services
from carpool.gateway.validation import BodyReader
from carpool.worker.answers import Scores
from carpool.worker.client import WorkerClient
from carpool.worker.protocol import Score
from carpool.worker.states import ModelState

_UNKNOWN_TASK = ("failed", "ready")
"""Phases that no task will come out of, where it is not known yet."""


class Unprocessable(InvalidRequest):
    """A request in TEI's shape that is not valid: there it has a status of its own."""

    status = 422
    code = "validation"

    @classmethod
    def of(cls, error: InvalidRequest) -> "Unprocessable":
        """What is wrong, in the words of that shape."""
        param = error.param
        if param is None or not param.startswith("documents["):
            return cls(error.message, param=param)
        name = "texts" + param.removeprefix("documents")
        return cls(error.message.replace(param, name, 1), param=name)


class Rerank:
    """The endpoint."""

    _reader = BodyReader(msgspec.json.Decoder(RerankRequest))
    _tei_reader = BodyReader(msgspec.json.Decoder(TeiRerankRequest))

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        config = self._services.config
        exchange = Exchange(scope, receive, send, config.request_timeout_s)
        with self._services.admission.place(exchange.call.limits):
            body = await exchange.body(config.max_body_bytes)
            async with exchange.attended():
                if is_tei(body):
                    await self._answer_tei(body, exchange)
                else:
                    await self._answer(body, exchange)

    async def _answer(self, body: bytes, exchange: Exchange) -> None:
        request: RerankRequest = self._reader.read(body)
        question = request.question()
        state, scores = await self._score(question, exchange)
        order = ranked(scores.scores, question.top_n)
        documents = question.documents if question.with_text else None
        request_id = exchange.call.request_id
        await _send(
            exchange,
            state,
            ranking_slices(request_id, state.name, scores.scores, order, documents, scores.tokens),
        )

    async def _answer_tei(self, body: bytes, exchange: Exchange) -> None:
        try:
            request: TeiRerankRequest = self._tei_reader.read(body)
            question = request.question()
            state, scores = await self._score(question, exchange)
        except InvalidRequest as error:
            raise Unprocessable.of(error) from None
        order = ranked(scores.scores, question.top_n)
        texts = question.documents if question.with_text else None
        await _send(exchange, state, tei_slices(scores.scores, order, texts))

    async def _score(self, question: Question, exchange: Exchange) -> tuple[ModelState, Scores]:
        """The scores, and whose they are. Raises the `CarpoolError` that refuses the request."""
        client, config, count = self._services.client, self._services.config, len(question.documents)
        if count > config.rerank.max_documents:
            field, limit = question.documents_field, config.rerank.max_documents
            raise InvalidRequest(
                f"`{field}` holds {count} documents; at most {limit} are served.", param=field
            )
        state = _choose(client) if question.model is None else client.resolve(question.model)
        check_window(question, state.context_length)
        scores = await client.score(
            Score(
                id=0,
                model=state.name,
                query=question.query,
                documents=question.documents,
                truncate=question.truncate,
                raw=question.raw,
                priority=lane_of(exchange, count),
                tenant=exchange.call.tenant,
                timeout_s=exchange.deadline.left_s,
            )
        )
        self._services.metrics.reranked(state.name, count, scores.tokens)
        return state, scores


async def _send(exchange: Exchange, state: ModelState, slices: Iterator[bytes]) -> None:
    """The header names the model for the shape whose body does not."""
    await exchange.reply_in_slices(slices, [*JSON, (b"x-carpool-model", state.name.encode())])


def _choose(client: WorkerClient) -> ModelState:
    """The one reranker, or without any the one embedding model.

    Raises `InvalidRequest` where there are several, `ModelLoading` as long as a model that is loading may
    turn out to be a reranker, and `ModelNotFound`.
    """
    states = client.models.values()
    rerankers = [state for state in states if state.task == "rerank"]
    if not rerankers and any(state.task is None and state.phase not in _UNKNOWN_TASK for state in states):
        raise ModelLoading("The models are loading; name one to be told how far it is.")
    able = rerankers or [state for state in states if state.task == "embed"]
    if not able:
        raise ModelNotFound("No model that could score documents is served here.", param="model")
    if len(able) > 1:
        names = ", ".join(f"`{state.name}`" for state in able)
        raise InvalidRequest(
            f"Several models can score documents; `model` must be one of {names}.", param="model"
        )
    return able[0]
