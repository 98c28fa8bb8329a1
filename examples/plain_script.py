"""Batching in a plain script, with everything that can happen to a request."""

import asyncio
import time

from carpool.inference_engine import BatchEvent, DeadlineExceeded, EngineConfig, InferenceEngine


def slow_square(numbers: list[int]) -> list[int]:
    """A model whose call costs 20 ms, however many items it is given."""
    time.sleep(0.020)
    if 13 in numbers:
        raise ValueError("13 is not a number we like")
    return [number * number for number in numbers]


def show(event: BatchEvent) -> None:
    """One line for every call of the model."""
    print(f"{event.items:3} items in {event.run_ms:3.0f} ms, {event.release}{', failed' * event.failed}")


async def main() -> None:
    """100 concurrent requests, one of them poisoned, and one that comes too late."""
    async with InferenceEngine(slow_square, EngineConfig(max_batch_size=16), observe=show) as engine:
        started = time.monotonic()
        outcomes = await asyncio.gather(*(engine.submit(n) for n in range(100)), return_exceptions=True)
        squares = [outcome for outcome in outcomes if isinstance(outcome, int)]
        print(f"{len(squares)} squares in {time.monotonic() - started:.2f} s; 13: {outcomes[13]!r}")
        try:
            await engine.submit(7, deadline=time.monotonic() + 0.001)
        except DeadlineExceeded as late:
            print(late)


if __name__ == "__main__":
    asyncio.run(main())
