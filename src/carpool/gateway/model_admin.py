"""`/admin/models`: loading and unloading models while the server runs, for operators.

These routes take no place among the requests to models: they answer when the server is full, too.
"""

import math
from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from carpool.gateway.models import Model, json_response
from carpool.gateway.services import Services
from carpool.worker.states import ModelState


class ManagedModel(Model, frozen=True, kw_only=True):
    """A model as operators see it."""

    reference: str
    """Where its files come from."""
    revision: str | None
    """Which files those are; null until they are fetched. Stored answers are of one revision."""
    memory_bytes: int | None
    """Weights and KV memory; known once it was up."""
    max_batch_size: int | None
    """Items per batch of an encoder, sequences that run together in a language model."""
    batch_wait_ms: float | None
    """How long a batch waits for company, in ms."""
    weight: float | None
    """Its share of the device under the gate's policy `wfq`."""
    max_concurrent_requests: int | None
    """Requests it works on at once; null: as many as its queue takes."""
    open_requests: int
    """Requests it works on now."""
    idle_s: float | None
    """Seconds since the last of them ended; 0 while there are any, null before the first."""


class ManagedModels(msgspec.Struct, frozen=True, kw_only=True):
    """All configured models."""

    object: Literal["list"] = "list"
    data: list[ManagedModel]


class ModelAdmin:
    """The endpoints. Models are those of the settings: no reference comes in over HTTP."""

    def __init__(self, services: Services) -> None:
        self._client = services.client

    async def list(self, _: Request) -> Response:
        """`GET /admin/models`."""
        return json_response(
            ManagedModels(data=[self._managed(state) for state in self._client.models.values()])
        )

    async def one(self, request: Request) -> Response:
        """`GET /admin/models/{model_id}`."""
        return json_response(self.managed(request.path_params["model_id"]))

    async def load(self, request: Request) -> Response:
        """`POST /admin/models/{model_id}/load`: 202, and the model's phase tells how it goes on."""
        return json_response(self._managed(self._client.load(request.path_params["model_id"])), 202)

    async def unload(self, request: Request) -> Response:
        """`POST /admin/models/{model_id}/unload`: 202; what runs on the model is finished first."""
        return json_response(self._managed(self._client.unload(request.path_params["model_id"])), 202)

    def managed(self, name: str) -> ManagedModel:
        """What is known of a model. Raises `ModelNotFound`."""
        return self._managed(self._client.resolve(name))

    def _managed(self, state: ModelState) -> ManagedModel:
        usage = self._client.usage
        idle_s = usage.idle_s(state.name)
        return ManagedModel(
            **msgspec.structs.asdict(Model.of(state)),
            reference=state.reference,
            revision=state.revision,
            memory_bytes=state.memory_bytes,
            **msgspec.structs.asdict(state.knobs),
            max_concurrent_requests=self._client.limit(state.name),
            open_requests=usage.open_requests(state.name),
            idle_s=round(idle_s, 1) if math.isfinite(idle_s) else None,
        )
