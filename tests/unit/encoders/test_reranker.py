"""The reranker over a recording runtime: which pairs and batches its calls become, and what is refused."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from carpool.encoders import Activation, EncoderConfig, Reranker
from carpool.errors import ContextLengthExceeded, InvalidRequest, ModelFailed
from carpool.inference_engine import Priority
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.encoder import TokenPair
from tests.unit.encoders.recording_encoder import RecordingClassifier

Start = Callable[..., AbstractAsyncContextManager[tuple[Reranker, RecordingClassifier]]]


@pytest.fixture
def tokenizer() -> Tokenizer:
    """Words are numbers and their ids; 1000 begins, 1001 separates, 1002 ends."""
    vocabulary = {str(number): number for number in range(1_000)} | {"[": 1000, "|": 1001, "]": 1002}
    backend = Backend(models.WordLevel(vocabulary, unk_token="0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="[ $A ]", pair="[ $A | $B:1 ]:1", special_tokens=[("[", 1000), ("|", 1001), ("]", 1002)]
    )
    return Tokenizer(backend)


@pytest.fixture
def start(tokenizer: Tokenizer) -> Start:
    @asynccontextmanager
    async def started(
        config: EncoderConfig | None = None, max_tokens: int = 256
    ) -> AsyncIterator[tuple[Reranker, RecordingClassifier]]:
        runtime = RecordingClassifier(max_tokens)
        async with Reranker(
            runtime,
            tokenizer,
            config or EncoderConfig(),
            name="recorder",
            activation=Activation.IDENTITY,
        ) as reranker:
            try:
                yield reranker, runtime
            finally:
                runtime.release()

    return started


async def occupied(reranker: Reranker, runtime: RecordingClassifier) -> asyncio.Task[object]:
    """Hold the device with a pair of its own, so that whatever comes next has to wait."""
    runtime.hold()
    call = asyncio.create_task(reranker.score("1", ["1"]))
    await asyncio.to_thread(runtime.entered.acquire)
    return call


async def queued(reranker: Reranker, number: int) -> None:
    while reranker.waiting < number:  # noqa: ASYNC110  # the queue has no event for it
        await asyncio.sleep(0)


async def test_query_and_document_are_one_sequence_of_two_types(start: Start) -> None:
    async with start() as (reranker, runtime):
        answer = await reranker.score("1 2", ["7 8 9"])
    assert runtime.pairs == [TokenPair([1000, 1, 2, 1001, 7, 8, 9, 1002], second=4)]
    assert answer.scores.tolist() == [7 + 8 + 9 + 1002]
    assert answer.num_tokens == 8


async def test_scores_are_in_the_order_of_the_documents(start: Start) -> None:
    documents = [" ".join(["1"] * (1 + index * 7 % 50)) for index in range(2_048)]
    # Nothing is refused, however late a busy machine runs the first batches.
    async with start(EncoderConfig(max_queue_ms=math.inf)) as (reranker, runtime):
        answer = await reranker.score("5", documents, priority=Priority.BULK)
    assert answer.scores.tolist() == [len(document.split()) + 1002 for document in documents]
    assert answer.num_tokens == sum(len(pair.ids) for pair in runtime.pairs)
    padded = sum(len(batch) * max(map(len, batch)) for batch in runtime.batches)
    assert padded < 1.1 * answer.num_tokens
    assert max(len(batch) * max(map(len, batch)) for batch in runtime.batches) <= 2_048


async def test_concurrent_calls_share_a_batch(start: Start) -> None:
    async with start() as (reranker, runtime):
        first = await occupied(reranker, runtime)
        calls = [asyncio.create_task(reranker.score("1", [str(index)])) for index in range(8)]
        await queued(reranker, 8)
        runtime.release()
        answers = await asyncio.gather(*calls)
        await first
    assert [len(batch) for batch in runtime.batches] == [1, 8]
    assert [answer.scores.tolist() for answer in answers] == [[index + 1002] for index in range(8)]


async def test_an_urgent_call_overtakes_a_bulk_call(start: Start) -> None:
    async with start(EncoderConfig(max_batch_size=4)) as (reranker, runtime):
        first = await occupied(reranker, runtime)
        bulk = asyncio.create_task(reranker.score("2", ["2"] * 64, priority=Priority.BULK))
        await queued(reranker, 64)
        urgent = asyncio.create_task(reranker.score("3", ["3"]))
        await queued(reranker, 65)
        runtime.release()
        await asyncio.gather(first, bulk, urgent)
    assert runtime.batches[1] == [[1000, 3, 1001, 3, 1002]]


async def test_a_cancelled_call_is_not_computed(start: Start) -> None:
    async with start() as (reranker, runtime):
        first = await occupied(reranker, runtime)
        call = asyncio.create_task(reranker.score("2", ["2"] * 100))
        await queued(reranker, 100)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert reranker.waiting == 0
        runtime.release()
        await first
    assert len(runtime.pairs) == 1


@pytest.mark.parametrize(
    ("query", "document", "kept"),
    [  # of 12 tokens, 3 are special
        (1, 20, (1, 8)),
        (4, 20, (4, 5)),
        (5, 20, (4, 5)),
        (20, 20, (4, 5)),
        (20, 5, (5, 4)),
        (20, 3, (6, 3)),
        (6, 3, (6, 3)),
    ],
)
async def test_truncation_takes_from_the_longer_text_first(
    start: Start, query: int, document: int, kept: tuple[int, int]
) -> None:
    texts = [
        " ".join(str(first + index) for index in range(count))
        for first, count in ((10, query), (50, document))
    ]
    async with start(max_tokens=12) as (reranker, runtime):
        await reranker.score(texts[0], [texts[1]], truncate=True)
    [pair] = runtime.pairs
    expected = [1000, *range(10, 10 + kept[0]), 1001, *range(50, 50 + kept[1]), 1002]
    assert pair == TokenPair(expected, second=kept[0] + 2)


@pytest.mark.parametrize(
    ("query", "documents", "error", "param"),
    [
        ("1", [], InvalidRequest, "documents"),
        ("", ["1"], InvalidRequest, "query"),
        ("\ud800", ["1"], InvalidRequest, "query"),
        ("1", ["1", ""], InvalidRequest, "documents[1]"),
        ("1", ["1", "2", "\udfff"], InvalidRequest, "documents[2]"),
        ("1", ["1"] * 100 + ["1 " * 9], ContextLengthExceeded, "documents[100]"),
        ("1 " * 8, ["1", "1 1"], ContextLengthExceeded, "documents[1]"),
        ("1 " * 9, ["1"], ContextLengthExceeded, "query"),
        ("1", ["1 " * 1_000_000], ContextLengthExceeded, "documents[0]"),
        ("1 " * 1_000_000, ["1"], ContextLengthExceeded, "query"),
        ("1", [" " * 1_000_000 + "1"], ContextLengthExceeded, "documents[0]"),
    ],
)
async def test_a_bad_text_is_named_and_nothing_is_computed(
    start: Start, query: str, documents: list[str], error: type[InvalidRequest], param: str
) -> None:
    async with start(max_tokens=12) as (reranker, runtime):
        with pytest.raises(error) as caught:
            await reranker.score(query, documents)
        assert caught.value.param == param
        assert caught.value.code == error.code
        await reranker.score("1 " * 8, ["1"])  # as long as can be
    assert len(runtime.pairs) == 1


async def test_huge_texts_are_cut_to_their_beginning(start: Start) -> None:
    async with start(max_tokens=12) as (reranker, runtime):
        await reranker.score("1 " * 1_000_000, ["2 " * 1_000_000], truncate=True)
    assert runtime.pairs == [TokenPair([1000, *[1] * 4, 1001, *[2] * 5, 1002], second=6)]


def test_a_classifier_with_several_labels_is_no_reranker(tokenizer: Tokenizer) -> None:
    with pytest.raises(ModelFailed, match="3"):
        Reranker(RecordingClassifier(labels=3), tokenizer, EncoderConfig(), name="nli")
