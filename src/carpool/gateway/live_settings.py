"""`/admin/settings`, and the knobs of single models: what can be changed while the server runs."""

from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from carpool.gateway.exchange import JSON, Exchange
from carpool.gateway.model_admin import ModelAdmin
from carpool.gateway.models import json_response
from carpool.gateway.services import Services
from carpool.gateway.validation import BodyReader
from carpool.inference_engine import Policy
from carpool.worker.config import WhenLoading
from carpool.worker.protocol import Knobs

BatchSize = Annotated[int, Meta(ge=1, le=65536)]
WaitMs = Annotated[float, Meta(ge=0, le=60_000)]


class SettingsPatch(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What to change; fields that are left out stay as they are."""

    gate_policy: Policy | UnsetType = UNSET
    max_batch_size: BatchSize | UnsetType = UNSET
    """Of every model."""
    batch_wait_ms: WaitMs | UnsetType = UNSET
    """Of every model."""
    load_on_demand: bool | UnsetType = UNSET
    when_loading: WhenLoading | UnsetType = UNSET


class ModelPatch(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What to change of a model; fields that are left out stay as they are."""

    max_batch_size: BatchSize | UnsetType = UNSET
    batch_wait_ms: WaitMs | UnsetType = UNSET
    weight: Annotated[float, Meta(gt=0, le=1e6)] | UnsetType = UNSET
    max_concurrent_requests: Annotated[int, Meta(ge=1)] | UnsetType | None = UNSET
    """null: as many as its queue takes."""


class LiveSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings in force that can be changed while the server runs; models' knobs are in `/admin/models`."""

    device: str
    gate_policy: Policy
    load_on_demand: bool
    when_loading: WhenLoading


_settings_patch = BodyReader(msgspec.json.Decoder(SettingsPatch))
_model_patch = BodyReader(msgspec.json.Decoder(ModelPatch))


Value = TypeVar("Value")


def _given(value: Value | UnsetType) -> Value | None:
    return None if isinstance(value, UnsetType) else value


class SettingsAdmin:
    """The endpoints. What they change lasts until the server stops."""

    def __init__(self, services: Services, models: ModelAdmin) -> None:
        self._services = services
        self._client = services.client
        self._models = models

    async def show(self, _: Request) -> Response:
        """`GET /admin/settings`."""
        return json_response(self._settings())

    async def change(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`PATCH /admin/settings`."""
        exchange = Exchange(scope, receive, send, self._services.config.request_timeout_s)
        patch: SettingsPatch = _settings_patch.read(await self._body(exchange))
        await self._client.configure(
            gate_policy=_given(patch.gate_policy),
            load_on_demand=_given(patch.load_on_demand),
            when_loading=_given(patch.when_loading),
        )
        await self._client.tune(Knobs(_given(patch.max_batch_size), _given(patch.batch_wait_ms)))
        await exchange.reply(msgspec.json.encode(self._settings()), JSON)

    async def change_model(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`PATCH /admin/models/{model_id}`."""
        exchange = Exchange(scope, receive, send, self._services.config.request_timeout_s)
        name = self._client.resolve(scope["path_params"]["model_id"]).name
        patch: ModelPatch = _model_patch.read(await self._body(exchange))
        knobs = Knobs(_given(patch.max_batch_size), _given(patch.batch_wait_ms), _given(patch.weight))
        await self._client.tune(knobs, name)
        if patch.max_concurrent_requests is not UNSET:
            self._client.set_limit(name, patch.max_concurrent_requests)
        await exchange.reply(msgspec.json.encode(self._models.managed(name)), JSON)

    def _settings(self) -> LiveSettings:
        config = self._client.config
        return LiveSettings(
            device=config.device,
            gate_policy=config.gate_policy,
            load_on_demand=config.load_on_demand,
            when_loading=config.when_loading,
        )

    async def _body(self, exchange: Exchange) -> bytes:
        return await exchange.body(self._services.config.max_body_bytes)
