"""The Llama graph against Llama written out in NumPy, and what a step must not depend on."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from carpool.errors import ModelFailed, StartError
from carpool.models.open import open_checkpoint
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.decoder import (
    DecoderSpec,
    Sample,
    SamplingParams,
    StepBatch,
    StepSize,
    TokenLogprobs,
    in_flight,
)
from carpool.runtimes.mask import mask_of
from carpool.runtimes.openvino import decoder as decoder_module
from carpool.runtimes.openvino.config import DecoderConfig, KvCachePrecision, WeightFormat
from carpool.runtimes.openvino.decoder import OpenVinoDecoder, _rounded_up, load_decoder
from carpool.runtimes.openvino.device import AlikeRows
from carpool.runtimes.openvino.warm_up import even_step
from carpool.worker.config import available_cores
from tests.unit.runtimes.random_llama import CONFIG, RandomLlama
from tests.unit.runtimes.steps import GREEDY, Row, generate, step

VOCAB_SIZE = CONFIG["vocab_size"]
ALL = SamplingParams(temperature=0, top_logprobs=VOCAB_SIZE)
F32 = DecoderConfig(weights=WeightFormat.F32, kv_cache_precision=KvCachePrecision.F32, kv_cache_bytes=2 << 20)
PROMPT = [int(i) for i in np.random.default_rng(0).integers(0, VOCAB_SIZE, 77)]
STRANGERS = [[5], list(range(40)), [7, 7, 7, 250]]


def load(checkpoint: RandomLlama, config: DecoderConfig = F32) -> OpenVinoDecoder:
    return load_decoder(checkpoint, config, num_threads=2)


def dense(logprobs: TokenLogprobs | None) -> NDArray[np.float64]:
    """All logprobs by token id."""
    assert logprobs is not None
    values = np.full(VOCAB_SIZE, np.nan)
    for token_id, logprob in logprobs.top:
        values[token_id] = logprob
    return values


def last(decoder: OpenVinoDecoder, *rows: Row) -> NDArray[np.float64]:
    """Logprobs after the last row's last token."""
    return dense(decoder.launch(step(*rows)).result().logprobs[-1])


@pytest.fixture(scope="module")
def llama() -> RandomLlama:
    return RandomLlama()


@pytest.fixture(scope="module")
def decoder(llama: RandomLlama) -> Iterator[OpenVinoDecoder]:
    decoder = load(llama)
    yield decoder
    decoder.close()


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 77])
def test_logprobs_are_llamas(decoder: OpenVinoDecoder, llama: RandomLlama, length: int) -> None:
    found = last(decoder, Row(PROMPT[:length], [4, 2, 9], sample=ALL))
    np.testing.assert_allclose(found, llama.logprobs(PROMPT[:length])[-1], atol=1e-4)


@pytest.mark.parametrize(("tied", "bias"), [(False, False), (True, True)])
def test_untied_heads_and_biases(tied: bool, bias: bool) -> None:
    llama = RandomLlama(tied=tied, bias=bias)
    found = last(load(llama), Row(PROMPT, [0, 1, 2], sample=ALL))
    np.testing.assert_allclose(found, llama.logprobs(PROMPT)[-1], atol=1e-4)


def test_rotary_parameters_of_newer_configs(llama: RandomLlama) -> None:
    newer = RandomLlama(rope_theta=None, rope_parameters={"rope_theta": 5000.0, "rope_type": "default"})
    found = last(load(newer), Row(PROMPT, [0, 1, 2], sample=ALL))
    np.testing.assert_allclose(found, llama.logprobs(PROMPT)[-1], atol=1e-4)


def test_greedy_tokens_are_llamas(decoder: OpenVinoDecoder, llama: RandomLlama) -> None:
    assert generate(decoder, PROMPT[:20], 30, [3, 8]) == llama.greedy(PROMPT[:20], 30)


def test_only_the_samples_are_drawn_in_row_order(decoder: OpenVinoDecoder, llama: RandomLlama) -> None:
    rows = [
        Row([1, 2], [0], sample=None),
        Row([3], [1], sample=ALL),
        Row([4], [2], sample=None),
        Row([5, 6], [3], sample=ALL),
    ]
    result = decoder.launch(step(*rows)).result()
    for logprobs, ids in zip(result.logprobs, ([3], [5, 6]), strict=True):
        np.testing.assert_allclose(dense(logprobs), llama.logprobs(ids)[-1], atol=1e-4)
    assert list(result.token_ids) == [int(llama.logprobs(ids)[-1].argmax()) for ids in ([3], [5, 6])]


