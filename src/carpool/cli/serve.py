"""`carpool serve`: open the port, bring the models up behind it, drain on a signal."""

import argparse
import asyncio
import logging
import socket
from types import ModuleType

import uvloop

from carpool.cache.service import AnswerCache
from carpool.cli.logs import log_to_stderr
from carpool.cli.options import Commands, add_config, settings_of
from carpool.errors import StartError
from carpool.garbage import collect_seldom
from carpool.gateway.config import GatewayConfig
from carpool.gateway.served_embedder import ServedEmbedder
from carpool.gateway.served_judge import served_judge
from carpool.settings import Settings
from carpool.telemetry import Registry
from carpool.worker.client import WorkerClient

_BACKLOG = 2048

_log = logging.getLogger(__name__)


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("serve", help="serve models behind one OpenAI-compatible port")
    add_config(parser)
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8000)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal; 0 after draining. Raises `StartError`."""
    settings = settings_of(arguments, host=arguments.host, port=arguments.port)
    log_to_stderr()
    return uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    registry = Registry()
    gateway_config = settings.gateway_config()
    worker_config = settings.worker_config()
    listener = _listen(gateway_config)
    client = WorkerClient(worker_config)
    embedder = ServedEmbedder(settings.cache.embedder, client)
    if not embedder.served and settings.cache.mode == "on":
        _log.warning(
            "cache: %s is not served: questions are matched by repetition only", settings.cache.embedder
        )

    cache = AnswerCache.open(
        settings.cache,
        data_dir=worker_config.model_dir,
        embed=embedder.embed,
        embedder_id=embedder.id,
        judge=served_judge(settings.cache, client),
        registry=registry,
    )
    async with cache, client:
        # The worker process starts meanwhile: on two cores that is a second less to wait.
        http_server = await asyncio.to_thread(_import_http_server)
        app = http_server.create_app(gateway_config, client, cache, registry)
        collect_seldom()
        status: int = await http_server.HttpServer(app, listener, client, worker_config.drain_s).run()
        return status


def _import_http_server() -> ModuleType:
    from carpool.cli import http_server

    return http_server


def _listen(config: GatewayConfig) -> socket.socket:
    """The listening socket, so that a port in use is told before anything is loaded."""
    try:
        family = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        raise StartError(f"cannot listen on {config.host}:{config.port}: {error.strerror}") from None
    return listener
