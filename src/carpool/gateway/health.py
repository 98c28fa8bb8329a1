"""`/health/live` and `/health/ready`, the only routes that answer without a key."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from carpool.gateway.drain import Drain
from carpool.gateway.models import Endpoint, json_response
from carpool.worker.client import WorkerClient


class Liveness(msgspec.Struct, frozen=True):
    """The process answers."""

    status: str = "live"


class ModelReadiness(msgspec.Struct, frozen=True):
    """How far a model is. Why one failed is told in `/v1/models`, to those with a key."""

    id: str
    phase: str
    percent: float


class Readiness(msgspec.Struct, frozen=True):
    """Whether requests can be served."""

    status: str
    """ready, loading, failed or draining."""
    models: list[ModelReadiness]


async def live(_: Request) -> Response:
    """The endpoint that says the process is alive."""
    return json_response(Liveness())


def ready(client: WorkerClient, drain: Drain) -> Endpoint:
    """The endpoint that is 503 until every model is up that should be."""

    async def endpoint(_: Request) -> Response:
        readiness = _readiness(client, drain)
        return json_response(readiness, 200 if readiness.status == "ready" else 503)

    return endpoint


def _readiness(client: WorkerClient, drain: Drain) -> Readiness:
    models = [ModelReadiness(s.name, s.phase, round(s.percent, 1)) for s in client.models.values()]
    phases = {model.phase for model in models}
    if drain.begun:
        status = "draining"
    elif "failed" in phases:
        status = "failed"
    else:
        status = "ready" if phases <= {"ready", "unloading", "unloaded"} else "loading"
    return Readiness(status, models)
