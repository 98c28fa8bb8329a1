"""Weight formats of the starter model side by side on this machine: `python -m bench.decoder_precision`.

Prints, per format and number of streams, the CPU time of a decode step divided by the threads (what the step
takes where nothing else runs; on a shared machine steadier than wall time), and how far the format's
next-token distributions are from f32's on a fixed text.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carpool.models.open import open_checkpoint
from carpool.models.reference import ModelReference
from carpool.models.source import DEFAULT_DIRECTORY, fetch
from carpool.models.starter import CHAT_MODEL
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.decoder import DecoderRuntime, Sample, SamplingParams, StepBatch, StepSize
from carpool.runtimes.openvino.config import DecoderConfig, KvCachePrecision, WeightFormat
from carpool.runtimes.openvino.decoder import load_decoder

FORMATS = (WeightFormat.F32, WeightFormat.BF16, WeightFormat.MIXED, WeightFormat.INT8, WeightFormat.INT4)
STREAMS = (1, 8, 32)
CONTEXT = 128
TEXT = """Paris is the capital of France and its largest city. It lies on the river Seine, in the north of
the country. For centuries it was a centre of trade, fashion, science and the arts. In 1889 a tower of iron
was built there for a world fair; it was meant to stand for twenty years, and it still does."""


def step(token_ids: NDArray[np.int64], past_len: int, params: SamplingParams) -> StepBatch:
    """One new token for each of as many rows as there are token ids, each with the blocks it needs."""
    rows, blocks = len(token_ids), past_len // 32 + 1
    begins = np.arange(rows + 1, dtype=np.int32)
    samples = [Sample(row, params, (), ()) for row in range(rows)]
    past_lens = np.full(rows, past_len, np.int32)
    return StepBatch(
        token_ids, past_lens, begins, np.arange(rows * blocks, dtype=np.int32), begins * blocks, samples
    )


def step_ms(decoder: DecoderRuntime, streams: int, threads: int) -> float:
    """CPU milliseconds per thread of one decode step, the mean of three."""
    batch = step(np.arange(100, 100 + streams), CONTEXT, SamplingParams(temperature=0))
    begin = time.process_time()
    for _ in range(3):
        decoder.launch(batch).result()
    return (time.process_time() - begin) / 3 / threads * 1e3


def logprobs(decoder: DecoderRuntime, ids: list[int]) -> NDArray[np.float64]:
    """[len(ids), vocab_size] next-token logprobs, one step per token."""
    vocab_size = decoder.spec.vocab_size
    found = np.empty((len(ids), vocab_size))
    params = SamplingParams(temperature=0, top_logprobs=vocab_size)
    for position, token_id in enumerate(ids):
        [entry] = decoder.launch(step(np.array([token_id]), position, params)).result().logprobs
        assert entry is not None
        for other, logprob in entry.top:
            found[position, other] = logprob
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    starter = ModelReference.parse(CHAT_MODEL.reference)
    path = fetch(starter, Path(DEFAULT_DIRECTORY).expanduser(), on_progress=lambda _progress: None)
    checkpoint = open_checkpoint(path)
    decoders = {
        weights: load_decoder(
            checkpoint,
            DecoderConfig(weights=weights, kv_cache_precision=KvCachePrecision.F32, kv_cache_bytes=512 << 20),
            num_threads=args.threads,
            largest_step=StepSize(tokens=512, samples=max(STREAMS)),
        )
        for weights in FORMATS
    }
    print(
        "| weights | "
        + " | ".join(f"step at {n} streams, ms" for n in STREAMS)
        + " | KL to f32 | same top-1 |"
    )
    print("|---" * (len(STREAMS) + 3) + "|")
    times: dict[WeightFormat, list[str]] = {weights: [] for weights in FORMATS}
    for streams in STREAMS:
        rounds: dict[WeightFormat, list[float]] = {weights: [] for weights in FORMATS}
        for _ in range(args.rounds):
            for weights, decoder in decoders.items():
                rounds[weights].append(step_ms(decoder, streams, args.threads))
        for weights, measured in rounds.items():
            times[weights].append(f"{statistics.median(measured):.1f}")
    ids = Tokenizer.from_checkpoint(checkpoint).encode(TEXT)
    reference = logprobs(decoders[WeightFormat.F32], ids)
    for weights, decoder in decoders.items():
        found = logprobs(decoder, ids)
        divergence = (np.exp(reference) * (reference - found)).sum(axis=1).mean()
        agreement = (reference.argmax(axis=1) == found.argmax(axis=1)).mean()
        print(f"| {weights} | {' | '.join(times[weights])} | {divergence:.6f} | {agreement:.3f} |")


if __name__ == "__main__":
    main()
