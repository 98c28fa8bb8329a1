"""Carpool: requests through the client and the worker process, as the gateway sends them.

The model directory is argv[1].
"""

import asyncio
import sys
import time
from pathlib import Path

from bench.starter.workload import NEW_TOKENS, TEXTS_PER_RUN, THREADS, answer, chat, prompts, texts
from carpool.models.starter import CHAT_MODEL, EMBEDDING_MODEL
from carpool.worker.client import WorkerClient
from carpool.worker.config import ModelConfig, WorkerConfig
from carpool.worker.protocol import Embed, Generate


async def _generate(client: WorkerClient, turn: str) -> int:
    generation = await client.generate(
        Generate(
            id=0,
            model=CHAT_MODEL.model_id,
            prompt=chat(turn),
            max_tokens=NEW_TOKENS,
            ignore_eos=True,
            temperature=0.0,
        )
    )
    tokens = 0
    text = ""
    async for delta in generation:
        tokens += len(delta.token_ids)
        text += delta.text
    assert text
    return tokens


async def _run(client: WorkerClient, task: str, size: int) -> float:
    began = time.perf_counter()
    if task == "generate":
        done = sum(await asyncio.gather(*(_generate(client, turn) for turn in prompts(size))))
        assert done == size * NEW_TOKENS
    else:
        # `size` callers with one text each, again and again: what batches form is the batching core's doing.
        waiting = iter(texts(TEXTS_PER_RUN))
        done = TEXTS_PER_RUN

        async def caller() -> None:
            for text in waiting:
                await client.embed(Embed(id=0, model=EMBEDDING_MODEL.model_id, inputs=[text]))

        await asyncio.gather(*(caller() for _ in range(size)))
    return done / (time.perf_counter() - began)


def main() -> None:
    """Serve the harness."""
    config = WorkerConfig(
        models=tuple(ModelConfig(reference=model.reference) for model in (CHAT_MODEL, EMBEDDING_MODEL)),
        model_dir=Path(sys.argv[1]),
        num_threads=THREADS,
    )
    with asyncio.Runner() as runner:
        client = WorkerClient(config)
        runner.run(client.start())

        async def ready() -> None:
            version = -1
            while any(state.phase != "ready" for state in client.models.values()):
                assert all(state.phase != "failed" for state in client.models.values()), client.models
                version = await client.changed(max(version, client.version))

        runner.run(ready())
        answer(lambda task, size: runner.run(_run(client, task, size)))
        runner.run(client.stop())


if __name__ == "__main__":
    main()
