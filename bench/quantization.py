"""Weights and KV memory in fewer bits: size, speed and perplexity of the starter model.

    python -m bench.quantization [--rounds 3] [--windows 12]

Every pair of formats is measured in processes of its own, the pairs taking turns; medians over the rounds are
reported. The text is Python's own documentation as `pydoc_data` carries it (PSF licence), in windows of 256
tokens. Each token is predicted from those before it in its window, by the steps that decode, so KV memory is
written and read as in service.
"""

import argparse
import hashlib
import itertools
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from bench.decoder_precision import CONTEXT, step
from bench.inference_engine_report import write
from carpool.models.open import open_checkpoint
from carpool.models.reference import ModelReference
from carpool.models.source import DEFAULT_DIRECTORY, fetch
from carpool.models.starter import CHAT_MODEL
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.decoder import DecoderRuntime, Sample, SamplingParams, StepBatch, StepSize
from carpool.runtimes.openvino.config import DecoderConfig, KvCachePrecision, WeightFormat
from carpool.runtimes.openvino.decoder import load_decoder
from carpool.runtimes.openvino.device import default_precision

WEIGHTS = (WeightFormat.F32, WeightFormat.BF16, WeightFormat.MIXED, WeightFormat.INT8, WeightFormat.INT4)
KV = (KvCachePrecision.F32, KvCachePrecision.F16, KvCachePrecision.BF16, KvCachePrecision.U8)
STREAMS = (1, 32)
WINDOW = 256
TEXT = topics["execmodel"] + topics["objects"] + topics["naming"]
_CERTAIN = 1e6


def default_kv(weights: WeightFormat) -> KvCachePrecision:
    """What `auto` stands for on this CPU."""
    is_bf16 = weights is not WeightFormat.F32 and default_precision() == "bf16"
    return KvCachePrecision.BF16 if is_bf16 else KvCachePrecision.F16


def pairs() -> list[tuple[WeightFormat, KvCachePrecision]]:
    """All that can be set here: bf16 keys and values take a model that is computed in bf16."""
    return [
        (weights, kv)
        for weights, kv in itertools.product(WEIGHTS, KV)
        if kv is not KvCachePrecision.BF16 or kv is default_kv(weights)
    ]


def memory_mib() -> float:
    """Memory of this process that no file backs, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def rate(decoder: DecoderRuntime, streams: int, steps: int) -> float:
    """Tokens per second of decode steps at 128 tokens of context, from the median step."""
    batch = step(np.arange(100, 100 + streams), CONTEXT, SamplingParams(temperature=0))
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        decoder.launch(batch).result()
        seconds.append(time.perf_counter() - began)
    return streams / statistics.median(seconds)


def perplexity(decoder: DecoderRuntime, windows: np.ndarray) -> float:
    """Of windows of token ids [windows, tokens], all predicted side by side, a token a step."""
    rows, length = windows.shape
    blocks = -(-length // decoder.spec.block_size)
    begins = np.arange(rows + 1, dtype=np.int32)
    surprise = []
    for position in range(length - 1):
        samples = [
            # The token that follows is made certain, so its logprob, which is the model's own, comes back.
            Sample(
                row,
                SamplingParams(temperature=0, logit_bias={int(token): _CERTAIN}, top_logprobs=0),
                (),
                (),
            )
            for row, token in enumerate(windows[:, position + 1])
        ]
        batch = StepBatch(
            np.ascontiguousarray(windows[:, position]),
            np.full(rows, position, np.int32),
            begins,
            np.arange(rows * blocks, dtype=np.int32),
            begins * blocks,
            samples,
        )
        result = decoder.launch(batch).result()
        assert list(result.token_ids) == windows[:, position + 1].tolist()
        surprise += [-each.logprob for each in result.logprobs if each is not None]
    return float(np.exp(np.mean(surprise)))


def measure(
    path: Path, weights: WeightFormat, kv: KvCachePrecision, threads: int, num_windows: int
) -> dict[str, float]:
    """All figures of one pair of formats, in a fresh process; no perplexity for 0 windows."""
    checkpoint = open_checkpoint(path)
    ids = Tokenizer.from_checkpoint(checkpoint).encode(TEXT)
    before = memory_mib()
    config = DecoderConfig(weights=weights, kv_cache_precision=kv)
    largest = StepSize(tokens=512, samples=max(STREAMS))
    decoder = load_decoder(checkpoint, config, num_threads=threads, largest_step=largest)
    figures = {"memory": memory_mib() - before - config.kv_cache_bytes / (1 << 20)}
    figures["kv_tokens"] = decoder.spec.num_blocks * decoder.spec.block_size
    for streams in STREAMS:
        rate(decoder, streams, steps=3)
        figures[f"rate_{streams}"] = rate(decoder, streams, steps=20)
    if num_windows:
        windows = np.array(ids[: num_windows * WINDOW], np.int64).reshape(num_windows, WINDOW)
        figures["perplexity"] = perplexity(decoder, windows)
    return figures


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="perplexity is measured in the first only")
    parser.add_argument("--windows", type=int, default=12, help="of 256 tokens")
    options = parser.parse_args()
    starter = ModelReference.parse(CHAT_MODEL.reference)
    path = fetch(starter, Path(DEFAULT_DIRECTORY).expanduser(), on_progress=lambda _progress: None)
    rounds: dict[tuple[WeightFormat, KvCachePrecision], list[dict[str, float]]] = {
        pair: [] for pair in pairs()
    }
    # One process at a time, and a new one for every task: memory is the task's own.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        for number in range(options.rounds):
            windows = 0 if number else options.windows
            for pair in rounds:
                figures = processes.submit(measure, path, *pair, options.threads, windows).result()
                rounds[pair].append(figures)
                print(*pair, {name: round(value, 2) for name, value in figures.items()}, flush=True)
    exact = rounds[WeightFormat.F32, KvCachePrecision.F32][0]["perplexity"]
    rows = []
    for (weights, kv), measured in rounds.items():
        medians = {name: statistics.median(each[name] for each in measured) for name in measured[-1]}
        found = measured[0]["perplexity"]
        rows.append(
            {
                "weights": weights.value,
                "KV": f"{kv.value} (auto)" if kv is default_kv(weights) else kv.value,
                "memory, MiB": f"{medians['memory']:.0f}",
                "KV tokens per GiB": f"{medians['kv_tokens']:,.0f}",
                **{f"tok/s at {streams}": f"{medians[f'rate_{streams}']:.1f}" for streams in STREAMS},
                "perplexity": f"{found:.3f}",
                "change": f"{found / exact - 1:+.2%}",
            }
        )
    digest = hashlib.sha256(TEXT.encode()).hexdigest()[:12]
    notes = (
        f"SmolLM2-135M-Instruct from its Q4_1 GGUF file, {options.threads} threads. Memory: what loading the "
        "model added to the process beside KV memory. tok/s: decode steps alone, at "
        f"{CONTEXT} tokens of context. Perplexity: {options.windows * WINDOW} tokens of `pydoc_data.topics` "
        f"of Python {platform.python_version()} (sha256 {digest}), in windows of {WINDOW}. "
        f"By default this processor computes in {default_precision()}; weights in f32, or KV in f16 or f32, "
        "have everything computed in f32."
    )
    write("quantization", rows, notes)


if __name__ == "__main__":
    main()
