"""The bare OpenVINO model: token ids sorted by length, full batches, on every thread. Nobody to answer to.

argv: the model's directory. Prints the tokens of a batch, the best of several numbers; then, for each line on
stdin, how many seconds the bulk's texts took.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.encoders.workload import THREADS, bulk_texts
from carpool.encoders import SentenceTransformersConfig
from carpool.models.open import open_checkpoint
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.openvino.encoder import OpenVinoEncoder

MAX_TOKENS = (1024, 2048, 4096)
"""Of a batch."""
TEXTS = 1250
"""Each number is tried on every eighth text of the sorted bulk."""


def batches(ids: list[list[int]], max_tokens: int) -> list[list[list[int]]]:
    """Ids in ascending length, as many in a batch as fit with padding."""
    found: list[list[list[int]]] = [[]]
    for each in ids:
        if (len(found[-1]) + 1) * len(each) > max_tokens:
            found.append([])
        found[-1].append(each)
    return found


def seconds(encoder: OpenVinoEncoder, work: list[list[list[int]]]) -> float:
    """How long the batches take."""
    with ThreadPoolExecutor(encoder.concurrency) as pool:
        began = time.perf_counter()
        list(pool.map(encoder.encode, work))
        return time.perf_counter() - began


def main() -> None:
    """Measure."""
    checkpoint = open_checkpoint(Path(sys.argv[1]))
    extra = SentenceTransformersConfig.read(checkpoint.path)
    encoder = OpenVinoEncoder(checkpoint, extra.pooling, num_threads=THREADS, max_tokens=extra.max_tokens)
    ids = Tokenizer.from_checkpoint(checkpoint).encode_batch(bulk_texts())
    ids.sort(key=len)
    few = ids[:: len(ids) // TEXTS]
    best = min(MAX_TOKENS, key=lambda max_tokens: seconds(encoder, batches(few, max_tokens)))
    print(best, flush=True)
    work = batches(ids, best)
    for _ in sys.stdin:
        print(seconds(encoder, work), flush=True)


if __name__ == "__main__":
    main()
