"""Plain OpenVINO: the same encoder graph, compiled and called in a bare loop. The model directory is argv[1].

This is the most the hardware gives without a queue, a process border or anybody to answer to: batches are
full and of one length, tokenised in the same thread.
"""

import sys
import time
from pathlib import Path

from bench.starter.workload import TEXTS_PER_RUN, THREADS, answer, texts
from carpool.encoders import SentenceTransformersConfig
from carpool.models.open import open_checkpoint
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.openvino.encoder import OpenVinoEncoder


def main() -> None:
    """Serve the harness."""
    checkpoint = open_checkpoint(Path(sys.argv[1]))
    extra = SentenceTransformersConfig.read(checkpoint.path)
    tokenizer = Tokenizer.from_checkpoint(checkpoint)
    encoder = OpenVinoEncoder(
        checkpoint, extra.pooling, num_threads=THREADS, max_tokens=extra.max_tokens, precision=None
    )

    def run(task: str, size: int) -> float:
        assert task == "embed"
        began = time.perf_counter()
        inputs = texts(TEXTS_PER_RUN)
        for first in range(0, len(inputs), size):
            encoder.encode(tokenizer.encode_batch(inputs[first : first + size]))
        return len(inputs) / (time.perf_counter() - began)

    answer(run)


if __name__ == "__main__":
    main()
