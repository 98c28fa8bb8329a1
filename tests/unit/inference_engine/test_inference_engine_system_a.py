"""The wiring of the original sketch, word for word, and the faults of the sketch that must be gone."""

import asyncio
import subprocess
import venv
from pathlib import Path
from shutil import copytree

import pytest

import carpool.inference_engine
from carpool.inference_engine import WrongResultCount
from carpool.inference_engine.batch_scheduler import BatchScheduler
from carpool.inference_engine.config import BATCH_SIZE, TIMEOUT
from carpool.inference_engine.queue_manager import QueueManager
from carpool.inference_engine.task import InferenceTask
from carpool.inference_engine.worker import InferenceWorker


class Model:
    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def encode(self, texts: list[str]) -> list[int]:
        self.batches.append(texts)
        if "poison" in texts:
            raise ValueError("poison")
        return [len(text) for text in texts]


async def test_the_wiring_runs_verbatim() -> None:
    model = Model()
    process_fn = model.encode

    queue_manager = QueueManager()
    scheduler = BatchScheduler(queue_manager, process_fn, batch_size=32)
    InferenceWorker(scheduler).start()

    async def request(data: str) -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        task = InferenceTask(data, future)
        await queue_manager.put(task)
        return await future

    texts = ["x" * length for length in range(1, 65)]
    assert await asyncio.gather(*map(request, texts)) == list(range(1, 65))
    assert [len(batch) for batch in model.batches] == [BATCH_SIZE, BATCH_SIZE]


async def test_get_batch_returns_what_is_there_after_the_timeout() -> None:
    queue_manager = QueueManager()
    loop = asyncio.get_running_loop()
    for number in range(5):
        await queue_manager.put(InferenceTask(number, loop.create_future()))
    batch = await queue_manager.get_batch(3, timeout=0.01)
    assert [task.data for task in batch] == [0, 1, 2]
    batch = await queue_manager.get_batch(3, timeout=0.01)
    assert [task.data for task in batch] == [3, 4]


def test_the_constants() -> None:
    assert (BATCH_SIZE, TIMEOUT) == (32, 0.01)


async def test_the_event_loop_turns_while_the_model_runs() -> None:
    turning = asyncio.get_running_loop()
    turned = asyncio.Event()

    def model(items: list[int]) -> list[int]:
        # Succeeds only if the loop runs the callback while this thread blocks.
        asyncio.run_coroutine_threadsafe(turned.wait(), turning).result(timeout=30)
        return items

    queue_manager = QueueManager()
    InferenceWorker(BatchScheduler(queue_manager, model)).start()
    future: asyncio.Future[int] = turning.create_future()
    await queue_manager.put(InferenceTask(1, future))
    turned.set()
    assert await future == 1


async def test_an_exception_neither_kills_the_loop_nor_hangs_a_future() -> None:
    queue_manager = QueueManager()
    InferenceWorker(BatchScheduler(queue_manager, Model().encode)).start()
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[int]] = [loop.create_future() for _ in range(2)]
    for text, future in zip(["poison", "healthy"], futures, strict=True):
        await queue_manager.put(InferenceTask(text, future))
    with pytest.raises(ValueError, match="poison"):
        await futures[0]
    assert await futures[1] == 7
    later: asyncio.Future[int] = loop.create_future()
    await queue_manager.put(InferenceTask("later", later))
    assert await later == 5


async def test_a_cancelled_future_does_not_break_its_batch() -> None:
    model = Model()
    queue_manager = QueueManager()
    InferenceWorker(BatchScheduler(queue_manager, model.encode)).start()
    loop = asyncio.get_running_loop()
    cancelled: asyncio.Future[int] = loop.create_future()
    kept: asyncio.Future[int] = loop.create_future()
    await queue_manager.put(InferenceTask("cancelled", cancelled))
    await queue_manager.put(InferenceTask("kept", kept))
    cancelled.cancel()
    assert await kept == 4
    assert model.batches == [["kept"]]


@pytest.mark.parametrize("results", [[], [1], [1, 2, 3], None, 5])
async def test_a_wrong_number_of_results_is_an_error_for_the_batch(results: object) -> None:
    queue_manager = QueueManager()
    calls = []

    def model(items: list[int]) -> list[int]:
        calls.append(items)
        return results  # type: ignore[return-value]

    InferenceWorker(BatchScheduler(queue_manager, model)).start()
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[int]] = [loop.create_future() for _ in range(2)]
    for future in futures:
        await queue_manager.put(InferenceTask(0, future))
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, WrongResultCount)
        assert outcome.expected == 2
        assert outcome.got == (len(results) if isinstance(results, list) else None)
    assert len(calls) == 1


ALONE = """
import asyncio, sys
from inference_engine import InferenceEngine, batched

@batched
def double(numbers):
    return [2 * number for number in numbers]

async def main():
    async with InferenceEngine(lambda texts: [text.upper() for text in texts]) as engine:
        assert await asyncio.gather(*map(engine.submit, "abc")) == ["A", "B", "C"]
    async with double:
        assert await double(21) == 42

asyncio.run(main())
third_party = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names
print(sorted(third_party - {"__main__"}))
"""


def test_the_folder_alone_works_in_an_empty_environment(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    folder = Path(carpool.inference_engine.__file__).parent
    copytree(folder, tmp_path / "app" / "inference_engine")
    (tmp_path / "app" / "main.py").write_text(ALONE)
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", "-W", "error", "main.py"],
        cwd=tmp_path / "app",
        env={},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['inference_engine']"
