"""Real worker processes, on a tiny Llama and on the starter embedding model."""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import uvloop

from carpool.errors import ContextLengthExceeded, InvalidRequest, ModelUnloaded, WorkerDied
from carpool.worker import protocol
from carpool.worker.client import WorkerClient
from carpool.worker.config import ModelConfig, WorkerConfig
from carpool.worker.process import WorkerProcess
from tests.unit.models.tiny_llama import TinyLlama
from tests.unit.process_usage import cpu_s
from tests.unit.worker.echo import read_all, settled

CONTEXT = 4096


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    tiny = TinyLlama()
    tiny.metadata["llama.context_length"] = CONTEXT
    path = tiny.write(tmp_path_factory.mktemp("model") / "llama.gguf")
    return ModelConfig(reference=str(path), options={"weights": "f32", "kv_cache_bytes": 1 << 24})


class Processes:
    """Spawns worker processes and remembers them."""

    def __init__(self) -> None:
        self.all: list[WorkerProcess] = []

    async def __call__(self, config: WorkerConfig) -> WorkerProcess:
        process = await WorkerProcess.spawn(config)
        self.all.append(process)
        return process


@contextlib.asynccontextmanager
async def started(
    *models: ModelConfig, memory_budget_bytes: int | None = None
) -> AsyncIterator[tuple[WorkerClient, Processes]]:
    """A client of a real process whose models are up that should be."""
    processes = Processes()
    config = WorkerConfig(
        models=models, num_threads=1, restart_backoff_s=0.01, memory_budget_bytes=memory_budget_bytes
    )
    async with WorkerClient(config, spawn=processes) as client:
        await settled(client)
        for state in client.models.values():
            assert (state.phase, state.error) in (("ready", None), ("unloaded", None))
        yield client, processes
    for process in processes.all:
        assert process.process.returncode is not None


def endless(prompt: str, **fields: int) -> protocol.Generate:
    """Text for as long as the context lasts."""
    return protocol.Generate(0, "llama", prompt=prompt, ignore_eos=True, **fields)  # type: ignore[arg-type]


async def metric(client: WorkerClient, name: str, value: float) -> None:
    """Wait until the worker reports this."""
    async with asyncio.timeout(30):
        while reported(client, name) != value:  # noqa: ASYNC110  # reports come each second, without an event
            await asyncio.sleep(0.05)


def reported(client: WorkerClient, name: str) -> float | None:
    """The newest value of a gauge."""
    metrics = [metric for _, snapshot in client.snapshots() for metric in snapshot if metric.name == name]
    return sum(series.value for series in metrics[0].series) if metrics else None


async def test_a_process_serves_and_ends_with_its_client(llama: ModelConfig) -> None:
    async with started(llama) as (client, processes):
        request = protocol.Generate(0, "llama", prompt="Hello", max_tokens=8, ignore_eos=True, seed=1, n=2)
        first = await client.generate(request)
        assert first.prompt_tokens == 5
        deltas = [delta async for delta in first]
        assert sum(len(delta.token_ids) for delta in deltas) == 16
        assert sorted((d.index, d.finish_reason) for d in deltas if d.finish_reason) == [
            (0, "length"),
            (1, "length"),
        ]
        again = await client.generate(request)
        assert sorted((d.index, d.text) for d in deltas) == sorted([(d.index, d.text) async for d in again])
        assert client.resolve("llama").context_length == CONTEXT
        assert client.resolve("llama").details["chat_template"] == "fallback"
    [process] = processes.all
    assert await process.wait() == "exit status 0"


async def test_the_worker_tells_which_files_it_has_loaded(tmp_path: Path, llama: ModelConfig) -> None:
    path = Path(shutil.copy(llama.reference, tmp_path))
    async with started(replace(llama, reference=str(path))) as (client, _):
        first = client.models["llama"].revision
        assert first == WorkerClient(client.config).models["llama"].revision  # as any start tells it
        os.utime(path, ns=(0, 0))  # as if it were another file
        client.unload("llama")
        await settled(client)
        assert client.models["llama"].revision == first
        client.load("llama")
        await settled(client)
        assert client.models["llama"].phase == "ready"
        assert client.models["llama"].revision not in (None, first)


