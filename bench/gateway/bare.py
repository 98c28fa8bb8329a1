"""The floor: a bare FastAPI route on the server's own HTTP stack. `python -m bench.gateway.bare PORT`.

POST / answers from a dict under the body's hash. POST /stream sends as many events as a stream of the
gateway's has, each as long, all streams stepped by one clock.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from hashlib import sha256

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from bench.gateway.server import STEP_S, STREAM_TOKENS

ANSWER = b'{"id":"chatcmpl-req-0123456789abcdef01234567","choices":[{"message":{"content":" ride"}}]}'
EVENT = b"data: %b\n\n" % ANSWER.ljust(200)

app = FastAPI(openapi_url=None, telemetry={"tracing": False, "metrics": False, "logs": False})
answers: dict[bytes, bytes] = {}


@app.post("/")
async def answer(request: Request) -> Response:
    """Hash, look up, answer."""
    digest = sha256(await request.body()).digest()
    return Response(answers.setdefault(digest, ANSWER), media_type="application/json")


class Clock:
    """Lets all streams take a step together."""

    def __init__(self) -> None:
        self._tick = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(STEP_S)
            tick, self._tick = self._tick, asyncio.get_running_loop().create_future()
            tick.set_result(None)

    async def next(self) -> None:
        """Wait for the next step."""
        await asyncio.wait([self._tick])


clocks: list[Clock] = []


@app.post("/stream")
async def stream(request: Request) -> StreamingResponse:
    """One event each step."""
    await request.body()
    if not clocks:
        clocks.append(Clock())

    async def events() -> AsyncIterator[bytes]:
        for _ in range(STREAM_TOKENS):
            await clocks[0].next()
            yield EVENT

    return StreamingResponse(events(), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        http="httptools",
        loop="uvloop",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
