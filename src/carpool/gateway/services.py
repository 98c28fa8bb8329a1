"""What the routes to models work with."""

from dataclasses import dataclass

from carpool.cache.service import AnswerCache
from carpool.gateway.admission import Admission
from carpool.gateway.config import GatewayConfig
from carpool.gateway.metrics import GatewayMetrics
from carpool.worker.client import WorkerClient


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that `create_app` puts together."""

    config: GatewayConfig
    client: WorkerClient
    cache: AnswerCache | None
    admission: Admission
    metrics: GatewayMetrics