async def test_a_prompt_that_does_not_fit_is_refused_with_the_numbers(llama: ModelConfig) -> None:
    async with started(llama) as (client, _):
        with pytest.raises(ContextLengthExceeded, match=rf"{CONTEXT} .* 5000"):
            await client.generate(endless("x" * 5000))
        with pytest.raises(ContextLengthExceeded, match=rf"{CONTEXT} .* 100000 bytes"):
            await client.generate(endless("x" * 100_000))
        for length in (CONTEXT, 100_000):  # counted in tokens, and before it is encoded
            text = "x" * length
            with pytest.raises(ContextLengthExceeded) as caught:
                await client.generate(protocol.Generate(0, "llama", prompt=text))
            assert caught.value.param == "prompt"
            messages = [{"role": "user", "content": text}]
            with pytest.raises(ContextLengthExceeded) as caught:
                await client.generate(protocol.Generate(0, "llama", messages=messages))
            assert caught.value.param == "messages"
        with pytest.raises(InvalidRequest, match="at least one token"):
            await client.generate(endless(""))
        with pytest.raises(InvalidRequest, match="temperature"):
            await client.generate(protocol.Generate(0, "llama", prompt="x", temperature=-1.0))
        messages = [{"role": "user", "content": "Hi"}]
        chat = protocol.Generate(0, "llama", messages=messages, max_tokens=3, ignore_eos=True)
        generation = await client.generate(chat)
        assert generation.prompt_tokens == len("User: Hi\n\nAssistant:")
        assert await client.count_tokens(chat) == generation.prompt_tokens
        await read_all(generation)
        assert client.open_requests == 0


async def test_models_share_the_memory_of_the_device(llama: ModelConfig) -> None:
    other = replace(llama, name="other", preload=False)
    async with started(llama, other, memory_budget_bytes=24 << 20) as (client, _):
        size = client.resolve("llama").memory_bytes
        assert size is not None
        assert 1 << 24 < size < 24 << 20  # KV memory and some weights
        client.load("other")
        await until_phase(client, "other", "ready")
        assert client.resolve("llama").phase == "unloaded"
        other_one = protocol.Generate(0, "other", prompt="x", max_tokens=2, ignore_eos=True)
        assert len([delta async for delta in await client.generate(other_one)]) == 2
        with pytest.raises(ModelUnloaded):
            await client.generate(endless("x"))


async def until_phase(client: WorkerClient, name: str, phase: str) -> None:
    version = -1
    while client.resolve(name).phase != phase:
        version = await client.changed(version)


