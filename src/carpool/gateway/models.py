"""`GET /v1/models` and `/v1/models/{id}`."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from carpool.worker.client import WorkerClient
from carpool.worker.states import ModelState

Endpoint = Callable[[Request], Awaitable[Response]]


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model; after the first four fields, which are OpenAI's, what else is worth knowing."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "carpool"
    aliases: tuple[str, ...]
    phase: str
    """queued, fetching, reading, building, compiling, ready, failed, restarting, unloading or unloaded."""
    percent: float
    error: str | None
    task: str | None
    """`generate`, `embed` or `rerank`."""
    max_model_len: int | None
    """Most tokens of one request; vLLM's name."""
    dimensions: int | None
    tool_form: str | None
    """How a model that generates writes tool calls: hermes, llama3, mistral or mistral-args."""
    details: dict[str, Any]
    """Such as precision, and `chat_template: fallback` for a model without one."""

    @classmethod
    def of(cls, state: ModelState) -> "Model":
        """What is known of a model."""
        return cls(
            id=state.name,
            created=state.created,
            aliases=state.aliases,
            phase=state.phase,
            percent=state.percent,
            error=state.error,
            task=state.task,
            max_model_len=state.context_length,
            dimensions=state.dimensions,
            tool_form=state.tool_form,
            details=state.details,
        )


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """All configured models."""

    object: Literal["list"] = "list"
    data: list[Model]


def list_models(client: WorkerClient) -> Endpoint:
    """The endpoint of the list."""

    async def endpoint(_: Request) -> Response:
        return json_response(ModelList(data=[Model.of(state) for state in client.models.values()]))

    return endpoint


def one_model(client: WorkerClient) -> Endpoint:
    """The endpoint of one model, by its id or an alias; both may hold slashes."""

    async def endpoint(request: Request) -> Response:
        return json_response(Model.of(client.resolve(request.path_params["model_id"])))

    return endpoint


def json_response(body: msgspec.Struct, status: int = 200) -> Response:
    """A response with a small body."""
    return Response(msgspec.json.encode(body), status, media_type="application/json")
