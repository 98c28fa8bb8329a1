"""A small complete model at the host's seam, a worker's life inside this process, and a client to it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from carpool.errors import InvalidRequest, ModelFailed, StartError
from carpool.models.tokenizer import Tokenizer
from carpool.worker.client import WorkerClient
from carpool.worker.config import ModelConfig, WorkerConfig
from carpool.worker.framing import READ_BUFFER_BYTES, FrameWriter
from carpool.worker.generation import Generation
from carpool.worker.host import ModelHost, Surroundings
from carpool.worker.hosted import Description, EmbeddingModel, GeneratingModel, HostedModel, ScoringModel
from carpool.worker.protocol import (
    Count,
    Embed,
    Generate,
    Knobs,
    Load,
    Progress,
    Result,
    Score,
    Scores,
    Step,
    StepEntry,
    Weigh,
)
from carpool.worker.session import Session

CHAT = ModelConfig(reference="pypi:echo-chat==1", name="echo", aliases=("parrot",))
EMBED = ModelConfig(reference="pypi:echo-embed==1", name="embed", options={"task": "embed"})


def byte_tokenizer(*marks: str) -> Tokenizer:
    """One token per byte; token 256 ends a text, further special tokens follow."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|end|>", *marks])
    return Tokenizer(backend, eos_token="<|end|>")


def _open_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


class Tuned(HostedModel):
    """Has knobs that change nothing. While `going` is not set it makes no step."""

    steps: int = 0
    healthy: bool = True
    knobs: Knobs = Knobs(4, 0.0, 1.0)

    def tune(self, knobs: Knobs) -> None:
        if knobs.max_batch_size == 13:
            raise StartError("max_batch_size must not be 13")
        self.knobs = knobs.over(self.knobs)


class EchoModel(Tuned, GeneratingModel):
    """Says the prompt, one token a step for every choice; all running choices share the steps.

    While `admitting` is not set it accepts nothing.
    """

    def __init__(self, name: str, surroundings: Surroundings) -> None:
        self.tokenizer = byte_tokenizer("[TOOL_CALLS]", "[INST]")
        self.description = Description(
            task="generate",
            context_length=64,
            details={"kind": "echo"},
            tokenizer=self.tokenizer.to_json(),
            revision="echo",
            tool_form="mistral",
        )
        self.running: dict[tuple[int, int], list[int]] = {}
        self.going = _open_event()
        self.admitting = _open_event()
        self.finish_reason = "length"
        self._name = name
        self._emit = surroundings.emit
        self._work = asyncio.Event()
        self._loop = asyncio.create_task(self._run())

    @property
    def has_work(self) -> bool:
        return bool(self.running)

    async def generate(self, request: Generate, accept: Callable[[int], None]) -> None:
        ids: list[int] = await asyncio.to_thread(self.tokenizer.encode, request.prompt or "")
        await self.admitting.wait()
        if len(ids) > self.description.context_length:
            raise InvalidRequest(f"{len(ids)} tokens are too many", param="prompt")
        for index in range(request.n):
            self.running[request.id, index] = list(ids[: request.max_tokens])
        accept(len(ids))
        self._work.set()

    async def count(self, request: Count) -> int:
        return len(self.tokenizer.encode(request.prompt or ""))

    def cancel(self, request_id: int, index: int | None) -> None:
        ended = [key for key in self.running if key[0] == request_id and index in (None, key[1])]
        for key in ended:
            del self.running[key]
        if ended:
            self._emit(Step(self._name, [StepEntry(*key, [], None, "cancelled") for key in ended]))

    async def close(self) -> None:
        await until(lambda: not self.running)
        self._loop.cancel()

    async def _run(self) -> None:
        while True:
            self._work.clear()
            while self.running:
                await self.going.wait()
                self._step()
                await asyncio.sleep(0)
            await self._work.wait()

    def _step(self) -> None:
        self.steps += 1
        entries = []
        for key, left in list(self.running.items()):
            token_ids = [left.pop(0)] if left else []
            logprobs = [(-1.0, [(token_id, -1.0)]) for token_id in token_ids]
            if not left:
                del self.running[key]
            entries.append(StepEntry(*key, token_ids, logprobs, None if left else self.finish_reason))
        if entries:
            self._emit(Step(self._name, entries))


class EchoEncoder(Tuned, EmbeddingModel, ScoringModel):
    """A text's vector is its number of bytes and its first byte; a score is the number of shared letters."""

    def __init__(self) -> None:
        self.description = Description(
            task="embed", context_length=64, revision="echo", details={}, dimensions=2
        )
        self.going = _open_event()
        self._waiting = 0

    @property
    def has_work(self) -> bool:
        return self._waiting > 0

    async def _step(self) -> None:
        self._waiting += 1
        try:
            await self.going.wait()
            self.steps += 1
        finally:
            self._waiting -= 1

    async def embed(self, request: Embed) -> Result:
        await self._step()
        data = [bytes(item) if isinstance(item, list) else item.encode() for item in request.inputs]
        vectors = np.array([[len(item), item[0]] for item in data], "<f4")
        return Result(request.id, 2, memoryview(vectors.tobytes()), [len(item) for item in data])

    async def score(self, request: Score) -> Scores:
        await self._step()
        shared = [len(set(request.query) & set(document)) for document in request.documents]
        tokens = len(request.query) + sum(map(len, request.documents))
        return Scores(request.id, memoryview(np.array(shared, "<f4").tobytes()), tokens)

    async def close(self) -> None:
        pass