async def test_kill_9_ends_every_stream_once_and_the_next_life_serves(llama: ModelConfig) -> None:
    async with started(llama) as (client, processes):
        generations = [await client.generate(endless(f"stream {i}")) for i in range(50)]
        for generation in generations:
            await anext(generation)
        os.kill(processes.all[0].pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            outcomes = await asyncio.gather(*map(read_all, generations), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [WorkerDied] * 50
        assert client.open_requests == 0
        await settled(client)
        again = await client.generate(endless("again", max_tokens=4))
        assert len([delta async for delta in again]) == 4
        assert len(processes.all) == 2
        assert await processes.all[0].wait() == "signal 9"


def test_it_works_on_uvloop(llama: ModelConfig) -> None:
    async def use() -> None:
        async with started(llama) as (client, processes):
            running = await client.generate(endless("one"))
            await anext(running)
            processes.all[0].kill()
            with pytest.raises(WorkerDied):
                await read_all(running)
            await settled(client)
            assert len([delta async for delta in await client.generate(endless("two", max_tokens=4))]) == 4

    uvloop.run(use())


async def test_cancelling_frees_the_sequences_and_their_memory(llama: ModelConfig) -> None:
    async with started(llama) as (client, _):
        running = [await client.generate(endless(f"stream {i}", n=2)) for i in range(4)]
        for generation in running:
            await anext(generation)
        await metric(client, "carpool_sequences_running", 8)
        for generation in running:
            await generation.aclose()
        await metric(client, "carpool_sequences_running", 0)
        await metric(client, "carpool_kv_blocks_used", 0)


async def test_an_idle_process_uses_hardly_any_cpu(llama: ModelConfig, minilm_path: Path) -> None:
    async with started(llama, ModelConfig(reference=str(minilm_path), name="minilm")) as (client, processes):
        await client.embed(protocol.Embed(0, "minilm", ["A cat."]))
        for count in range(8):
            await read_all(await client.generate(endless(f"stream {count}", max_tokens=20)))
        await metric(client, "carpool_sequences_running", 0)
        began, used_s = time.monotonic(), cpu_s(processes.all[0].pid)
        await asyncio.sleep(3)  # what is measured: an interval with nothing to do but three heartbeats
        share = (cpu_s(processes.all[0].pid) - used_s) / (time.monotonic() - began)
        assert share < 0.05, share


async def test_a_stopped_process_is_killed_and_replaced(
    llama: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(llama) as (client, processes):
        running = await client.generate(endless("stream"))
        await anext(running)
        with monkeypatch.context() as faster:
            faster.setattr("carpool.worker.watchdog.TICK_S", 0.03)
            os.kill(processes.all[0].pid, signal.SIGSTOP)
            with pytest.raises(WorkerDied):
                await read_all(running)
        assert await processes.all[0].wait() == "signal 9"
        await settled(client)
        assert len([delta async for delta in await client.generate(endless("again", max_tokens=4))]) == 4


async def test_a_worker_ends_when_nobody_holds_its_socket() -> None:
    process = await WorkerProcess.spawn(WorkerConfig(num_threads=1))
    process.writer.close()
    async with asyncio.timeout(60):
        assert await process.wait() == "exit status 0"


async def test_a_worker_leaves_signals_to_its_parent() -> None:
    process = await WorkerProcess.spawn(WorkerConfig(num_threads=1))
    await process.reader.readexactly(4)  # its first frame: it is up
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGTERM)
    await process.reader.readuntil(b"stats")  # and goes on
    process.writer.close()
    assert await process.wait() == "exit status 0"


async def test_a_worker_refuses_garbage_and_ends() -> None:
    process = await WorkerProcess.spawn(WorkerConfig(num_threads=1))
    process.writer.write({"type": "no message of ours"})
    async with asyncio.timeout(60):
        assert await process.wait() == "exit status 1"
    process.writer.close()


async def test_files_that_do_not_fit_leave_the_worker_alive(llama: ModelConfig, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")
    broken = ModelConfig(reference=str(tmp_path / "broken.gguf"))
    misset = ModelConfig(reference=llama.reference, name="misset", options={"colour": "red"})
    misfit = ModelConfig(reference=llama.reference, name="misfit", options={"weights": "int3"})
    processes = Processes()
    config = WorkerConfig(models=(llama, broken, misset, misfit), num_threads=1)
    async with WorkerClient(config, spawn=processes) as client:
        await settled(client)
        phases = {name: state.phase for name, state in client.models.items()}
        assert phases == {"llama": "ready", "broken": "failed", "misset": "failed", "misfit": "failed"}
        assert "broken.gguf" in str(client.resolve("broken").error)
        assert "there is no option colour" in str(client.resolve("misset").error)
        assert "int3" in str(client.resolve("misfit").error)
        assert len(processes.all) == 1


async def test_embeddings_of_the_starter_model(minilm_path: Path) -> None:
    async with started(ModelConfig(reference=str(minilm_path), name="minilm")) as (client, _):
        result = await client.embed(protocol.Embed(0, "minilm", ["A cat.", "A kitten.", "Tax law."]))
        assert result.vectors.shape == (3, 384)
        np.testing.assert_allclose(np.linalg.norm(result.vectors, axis=1), 1, atol=1e-3)
        cat, kitten, tax = result.vectors
        assert cat @ kitten > 0.5 > cat @ tax
        with pytest.raises(InvalidRequest, match="empty"):
            await client.embed(protocol.Embed(0, "minilm", [""]))
