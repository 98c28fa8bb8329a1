"""A cross-encoder's logits by precision and weight format.

    python -m bench.cross_encoder_precision [DIRECTORY]

Every query meets the same documents; both are sentences of this repository's own documents. Prints, against
f32, the correlation of the logits, their largest change in standard deviations of them all, and how many
pairs of a query's documents keep their order.

Without a directory it is a stand-in: the starter embedding model's layers and pooler with a classifier drawn
at random. Its logits lie closer together than those of a head that was trained to tell documents apart, so
the same rounding moves them further.
"""

import argparse
import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.encoder_precision import sentences
from carpool.encoders import CrossEncoderConfig
from carpool.encoders.pair_tokenizer import PairTokenizer
from carpool.models.checkpoint import Checkpoint, Tensor, TensorFormat, WeightSize
from carpool.models.open import open_checkpoint
from carpool.models.reference import ModelReference
from carpool.models.source import DEFAULT_DIRECTORY, fetch
from carpool.models.starter import EMBEDDING_MODEL
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.encoder import TokenPair
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.device import Precision, default_precision
from carpool.runtimes.openvino.encoder import OpenVinoClassifier

QUERIES, DOCUMENTS = 20, 40
BATCH = 16


class StandIn:
    """A BERT's checkpoint with a head of one label; implements `Checkpoint`."""

    architecture = "BertForSequenceClassification"

    def __init__(self, body: Checkpoint) -> None:
        self._body = body
        self.path = body.path
        self.config: Mapping[str, Any] = body.config
        self.size: WeightSize = body.size
        width = body.config["hidden_size"]
        row = np.random.default_rng(0).normal(0, body.config["initializer_range"], (1, width))
        self._head = {
            "classifier.weight": _f32("classifier.weight", row),
            "classifier.bias": _f32("classifier.bias", np.zeros(1)),
        }

    def __contains__(self, name: object) -> bool:
        """See `Checkpoint`."""
        return name in self._head or name in self._body

    def tensor(self, name: str) -> Tensor:
        """See `Checkpoint`."""
        return self._head[name] if name in self._head else self._body.tensor(name)


def _f32(name: str, values: NDArray[np.float64]) -> Tensor:
    rows = np.atleast_2d(values.astype(np.float32))
    return Tensor(name, TensorFormat.F32, values.shape, rows.view(np.uint8))


def logits(classifier: OpenVinoClassifier, pairs: list[TokenPair]) -> NDArray[np.float32]:
    """Of all pairs, [QUERIES, DOCUMENTS]."""
    parts = [classifier.classify(pairs[first : first + BATCH]) for first in range(0, len(pairs), BATCH)]
    return np.concatenate(parts).reshape(QUERIES, DOCUMENTS)


def same_order(found: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """The share of pairs of a query's documents that are ranked as in the reference."""
    first, second = np.triu_indices(DOCUMENTS, 1)
    ranked = [each[:, first] > each[:, second] for each in (found, reference)]
    return float((ranked[0] == ranked[1]).mean())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, help="of a cross-encoder")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    starter = ModelReference.parse(EMBEDDING_MODEL.reference)
    path = args.directory or fetch(starter, DEFAULT_DIRECTORY.expanduser(), lambda _: None)
    checkpoint = open_checkpoint(path)
    model = checkpoint if args.directory else StandIn(checkpoint)
    config = CrossEncoderConfig.read(checkpoint)
    classifiers = {
        f"{precision}, weights {weights}": OpenVinoClassifier(
            model,
            num_threads=args.threads,
            max_tokens=config.max_tokens,
            precision=precision,
            weights=weights,
        )
        for precision in _precisions()
        for weights in (WeightFormat.AUTO, WeightFormat.INT8)
    }
    first = next(iter(classifiers.values()))
    tokenizer = PairTokenizer(Tokenizer.from_checkpoint(checkpoint), first.spec.max_tokens)
    texts = sentences()
    documents = texts[:: len(texts) // DOCUMENTS][:DOCUMENTS]
    pairs = [
        pair
        for query in texts[1 :: len(texts) // QUERIES][:QUERIES]
        for pair in asyncio.run(tokenizer.tokenize(query, documents, truncate=True))
    ]
    reference = logits(first, pairs)
    print(f"{QUERIES} queries with {DOCUMENTS} documents each; {args.directory or 'the stand-in'}\n")
    print("| precision | correlation with f32 | largest change, in standard deviations | same order |")
    print("|---|---|---|---|")
    for name, classifier in classifiers.items():
        found = logits(classifier, pairs)
        correlation = np.corrcoef(found.ravel(), reference.ravel())[0, 1]
        change = np.abs(found - reference).max() / reference.std()
        print(f"| {name} | {correlation:.5f} | {change:.3f} | {same_order(found, reference):.1%} |")


def _precisions() -> list[Precision]:
    return ["f32"] if default_precision() == "f32" else ["f32", "bf16"]


if __name__ == "__main__":
    main()
