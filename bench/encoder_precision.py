"""The starter embedding model by precision and weight format: `python -m bench.encoder_precision`.

Prints, per variant, the CPU time of a forward pass divided by the threads (what it takes where nothing else
runs; on a shared machine steadier than wall time), and the cosines of its vectors with f32's on the sentences
of this repository's own documents.
"""

import argparse
import re
import statistics
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carpool.encoders import SentenceTransformersConfig
from carpool.models.open import open_checkpoint
from carpool.models.reference import ModelReference
from carpool.models.source import DEFAULT_DIRECTORY, fetch
from carpool.models.starter import EMBEDDING_MODEL
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.device import Precision, default_precision
from carpool.runtimes.openvino.encoder import OpenVinoEncoder

ROOT = Path(__file__).parent.parent
SHAPES = ((1, 10), (32, 10), (16, 100))
"""Texts of a batch, and the words of each."""


def sentences() -> list[str]:
    """Of the documents, in order, none twice."""
    text = "\n\n".join(path.read_text() for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]))
    found = (" ".join(each.split()) for each in re.split(r"(?<=[.:])\s+|\n\s*\n", text))
    return list(dict.fromkeys(each for each in found if len(each) > 20))


def batch_ms(encoder: OpenVinoEncoder, batch: list[list[int]], threads: int) -> float:
    """CPU milliseconds per thread of one forward pass, the mean of five."""
    begin = time.process_time()
    for _ in range(5):
        encoder.encode(batch)
    return (time.process_time() - begin) / 5 / threads * 1e3


def vectors(encoder: OpenVinoEncoder, ids: list[list[int]]) -> NDArray[np.float32]:
    """Unit vectors, [len(ids), dimensions]."""
    return np.concatenate([encoder.encode(ids[first : first + 16]) for first in range(0, len(ids), 16)])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    starter = ModelReference.parse(EMBEDDING_MODEL.reference)
    path = fetch(starter, Path(DEFAULT_DIRECTORY).expanduser(), on_progress=lambda _progress: None)
    checkpoint, extra = open_checkpoint(path), SentenceTransformersConfig.read(path)
    precisions: list[Precision] = ["f32"] if default_precision() == "f32" else ["f32", "bf16"]
    encoders = {
        f"{precision}, weights {weights}": OpenVinoEncoder(
            checkpoint,
            extra.pooling,
            num_threads=args.threads,
            max_tokens=extra.max_tokens,
            precision=precision,
            weights=weights,
        )
        for precision in precisions
        for weights in (WeightFormat.AUTO, WeightFormat.INT8)
    }
    tokenizer = Tokenizer.from_checkpoint(checkpoint)
    texts = sentences()
    words = " ".join(texts).split()
    times: dict[str, list[str]] = {name: [] for name in encoders}
    for count, length in SHAPES:
        batch = [ids[:256] for ids in tokenizer.encode_batch([" ".join(words[:length])] * count)]
        rounds: dict[str, list[float]] = {name: [] for name in encoders}
        for _ in range(args.rounds):
            for name, encoder in encoders.items():
                rounds[name].append(batch_ms(encoder, batch, args.threads))
        for name, measured in rounds.items():
            times[name].append(f"{statistics.median(measured):.1f}")
    ids = [each[:256] for each in tokenizer.encode_batch(texts)]
    reference = vectors(next(iter(encoders.values())), ids)
    shapes = " | ".join(f"{count} x {length} words, ms" for count, length in SHAPES)
    print(f"| precision | {shapes} | mean cosine to f32 | lowest of {len(texts)} |")
    print("|---" * (len(SHAPES) + 3) + "|")
    for name, encoder in encoders.items():
        cosines = (vectors(encoder, ids) * reference).sum(axis=1)
        print(f"| {name} | {' | '.join(times[name])} | {cosines.mean():.5f} | {cosines.min():.5f} |")


if __name__ == "__main__":
    main()
