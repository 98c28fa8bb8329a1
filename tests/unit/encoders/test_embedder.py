"""The embedder over a recording runtime: which batches its calls become, and what a failure touches."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest

from carpool.encoders import Embedder, Embeddings, EncoderConfig, SentenceTransformersConfig
from carpool.errors import CarpoolError, ContextLengthExceeded, InvalidRequest, StartError
from carpool.inference_engine import DeadlineExceeded, EngineStopped, Priority, QueueFull
from carpool.models.tokenizer import Tokenizer
from carpool.telemetry import Registry, render
from tests.unit.encoders.recording_encoder import OVERFLOW, POISON, RecordingEncoder, vector

Start = Callable[..., AbstractAsyncContextManager[tuple[Embedder, RecordingEncoder]]]


@pytest.fixture
def start(minilm_tokenizer: Tokenizer) -> Start:
    @asynccontextmanager
    async def started(
        config: EncoderConfig | None = None, registry: Registry | None = None
    ) -> AsyncIterator[tuple[Embedder, RecordingEncoder]]:
        encoder = RecordingEncoder()
        async with Embedder(
            encoder, minilm_tokenizer, config or EncoderConfig(), name="recorder", registry=registry
        ) as embedder:
            try:
                yield embedder, encoder
            finally:
                encoder.release()

    return started


async def occupied(embedder: Embedder, encoder: RecordingEncoder) -> asyncio.Task[object]:
    """Hold the device with an input of its own, so that whatever comes next has to wait."""
    encoder.hold()
    call = asyncio.create_task(embedder.embed([[1]]))
    await asyncio.to_thread(encoder.entered.acquire)
    return call


async def queued(embedder: Embedder, number: int) -> None:
    """Wait until this many inputs wait for a batch."""
    while embedder.waiting < number:  # noqa: ASYNC110  # the queue has no event for it
        await asyncio.sleep(0)


async def test_the_batch_size_changes_while_it_runs(start: Start) -> None:
    async with start(EncoderConfig(max_batch_size=2)) as (embedder, encoder):
        first = await occupied(embedder, encoder)
        calls = asyncio.gather(*(embedder.embed([[i + 2]]) for i in range(6)))
        await queued(embedder, 6)
        embedder.batch_config = replace(embedder.batch_config, max_batch_size=6)
        encoder.release()
        await asyncio.gather(first, calls)
        assert [len(batch) for batch in encoder.batches] == [1, 6]


async def test_token_ids_are_taken_as_they_are_and_results_are_in_order(start: Start) -> None:
    inputs = [[5, 6, 7], [8], [9, 10], [11] * 20, [12]]
    async with start() as (embedder, _):
        embeddings = await embedder.embed(inputs)
    assert embeddings.vectors.dtype == np.float32
    assert embeddings.vectors.tolist() == [vector(ids) for ids in inputs]
    assert embeddings.token_counts == [3, 1, 2, 20, 1]


async def test_texts_get_the_special_tokens(start: Start, minilm_tokenizer: Tokenizer) -> None:
    async with start() as (embedder, encoder):
        embeddings = await embedder.embed(["shared ride"])
    assert encoder.batches == [[minilm_tokenizer.encode("shared ride")]]
    assert embeddings.token_counts == [4]


async def test_a_far_too_long_text_is_cut_or_refused_by_its_beginning(
    start: Start, minilm_tokenizer: Tokenizer
) -> None:
    text = "shared ride, " * 10_000
    async with start() as (embedder, encoder):
        with pytest.raises(
            ContextLengthExceeded, match=r"input\[1\] has at least \d{3} tokens.* 256"
        ) as caught:
            await embedder.embed(["a", text])
        assert caught.value.param == "input[1]"
        await embedder.embed([text], truncate=True)
    assert encoder.batches == [[minilm_tokenizer.encode(text)[:255] + minilm_tokenizer.encode("")[1:]]]


async def test_concurrent_calls_share_a_batch(start: Start) -> None:
    async with start() as (embedder, encoder):
        first = await occupied(embedder, encoder)
        calls = [asyncio.create_task(embedder.embed([[2 + each]])) for each in range(8)]
        await queued(embedder, 8)
        encoder.release()
        results = await asyncio.gather(*calls)
        await first
    assert [len(batch) for batch in encoder.batches] == [1, 8]
    assert [result.vectors[0, 1] for result in results] == [2 + each for each in range(8)]


async def test_batches_are_bounded_by_items_and_by_padded_tokens(start: Start) -> None:
    inputs = [[1] * (1 + index * 7 % 50) for index in range(300)]
    async with start(EncoderConfig(max_batch_size=16, max_batch_tokens=200)) as (embedder, encoder):
        embeddings = await embedder.embed(inputs)
    assert embeddings.token_counts == [len(ids) for ids in inputs]
    assert max(len(batch) for batch in encoder.batches) == 16
    assert max(len(batch) * max(map(len, batch)) for batch in encoder.batches) <= 200
    padded = sum(len(batch) * max(map(len, batch)) for batch in encoder.batches)
    assert padded < 1.1 * sum(map(len, inputs))


async def test_where_texts_share_rows_batches_are_bounded_by_the_sum_of_tokens(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RecordingEncoder, "pads", False)
    inputs = [[1] * (1 + index * 7 % 50) for index in range(300)]
    async with start(EncoderConfig(max_batch_tokens=200)) as (embedder, encoder):
        await embedder.embed(inputs)
    sums = [sum(map(len, batch)) for batch in encoder.batches]
    assert max(sums) <= 200
    assert len(sums) < 1.15 * sum(sums) / 200, "hardly any room is left"
    assert [ids for batch in encoder.batches for ids in batch] == inputs, "as they came"


async def test_where_texts_share_rows_only_those_too_long_for_company_go_by_length(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RecordingEncoder, "pads", False)
    lengths = [200, 12, 90, 80, 7, 230, 81, 40]
    inputs = [[1 + index] * length for index, length in enumerate(lengths)]
    async with start() as (embedder, encoder):
        embeddings = await embedder.embed(inputs)
    assert [len(ids) for batch in encoder.batches for ids in batch] == [12, 80, 7, 40, 81, 90, 200, 230]
    assert embeddings.vectors.tolist() == [vector(ids) for ids in inputs], "the answer is in the call's order"


async def test_a_large_call_is_spread_over_batches_in_order(start: Start) -> None:
    inputs = [[1 + index, 2] for index in range(2_048)]
    async with start() as (embedder, encoder):
        embeddings = await embedder.embed(inputs, priority=Priority.BULK)
        assert embedder.batches == len(encoder.batches)
    assert embeddings.vectors.tolist() == [vector(ids) for ids in inputs]


async def test_an_urgent_call_overtakes_a_bulk_call(start: Start) -> None:
    async with start(EncoderConfig(max_batch_size=4)) as (embedder, encoder):
        first = await occupied(embedder, encoder)
        bulk = asyncio.create_task(embedder.embed([[2]] * 64, priority=Priority.BULK))
        await queued(embedder, 64)
        urgent = asyncio.create_task(embedder.embed([[3]]))
        await queued(embedder, 65)
        encoder.release()
        await asyncio.gather(first, bulk, urgent)
    assert encoder.batches[1] == [[3]]


async def test_one_failing_input_leaves_its_neighbours_alone(start: Start) -> None:
    async with start() as (embedder, encoder):
        first = await occupied(embedder, encoder)
        calls = [asyncio.create_task(embedder.embed([[POISON - 3 + each]])) for each in range(6)]
        await queued(embedder, 6)
        encoder.release()
        results = await asyncio.gather(*calls, return_exceptions=True)
        await first
    assert [isinstance(result, RuntimeError) for result in results] == [False] * 3 + [True] + [False] * 2


async def test_an_input_that_gives_no_numbers_is_named_and_its_neighbours_are_served(start: Start) -> None:
    async with start() as (embedder, encoder):
        first = await occupied(embedder, encoder)
        inputs = [[5]], [[6, 7], [OVERFLOW], [8]], [[9]]
        calls = [asyncio.create_task(embedder.embed(ids)) for ids in inputs]
        await queued(embedder, 5)
        encoder.release()
        results = await asyncio.gather(*calls, return_exceptions=True)
        await first
    assert [isinstance(result, Embeddings) for result in results] == [True, False, True]
    assert isinstance(results[1], CarpoolError)
    assert "input[1]" in results[1].message


async def test_a_document_that_gives_no_numbers_is_named(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(ids: Sequence[int]) -> list[float]:
        return [math.nan if len(ids) > 8 else 1.0] * 3

    monkeypatch.setattr("tests.unit.encoders.recording_encoder.vector", row)
    async with start() as (embedder, encoder):
        encoder.release()  # nobody holds it up
        with pytest.raises(CarpoolError, match=r"for documents\[1\]"):
            await embedder.score("a query", ["short", "a document of many more words than eight of them"])


async def test_a_failing_input_takes_back_the_rest_of_its_call(start: Start) -> None:
    async with start(EncoderConfig(max_batch_size=1)) as (embedder, encoder):
        with pytest.raises(RuntimeError, match="poisoned"):
            await embedder.embed([[POISON], *[[2]] * 50])
    assert len(encoder.batches) < 51


async def test_a_cancelled_call_is_not_computed(start: Start) -> None:
    async with start() as (embedder, encoder):
        first = await occupied(embedder, encoder)
        call = asyncio.create_task(embedder.embed([[2]] * 100))
        await queued(embedder, 100)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert embedder.waiting == 0
        encoder.release()
        await first
        await embedder.embed([[3]])
    assert encoder.batches == [[[1]], [[3]]]


async def test_a_deadline_ends_the_call(start: Start) -> None:
    async with start() as (embedder, encoder):
        first = await occupied(embedder, encoder)
        with pytest.raises(DeadlineExceeded):
            await embedder.embed([[2]], deadline=time.monotonic() - 1)
        encoder.release()
        await first
    assert encoder.batches == [[[1]]]


async def test_a_full_queue_takes_nothing_of_a_call(start: Start) -> None:
    async with start(EncoderConfig(max_queue_ms=1e-6)) as (embedder, encoder):
        for _ in range(9):  # until the queue trusts its predictions
            await embedder.embed([[1]])
        first = await occupied(embedder, encoder)
        with pytest.raises(QueueFull):
            await embedder.embed([[2]] * 40)
        encoder.release()
        await first
    assert not any([2] in batch for batch in encoder.batches)


async def test_a_stopped_embedder_refuses(start: Start) -> None:
    async with start() as (embedder, _):
        pass
    with pytest.raises(EngineStopped):
        await embedder.embed([[1]])


@pytest.mark.parametrize(
    ("inputs", "error", "param"),
    [
        ([], InvalidRequest, "input"),
        (["a", ""], InvalidRequest, "input[1]"),
        ([[1], []], InvalidRequest, "input[1]"),
        ([[1], [30_522]], InvalidRequest, "input[1]"),
        ([[-1]], InvalidRequest, "input[0]"),
        ([[True]], InvalidRequest, "input[0]"),
        ([[1.5]], InvalidRequest, "input[0]"),
        (["a", None], InvalidRequest, "input[1]"),
        (["a", 3], InvalidRequest, "input[1]"),
        ([b"bytes"], InvalidRequest, "input[0]"),
        (["a", "b", "\ud800"], InvalidRequest, "input[2]"),
        (["a"] * 100 + ["word " * 300], ContextLengthExceeded, "input[100]"),
        ([[1] * 256, [1] * 257], ContextLengthExceeded, "input[1]"),
    ],
)
async def test_a_bad_input_is_named_and_nothing_is_computed(
    start: Start, inputs: list[str], error: type[InvalidRequest], param: str
) -> None:
    async with start() as (embedder, encoder):
        with pytest.raises(error) as caught:
            await embedder.embed(inputs)
        assert caught.value.param == param
        assert caught.value.code == error.code
        await embedder.embed(["the next call is served"])
    assert len(encoder.batches) == 1


async def test_truncate_cuts_to_the_window_and_keeps_the_closing_token(
    start: Start, minilm_tokenizer: Tokenizer
) -> None:
    text = "word " * 300
    async with start() as (embedder, encoder):
        embeddings = await embedder.embed([text], truncate=True)
        assert (await embedder.embed([[7] * 300], truncate=True)).token_counts == [256]
    ids = minilm_tokenizer.encode(text)
    assert encoder.batches[0] == [[*ids[:255], ids[-1]]]
    assert embeddings.token_counts == [256]


async def test_the_prompt_is_put_before_texts(minilm_tokenizer: Tokenizer) -> None:
    encoder = RecordingEncoder()
    async with Embedder(
        encoder,
        minilm_tokenizer,
        EncoderConfig(),
        name="recorder",
        extra=SentenceTransformersConfig(default_prompt="query: "),
    ) as embedder:
        await embedder.embed(["ride"])
    assert encoder.batches == [[minilm_tokenizer.encode("query: ride")]]


async def test_metrics_tell_batches_tokens_and_padding(start: Start) -> None:
    registry = Registry()
    async with start(registry=registry) as (embedder, encoder):
        first = await occupied(embedder, encoder)
        call = asyncio.create_task(embedder.embed([[1] * 10, [1] * 9]))
        await queued(embedder, 2)
        encoder.release()
        await asyncio.gather(first, call)
    text = render([({}, registry.snapshot())])
    assert 'carpool_encoder_tokens_total{model="recorder"} 20' in text
    assert 'carpool_encoder_padding_tokens_total{model="recorder"} 1' in text
    assert 'carpool_encoder_batch_size_count{model="recorder"} 2' in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_batch_size", 0),
        ("max_batch_tokens", 0),
        ("batch_wait_ms", -1.0),
        ("batch_wait_ms", float("nan")),
        ("max_queue_ms", 0.0),
        ("weight", 0.0),
        ("precision", "int4"),
    ],
)
def test_a_config_out_of_range_is_refused(name: str, value: object) -> None:
    with pytest.raises(StartError) as caught:
        EncoderConfig(**{name: value})  # type: ignore[arg-type]
    assert caught.value.param == name
