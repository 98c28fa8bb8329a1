"""The contestants of `bench.inference_engine_compare`, each serving `POST /predict {"item": n}` on a port.

The comparison runs it in the contestants' environment: `inference_engine_compare_servers.py NAME PORT LOG`.
The same model function for all: 4 ms a call and 0.25 ms an item, outside the CPU as on an accelerator; a
negative item makes its call fail. It appends the items of each call to LOG. Batches of 32, and each
library's own default for the wait. Carpool and `batched` share one app; LitServe and Ray bring their own.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import litserve as ls

BATCH = 32


class Model:
    """The stand-in model."""

    def __init__(self, log: str) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def __call__(self, items: list[int]) -> list[int]:
        """Return twice each item."""
        os.write(self._log, "".join(f"{item}\n" for item in items).encode())
        time.sleep((4 + 0.25 * len(items)) / 1e3)
        if min(items) < 0:
            raise ValueError(f"poisoned by {min(items)}")
        return [2 * item for item in items]


def in_process(name: str, port: int, log: str) -> None:
    """Carpool or `batched` behind a minimal Starlette app that drops the work of clients who hang up."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    model = Model(log)
    if name == "carpool":
        sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
        from carpool.inference_engine import EngineConfig, batched

        predict: Any = batched(config=EngineConfig(max_batch_size=BATCH))(model.__call__)
    else:
        from batched import aio

        predict = aio.dynamically(batch_size=BATCH)(model.__call__)

    async def endpoint(request: Request) -> JSONResponse:
        item = (await request.json())["item"]
        work = asyncio.ensure_future(predict(item))
        gone = asyncio.ensure_future(request.receive())  # next comes only a disconnect
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not work.done():
            work.cancel()
            return JSONResponse({}, 499)
        if work.exception() is not None:
            return JSONResponse({"error": str(work.exception())}, 500)
        return JSONResponse({"result": work.result()})

    app = Starlette(routes=[Route("/predict", endpoint, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical")


class LitApi(ls.LitAPI):
    """LitServe spawns its workers, so this has to be found by name."""

    def __init__(self, log: str) -> None:
        super().__init__(max_batch_size=BATCH)
        self.log = log

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe calls it so
        """Load the model in the worker."""
        self.model = Model(self.log)

    def decode_request(self, request: dict[str, int]) -> int:
        """The item of a request."""
        return request["item"]

    def predict(self, items: list[int]) -> list[int]:
        """One call of the model."""
        return self.model(items)

    def encode_response(self, output: int) -> dict[str, int]:
        """The answer to a request."""
        return {"result": output}


def litserve(port: int, log: str) -> None:
    """LitServe's server with its default wait of 0 s."""
    server = ls.LitServer(LitApi(log), accelerator="cpu", timeout=60)
    server.run(
        host="127.0.0.1", port=port, num_api_servers=1, log_level="critical", generate_client_file=False
    )


def ray(port: int, log: str) -> None:
    """Ray Serve with `@serve.batch` and its default wait of 10 ms."""
    import ray as ray_core
    from ray import serve
    from starlette.requests import Request

    ray_core.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})

    @serve.deployment(max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1})
    class Api:
        def __init__(self) -> None:
            self.model = Model(log)

        @serve.batch(max_batch_size=BATCH)
        async def predict(self, items: list[int]) -> list[int]:
            return await asyncio.to_thread(self.model, items)

        async def __call__(self, request: Request) -> dict[str, int]:
            return {"result": await self.predict((await request.json())["item"])}

    serve.run(Api.bind(), route_prefix="/predict")
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    contestant, port_text, log_path = sys.argv[1:]
    if contestant in ("carpool", "batched"):
        in_process(contestant, int(port_text), log_path)
    else:
        {"litserve": litserve, "ray": ray}[contestant](int(port_text), log_path)