def load_echo(load: Load, surroundings: Surroundings) -> HostedModel:
    """Loads either; with the option `fail` it raises."""
    match load.options:
        case {"fail": "unforeseen"}:
            raise ZeroDivisionError("a bug")
        case {"fail": str(reason)}:
            raise ModelFailed(reason)
        case {"task": "embed"}:
            return EchoEncoder()
        case _:
            return EchoModel(load.model, surroundings)


class EchoLoader:
    """Loads either; both take as much memory as the option `bytes` says."""

    def __init__(self, loading: asyncio.Event) -> None:
        self._loading = loading

    async def weigh(self, weigh: Weigh, surroundings: Surroundings) -> int:
        size: int = weigh.options.get("bytes", 1)
        return size

    async def load(self, load: Load, surroundings: Surroundings) -> HostedModel:
        surroundings.on_progress(Progress(load.model, "building", 50.0))
        await self._loading.wait()
        return load_echo(load, surroundings)


class LocalLife:
    """A worker's life inside this process: a real session over a real socket pair."""

    def __init__(self, config: WorkerConfig, loading: asyncio.Event) -> None:
        self.host = ModelHost(config, EchoLoader(loading))
        self.killed = False

    async def start(self) -> "LocalLife":
        ours, theirs = socket.socketpair()
        self.reader, writer = await asyncio.open_unix_connection(sock=ours, limit=READ_BUFFER_BYTES)
        self.writer = FrameWriter(writer)
        reader, self._worker_writer = await asyncio.open_unix_connection(sock=theirs)
        self._frames = FrameWriter(self._worker_writer)
        self.session = Session(self.host, reader, self._frames)
        self._task = asyncio.create_task(self.session.run())
        return self

    @property
    def chat(self) -> EchoModel:
        model = self.host.get("echo")
        assert isinstance(model, EchoModel)
        return model

    @property
    def encoder(self) -> EchoEncoder:
        model = self.host.get("embed")
        assert isinstance(model, EchoEncoder)
        return model

    async def wait(self) -> str:
        await asyncio.wait({self._task})
        self._worker_writer.close()
        return "ended"

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self._task.done()

    def send_garbage(self) -> None:
        self._worker_writer.write(b"\0\0\0\0")

    def freeze(self) -> None:
        """It says nothing any more, and does not end."""
        self._frames.write = lambda message: None  # type: ignore[method-assign]

    def kill(self) -> None:
        """All of a sudden, as a killed process ends."""
        self.killed = True
        self._worker_writer.transport.abort()
        self._task.cancel()


class Lives:
    """Spawns lives and remembers them. While `loading` is not set, no model gets ready."""

    def __init__(self) -> None:
        self.all: list[LocalLife] = []
        self.loading = _open_event()

    async def __call__(self, config: WorkerConfig) -> LocalLife:
        life = await LocalLife(config, self.loading).start()
        self.all.append(life)
        return life

    @property
    def last(self) -> LocalLife:
        return self.all[-1]

    @property
    def live(self) -> bool:
        """Whether there is one that was not killed."""
        return bool(self.all) and not self.last.killed


@contextlib.asynccontextmanager
async def started(
    *configs: ModelConfig, **settings: float | str
) -> AsyncIterator[tuple[WorkerClient, Lives]]:
    """A started client whose models are up or failed, and the lives of its worker."""
    lives = Lives()
    config = WorkerConfig(
        models=configs or (CHAT, EMBED),
        **{"restart_backoff_s": 0.0, **settings},  # type: ignore[arg-type]
    )
    async with WorkerClient(config, spawn=lives) as client:
        await settled(client)
        yield client, lives


async def settled(client: WorkerClient) -> None:
    """Wait until each model is up, failed or not loaded."""
    version = -1
    while any(state.phase not in ("ready", "failed", "unloaded") for state in client.models.values()):
        version = await client.changed(version)


async def read_all(generation: Generation) -> list[str]:
    """The text of each choice."""
    texts: dict[int, str] = {}
    async for delta in generation:
        texts[delta.index] = texts.get(delta.index, "") + delta.text
    return [texts[index] for index in sorted(texts)]


def request(prompt: str, model: str = "echo", **fields: int) -> Generate:
    """A generation that says this."""
    return Generate(0, model, prompt=prompt, **fields)  # type: ignore[arg-type]


async def idle(client: WorkerClient, lives: Lives) -> None:
    """Wait until nothing is open on either side; a leak would wait for ever."""
    await until(lambda: not client.open_requests and not lives.last.session.open_calls)


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until this holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # whatever it looks at has no event
            await asyncio.sleep(0)
