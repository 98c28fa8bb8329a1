"""Carpool: requests through the client and the worker process, as the gateway sends them.

argv: the model's reference, its options as JSON.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence

import uvloop

from bench.generation_cpu.workload import NEW_TOKENS, THREADS, answer, open_loop
from carpool.garbage import collect_seldom
from carpool.worker.client import WorkerClient
from carpool.worker.config import ModelConfig, WorkerConfig
from carpool.worker.generation import Delta, Generation
from carpool.worker.protocol import Generate


class CarpoolContestant:
    """A worker with one model."""

    def __init__(self, runner: asyncio.Runner, client: WorkerClient) -> None:
        self._runner = runner
        self._client = client
        runner.run(self._start())

    async def _start(self) -> None:
        await self._client.start()
        version = -1
        while (state := self._client.models["smollm2"]).phase != "ready":
            if state.phase == "failed":
                raise RuntimeError(str(state))
            version = await self._client.changed(max(version, self._client.version))
        collect_seldom()  # as the gateway does, and uvloop below

    async def _generation(self, prompt: str) -> Generation:
        return await self._client.generate(
            Generate(
                id=0,
                model="smollm2",
                prompt=prompt,
                max_tokens=NEW_TOKENS,
                ignore_eos=True,
                temperature=0.0,
            )
        )

    async def _stream(self, prompt: str) -> AsyncIterator[Delta]:
        async for delta in await self._generation(prompt):
            yield delta

    async def _text(self, prompt: str) -> str:
        deltas: list[Delta] = []
        await (await self._generation(prompt)).deliver(deltas.extend)  # as the gateway reads it
        assert sum(len(delta.token_ids) for delta in deltas) == NEW_TOKENS
        return "".join(delta.text for delta in deltas)

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """See `Contestant`."""

        async def run() -> list[str]:
            return await asyncio.gather(*map(self._text, prompts))

        return self._runner.run(run())

    def serve(self, prompts: Sequence[str], due: Sequence[float]) -> list[list[float]]:
        """See `Contestant`."""
        return self._runner.run(open_loop(self._stream, prompts, due))


def main() -> None:
    """Serve the harness."""
    model = ModelConfig(reference=sys.argv[1], name="smollm2", options=json.loads(sys.argv[2]))
    client = WorkerClient(WorkerConfig(models=(model,), num_threads=THREADS))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answer(lambda: CarpoolContestant(runner, client))
        runner.run(client.stop())


if __name__ == "__main__":
    main()
