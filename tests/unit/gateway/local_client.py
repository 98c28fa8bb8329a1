"""The worker's client without a worker: its models live in this process and do as the test says."""

import asyncio
import itertools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from carpool.errors import CarpoolError, InvalidRequest, ModelLoading
from carpool.telemetry import Registry, Snapshot
from carpool.worker.answers import Embeddings, Scores
from carpool.worker.client import WorkerClient
from carpool.worker.config import ModelConfig, WorkerConfig
from carpool.worker.generation import Generation
from carpool.worker.places import Reservation
from carpool.worker.protocol import Embed, Generate, Prompt, Score, StepEntry
from tests.unit.worker.echo import byte_tokenizer

CHAT = ModelConfig(reference="pypi:parrot==1", name="parrot", aliases=("org/parrot",))
EMBED = ModelConfig(reference="pypi:vectors==1", name="vectors")
RERANK = ModelConfig(reference="pypi:judge==1", name="judge")


def open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


class LocalClient(WorkerClient):
    """`parrot` says the last message or prompt, one byte per token; `vectors` makes a unit vector of a text.

    Documents are scored by the share of the query's letters in them, less one from `vectors`; an empty one is
    refused. `judge`, a reranker, is there if asked for.

    While `admitting` is not set nothing is accepted, while `going` is not set nothing else comes.
    """

    def __init__(self, *, dimensions: int = 8, ready: bool = True, reranker: bool = False) -> None:
        super().__init__(WorkerConfig(models=(CHAT, EMBED, *((RERANK,) if reranker else ()))))
        self.dimensions = dimensions
        self.admitting = open_gate()
        self.going = open_gate()
        self.refusal: CarpoolError | None = None
        """Every request is refused with it."""
        self.failure: CarpoolError | None = None
        """Every generation fails with it after `fails_after` tokens."""
        self.fails_after = 3
        self.generates: list[Generate] = []
        self.embeds: list[Embed] = []
        self.scored: list[Score] = []
        self.running: set[int] = set()
        self.cancelled: set[int] = set()
        self._on_end: dict[int, Callable[[], None]] = {}
        self.registry = Registry()
        self._numbers = itertools.count(1)
        self._tokenizer = byte_tokenizer()
        self._feeding: set[asyncio.Task[None]] = set()
        if ready:
            self.become_ready()

    def become_ready(self) -> None:
        details = {"precision": "bf16", "chat_template": "fallback"}
        self.set_state(
            CHAT.name, phase="ready", percent=100.0, task="generate", context_length=64, details=details
        )
        self.set_state(
            EMBED.name,
            phase="ready",
            percent=100.0,
            task="embed",
            context_length=64,
            dimensions=self.dimensions,
        )
        if RERANK.name in self.models:
            self.set_state(RERANK.name, phase="ready", percent=100.0, task="rerank", context_length=64)

    def set_state(self, name: str, **changes: object) -> None:
        self._states.update(name, **changes)

    def snapshots(self) -> list[tuple[dict[str, str], Snapshot]]:
        return [({"device": "cpu"}, self.registry.snapshot())]

    async def generate(
        self, request: Generate, *, stop: Sequence[str] = (), places: Reservation | None = None
    ) -> Generation:
        self._check(request.model, "generate")
        self.generates.append(request)
        on_end = self._begin(request.model, places, request.n)
        number = await self._enter(self.admitting, on_end)
        try:
            prompt = _prompt_ids(request, self._tokenizer.encode)
        except InvalidRequest:
            self._cancel(number)
            raise
        generation = Generation(
            self._tokenizer, request.n, stop, on_close=lambda: self._cancel(number), rounds=self._rounds
        )
        generation.accept(len(prompt))
        task = asyncio.create_task(self._feed(number, generation, request, prompt))
        self._feeding.add(task)
        task.add_done_callback(self._feeding.discard)
        return generation

    async def count_tokens(self, request: Prompt) -> int:
        self._check(request.model, "generate")
        return len(_prompt_ids(request, self._tokenizer.encode))

    async def embed(self, request: Embed) -> Embeddings:
        self._check(request.model, "embed")
        self.embeds.append(request)
        self._end(await self._enter(self.going, self._begin(request.model)))
        vectors = np.stack([vector_of(item, self.dimensions) for item in request.inputs])
        return Embeddings(vectors, [len(item) for item in request.inputs])

    async def score(self, request: Score) -> Scores:
        self._check(request.model, "embed", "rerank")
        self.scored.append(request)
        self._end(await self._enter(self.going, self._begin(request.model)))
        for index, document in enumerate(request.documents):
            if not document:
                param = f"documents[{index}]"
                raise InvalidRequest(f"{param} is an empty string.", param=param)
        base = 0 if request.model == RERANK.name else -1
        shares = [share_of(request.query, document) + base for document in request.documents]
        tokens = len(request.query) + sum(map(len, request.documents))
        return Scores(np.array(shares, np.float32), tokens)

    def _check(self, name: str, *tasks: str) -> None:
        state = self.resolve(name)
        if self.refusal is not None:
            raise self.refusal
        if state.phase != "ready":
            raise ModelLoading(f"The model `{name}` is loading.", retry_after_s=2.4)
        if state.task not in tasks:
            raise InvalidRequest(f"The model `{name}` does something else.", param="model")

    async def _enter(self, gate: asyncio.Event, on_end: Callable[[], None]) -> int:
        """The number of a request that runs from now on and waits at the gate."""
        number = next(self._numbers)
        self.running.add(number)
        self._on_end[number] = on_end
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self._cancel(number)
            raise
        return number

    def _cancel(self, number: int) -> None:
        if number in self.running:
            self._end(number)
            self.cancelled.add(number)

    def _end(self, number: int) -> None:
        self.running.discard(number)
        self._on_end.pop(number)()

    async def _feed(
        self, number: int, generation: Generation, request: Generate, token_ids: list[int]
    ) -> None:
        limit = len(token_ids) if request.max_tokens is None else request.max_tokens
        for place, token_id in enumerate(token_ids[:limit]):
            await self.going.wait()
            if number not in self.running:
                return
            if self.failure is not None and place == self.fails_after:
                self._end(number)
                generation.fail(self.failure)
                return
            last = place + 1 == min(limit, len(token_ids))
            finish_reason = ("length" if limit < len(token_ids) else "stop") if last else None
            logprobs = None
            if request.top_logprobs is not None:
                logprobs = [(-0.5, [(token_id, -0.5)] * request.top_logprobs)]
            if last:
                self._end(number)
            for index in range(request.n):
                generation.feed(
                    StepEntry(number, index, [token_id], logprobs, finish_reason, 2 if last else 0)
                )
            await asyncio.sleep(0)


def _prompt_ids(request: Prompt, encode: Callable[[str], list[int]]) -> list[int]:
    if request.prompt_ids is not None:
        if max(request.prompt_ids) > 256:
            raise InvalidRequest("prompt must be token ids from 0 to 256", param="prompt")
        return request.prompt_ids
    if request.prompt is not None:
        return encode(request.prompt)
    assert request.messages is not None
    content = request.messages[-1].get("content") or "nothing"
    text = content if isinstance(content, str) else "\n".join(part["text"] for part in content)
    return encode(text or "nothing")


def vector_of(item: str | list[int], dimensions: int) -> NDArray[np.float32]:
    """A unit vector that depends on the input."""
    data = item.encode() if isinstance(item, str) else bytes(item)
    rng = np.random.default_rng(list(data))
    vector = rng.standard_normal(dimensions).astype(np.float32)
    unit: NDArray[np.float32] = vector / np.linalg.norm(vector)
    return unit


def share_of(query: str, document: str) -> float:
    """How many of the query's different letters are in the document, of 1."""
    letters = set(query)
    return len(letters & set(document)) / max(len(letters), 1)
