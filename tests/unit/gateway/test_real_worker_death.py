"""kill -9 of a real worker process in the middle of 50 streams.

`test_echo_worker_death` does it to an echoing worker inside the test's process.
"""

import asyncio
import time
from pathlib import Path

from carpool.cache.config import CacheConfig
from tests.unit.gateway.real_worker import TALKER, Outcome, RealService, http, tiny_models
from tests.unit.gateway.serving import CHAT_PATH

STREAMS = 50
ENDS_WITHIN_S = 1.0
"""What is promised of a stream whose worker dies; it takes less than a tenth of that."""
QUESTION = http(
    CHAT_PATH,
    {
        "model": TALKER,
        "messages": [{"role": "user", "content": "Is there room?"}],
        "temperature": 0,
        "structured_outputs": {"choice": ["yes", "no"]},
    },
)


async def test_every_stream_ends_with_one_error_and_all_goes_on(tmp_path: Path) -> None:
    flowing = 0
    all_flow = asyncio.Event()

    async def stream(service: RealService, number: int) -> Outcome:
        nonlocal flowing
        body = {"model": TALKER, "prompt": f"Story {number}", "ignore_eos": True, "stream": True}
        async with service.connection() as (reader, writer):
            writer.write(http("/v1/completions", body))
            begun = await reader.readuntil(b"data: ")
            flowing += 1
            if flowing == STREAMS:
                all_flow.set()
            return Outcome(begun + await reader.read())

    cache = CacheConfig(mode="exact", store="memory")
    async with RealService(tiny_models(tmp_path)[:1], cache, tmp_path) as service:
        answer = await service.send(QUESTION)
        assert (answer.status, answer.headers["x-carpool-cache"]) == (200, "miss")

        streams = [asyncio.create_task(stream(service, number)) for number in range(STREAMS)]
        await all_flow.wait()
        service.may_start.clear()
        killed = time.monotonic()
        service.kill_worker()
        async with asyncio.timeout(30):
            outcomes = await asyncio.gather(*streams)  # before there is a new worker
        took_s = time.monotonic() - killed
        assert [(outcome.status, outcome.error) for outcome in outcomes] == [(200, "worker_died")] * STREAMS
        assert took_s < ENDS_WITHIN_S

        repeated = await service.send(QUESTION)
        assert (repeated.status, repeated.headers["x-carpool-cache"]) == (200, "exact")
        assert repeated.json()["choices"] == answer.json()["choices"]
        await service.quiet()

        body = {"model": TALKER, "prompt": "Another story", "max_tokens": 4, "ignore_eos": True}
        waiting = asyncio.create_task(service.send(http("/v1/completions", body)))
        service.may_start.set()
        assert (await waiting).status == 200
        assert len(service.processes) == 2
        await service.quiet()
        await service.worker_quiet()