def test_a_step_that_is_cut_is_the_same_step(
    decoder: OpenVinoDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where tokens of the step in flight are its input, and what is drawn comes from several pieces."""
    results = []
    for most in (1000, 40):
        monkeypatch.setattr(decoder, "_rows_alike", AlikeRows(2, most))
        first = decoder.launch(step(Row(PROMPT, [0, 1, 2], sample=ALL), Row([3], [3], sample=ALL)))
        row = Row([in_flight(1)], [3], 1, sample=ALL)
        second = decoder.launch(step(row, Row(PROMPT[:60], [4, 5], sample=ALL)))
        results.append([*first.result().logprobs, *second.result().logprobs])
        likeliest = [int(dense(each).argmax()) for each in results[-1]]
        assert [*first.result().token_ids, *second.result().token_ids] == likeliest
    for whole, cut in zip(*results, strict=True):
        np.testing.assert_allclose(dense(cut), dense(whole), atol=1e-4)


def test_a_step_without_samples_only_writes_its_keys_and_values(decoder: OpenVinoDecoder) -> None:
    assert decoder.launch(step(Row(PROMPT[:40], [0, 1], sample=None))).result().token_ids == []
    found = last(decoder, Row(PROMPT[40:41], [0, 1], 40, sample=ALL))
    np.testing.assert_allclose(found, last(decoder, Row(PROMPT[:41], [5, 6], sample=ALL)), atol=1e-4)


@pytest.mark.parametrize("cuts", [[32], [64], [32, 64], [1], [13, 50]], ids=str)
def test_chunks_of_a_prompt_give_what_the_whole_gives(decoder: OpenVinoDecoder, cuts: list[int]) -> None:
    whole = last(decoder, Row(PROMPT, [0, 1, 2], sample=ALL))
    for begin, end in zip([0, *cuts], [*cuts, len(PROMPT)], strict=True):
        chunks = last(decoder, Row(PROMPT[begin:end], [9, 7, 8], begin, sample=ALL))
    np.testing.assert_allclose(chunks, whole, atol=1e-4)


@pytest.mark.parametrize("kv_cache_precision", [KvCachePrecision.U8, KvCachePrecision.F16])
def test_a_chunk_that_ends_with_a_block_changes_little(
    llama: RandomLlama, kv_cache_precision: KvCachePrecision
) -> None:
    decoder = load(
        llama,
        DecoderConfig(
            weights=WeightFormat.F32, kv_cache_precision=kv_cache_precision, kv_cache_bytes=16 << 20
        ),
    )
    whole = last(decoder, Row(PROMPT, [0, 1, 2], sample=ALL))
    assert np.abs(whole - llama.logprobs(PROMPT)[-1]).max() < 0.5
    decoder.launch(step(Row(PROMPT[:64], [9, 7], sample=None))).result()
    chunks = last(decoder, Row(PROMPT[64:], [9, 7, 8], 64, sample=ALL))
    assert np.abs(chunks - whole).max() < 0.2


def test_strangers_in_the_batch_change_nothing(decoder: OpenVinoDecoder) -> None:
    """Prompts and decode steps mixed, with blocks in no order."""
    for place, ids in enumerate(STRANGERS):
        decoder.launch(step(Row(ids, [20 + 2 * place, 3 + place], sample=None))).result()
    alone = last(decoder, Row(PROMPT, [0, 1, 2], sample=ALL))
    strangers = [
        Row([9], [20 + 2 * place, 3 + place], len(ids), sample=SamplingParams(seed=place))
        for place, ids in enumerate(STRANGERS)
    ]
    together = last(decoder, *strangers, Row(PROMPT, [15, 9, 12], sample=ALL))
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_the_block_table_keeps_its_length_and_holds_no_block_of_others() -> None:
    for count in (1, 127, 128):
        table = _rounded_up(np.arange(count, dtype=np.int32), 900)
        assert table.dtype == np.int32
        assert table.tolist() == [*range(count), *[900] * (128 - count)]
    assert len(_rounded_up(np.zeros(129, np.int32), 900)) == 256


def test_rows_may_share_full_blocks(decoder: OpenVinoDecoder, llama: RandomLlama) -> None:
    decoder.launch(step(Row(PROMPT[:32], [6], sample=None))).result()
    rows = [Row([1, 2], [6, 10], 32, sample=ALL), Row([3], [6, 11], 32, sample=ALL)]
    result = decoder.launch(step(*rows)).result()
    for logprobs, ids in zip(result.logprobs, ([1, 2], [3]), strict=True):
        np.testing.assert_allclose(dense(logprobs), llama.logprobs(PROMPT[:32] + ids)[-1], atol=1e-4)


def test_steps_launched_ahead_draw_the_same_tokens(decoder: OpenVinoDecoder, llama: RandomLlama) -> None:
    """Two sequences, the second in the first place from the second step on."""
    prompts = [PROMPT[:10], PROMPT[20:25]]
    handle = decoder.launch(step(Row(prompts[0], [0]), Row(prompts[1], [1])))
    tokens: list[Sequence[int]] = []
    order = [0, 1]
    for number in range(6):
        rows = [
            Row([in_flight(order.index(which))], [which], len(prompts[which]) + number) for which in (1, 0)
        ]
        ahead = decoder.launch(step(*rows))
        tokens.append([handle.result().token_ids[order.index(which)] for which in (0, 1)])
        handle, order = ahead, [1, 0]
    handle.result()
    for which, prompt in enumerate(prompts):
        assert [drawn[which] for drawn in tokens] == llama.greedy(prompt, 6)


def test_a_step_that_fails_spares_the_next(decoder: OpenVinoDecoder, llama: RandomLlama) -> None:
    nothing = mask_of(bytes(4 * -(-VOCAB_SIZE // 32)))
    poisoned = Sample(0, GREEDY, (), (), allowed=lambda: nothing)
    failing = decoder.launch(replace(step(Row(PROMPT, [0, 1, 2])), samples=[poisoned]))
    with pytest.raises(ValueError, match="grammar"):
        decoder.launch(step(Row([in_flight(0)], [0, 1, 2], len(PROMPT))))
    assert generate(decoder, [1, 2], 3, [3]) == llama.greedy([1, 2], 3)
    with pytest.raises(ValueError, match="grammar"):
        failing.result()


@pytest.mark.parametrize(
    ("weights", "correlation"),
    [
        (WeightFormat.AUTO, 0.998),
        (WeightFormat.BF16, 0.998),
        (WeightFormat.MIXED, 0.99),
        (WeightFormat.INT8, 0.99),
        (WeightFormat.INT4, 0.6),  # a random network forgives less than a trained one
    ],
)
@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("sides", [(96, 160), (128, 192)], ids=["cut tiles", "whole tiles"])
def test_other_weight_formats_are_near(
    weights: WeightFormat, correlation: float, num_threads: int, sides: tuple[int, int]
) -> None:
    """Whatever the plugin's fused kernels, which AMX processors have, make of sides and threads."""
    llama = RandomLlama(hidden_size=sides[0], intermediate_size=sides[1])
    decoder = load_decoder(
        llama, DecoderConfig(weights=weights, kv_cache_bytes=16 << 20), num_threads=num_threads
    )
    found = last(decoder, Row(PROMPT, [0, 1, 2], sample=ALL))
    assert np.corrcoef(found, llama.logprobs(PROMPT)[-1])[0, 1] > correlation


@pytest.mark.parametrize(("tied", "bias"), [(False, False), (True, True)])
def test_mixed_weights_with_heads_of_all_kinds_are_near(tied: bool, bias: bool) -> None:
    llama = RandomLlama(tied=tied, bias=bias, hidden_size=128, intermediate_size=192)
    found = last(load(llama, DecoderConfig(weights=WeightFormat.MIXED)), Row(PROMPT, [0, 1, 2], sample=ALL))
    assert np.corrcoef(found, llama.logprobs(PROMPT)[-1])[0, 1] > 0.99


@pytest.mark.parametrize("weights", [WeightFormat.BF16, WeightFormat.MIXED])
@pytest.mark.parametrize(
    "shape", [(VOCAB_SIZE, 1), (VOCAB_SIZE,), (2 * VOCAB_SIZE, 128), (VOCAB_SIZE - 1, 128)]
)
def test_a_head_of_another_shape_is_refused(weights: WeightFormat, shape: tuple[int, ...]) -> None:
    llama = RandomLlama(tied=False, hidden_size=128, intermediate_size=192)
    llama._weights["lm_head.weight"] = np.ones(shape, np.float32)
    with pytest.raises(ModelFailed, match=r"lm_head\.weight has the shape"):
        load(llama, DecoderConfig(weights=weights))


@pytest.mark.parametrize("weights", [WeightFormat.BF16, WeightFormat.MIXED])
@pytest.mark.parametrize("shape", [(VOCAB_SIZE, 1), (127,)])
def test_a_norm_of_another_shape_is_refused(weights: WeightFormat, shape: tuple[int, ...]) -> None:
    llama = RandomLlama(hidden_size=128, intermediate_size=192)
    llama._weights["model.norm.weight"] = np.ones(shape, np.float32)
    with pytest.raises(ModelFailed, match=r"norm\.weight has the shape"):
        load(llama, DecoderConfig(weights=weights))


def test_weights_that_are_not_numbers_are_refused_where_integers_would_hide_them() -> None:
    llama = RandomLlama(hidden_size=128, intermediate_size=192)
    llama._weights["model.layers.1.mlp.gate_proj.weight"][3, 5] = np.nan
    with pytest.raises(ModelFailed, match="not numbers"):
        load(llama, DecoderConfig(weights=WeightFormat.MIXED))


@pytest.mark.all_cores
@pytest.mark.parametrize(("weights", "inner"), [(WeightFormat.MIXED, 64), (WeightFormat.BF16, 32)])
def test_narrow_feed_forward_layers_do_not_end_the_process(weights: WeightFormat, inner: int) -> None:
    llama = RandomLlama(hidden_size=128, intermediate_size=inner)
    found = last(load(llama, DecoderConfig(weights=weights)), Row(PROMPT, [0, 1, 2], sample=ALL))
    assert np.corrcoef(found, llama.logprobs(PROMPT)[-1])[0, 1] > 0.99


@pytest.mark.parametrize("weights", [WeightFormat.F32, WeightFormat.BF16, WeightFormat.MIXED])
def test_a_row_without_numbers_is_told_whatever_the_weights_are(weights: WeightFormat) -> None:
    """Products of integers have no NaN."""
    llama = RandomLlama(tied=False, hidden_size=128, intermediate_size=192)
    broken = PROMPT[3]
    llama._weights["model.embed_tokens.weight"][broken] = np.nan
    decoder = load(llama, DecoderConfig(weights=weights, kv_cache_bytes=16 << 20))
    others = [token for token in PROMPT if token != broken]
    result = decoder.launch(step(Row(others[:5], [0]), Row(PROMPT[:5], [1]), Row(others[:7], [2]))).result()
    assert list(result.unusable) == [1]


def test_kv_memory_fits_its_budget(llama: RandomLlama) -> None:
    per_token = 2 * 3 * 2 * 32 * 4  # keys and values, layers, heads, dimensions, bytes
    config = DecoderConfig(
        weights=WeightFormat.F32,
        kv_cache_precision=KvCachePrecision.F32,
        kv_cache_bytes=32 * per_token * 5 + 1,
    )
    spec = load(llama, config).spec
    assert (spec.num_blocks, spec.block_size) == (5, 32)
    assert (spec.vocab_size, spec.context_length) == (VOCAB_SIZE, 256)
    with pytest.raises(StartError, match="one block"):
        load(llama, DecoderConfig(weights=WeightFormat.F32, kv_cache_bytes=1000))
    with pytest.raises(StartError, match="at least 1"):
        DecoderConfig(kv_cache_bytes=0)


def test_loading_reports_its_phases(llama: RandomLlama) -> None:
    reports: list[tuple[str, float]] = []
    load_decoder(llama, F32, num_threads=1, on_progress=lambda *report: reports.append(report))
    assert [phase for phase, _ in reports] == ["building", "compiling", "warming up", "ready"]
    assert [share for _, share in reports] == sorted(share for _, share in reports)


@pytest.mark.model
@pytest.mark.parametrize("weights", [WeightFormat.AUTO, WeightFormat.INT8])
def test_the_starter_knows_the_capital_of_france(smollm2_path: Path, weights: WeightFormat) -> None:
    checkpoint = open_checkpoint(smollm2_path)
    tokenizer = Tokenizer.from_checkpoint(checkpoint)
    decoder = load_decoder(
        checkpoint, DecoderConfig(weights=weights, kv_cache_bytes=64 << 20), num_threads=available_cores()
    )
    output = generate(decoder, tokenizer.encode("The capital of France is"), 8, [3])
    decoder.close()
    assert "Paris" in tokenizer.decode(output)


@pytest.mark.parametrize(
    ("largest", "seconds", "expected"),
    [
        (StepSize(tokens=100, samples=5), 1e9, StepSize(tokens=100, samples=5)),
        (StepSize(tokens=1_000_000, samples=70), 1e9, StepSize(tokens=2048, samples=70)),
        (StepSize(tokens=100, samples=5), 0, None),  # even a block takes too long
        (StepSize(tokens=1, samples=1), 1e9, None),
    ],
)
def test_the_largest_step_is_run_before_the_first_request(
    llama: RandomLlama,
    monkeypatch: pytest.MonkeyPatch,
    largest: StepSize,
    seconds: float,
    expected: StepSize | None,
) -> None:
    sizes = []

    def recorded(spec: DecoderSpec, size: StepSize) -> StepBatch:
        sizes.append(size)
        return even_step(spec, size)

    monkeypatch.setattr(decoder_module, "even_step", recorded)
    monkeypatch.setattr(decoder_module, "_WARM_UP_SECONDS", seconds)
    load_decoder(llama, F32, num_threads=1, largest_step=largest).close()
    block = StepSize(tokens=32, samples=1)
    assert sizes == [StepSize(tokens=1, samples=1), block, block, *([expected] if expected else [])]
