"""OpenVINO without a server: token ids sorted by length, full batches, on every thread. Nobody to answer to.

Two ways: `rows`, the model with a text a row, padded to the longest; and `runtime`, as Carpool runs it, with
several texts in a row and whole blocks. Neither tokenises or shares the cores with a load generator.
argv: the model's directory. For each way it prints the tokens of a batch, the best of several numbers; then,
for each line on stdin with a way's name, how many seconds the bulk's texts took.
"""

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from bench.encoders.workload import REFERENCES, THREADS, bulk_texts
from carpool.encoders import SentenceTransformersConfig
from carpool.models.checkpoint import Checkpoint
from carpool.models.open import open_checkpoint
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.openvino import huge_pages
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.device import compile_model, default_precision
from carpool.runtimes.openvino.encoder import OpenVinoEncoder
from carpool.runtimes.openvino.encoder_graph import build_embedding_graph
from carpool.runtimes.pooling import Pooling

MAX_TOKENS = (1024, 2048, 4096)
"""Of a batch."""
TEXTS = 1250
"""Each number is tried on every eighth text of the sorted bulk."""

Encode = Callable[[list[list[int]]], Any]


class Rows:
    """The model with a text a row, one request for each thread."""

    def __init__(self, checkpoint: Checkpoint, pooling: Pooling) -> None:
        model = build_embedding_graph(checkpoint, pooling, WeightFormat.AUTO, default_precision())
        self._names = [node.get_any_name() for node in model.inputs]
        compiled = compile_model(model, num_threads=THREADS, properties={"NUM_STREAMS": THREADS})
        self._free = [compiled.create_infer_request() for _ in range(THREADS)]
        self.encode([[0, 0]])
        huge_pages.collapse()

    def encode(self, batch: list[list[int]]) -> NDArray[np.float32]:
        """One vector for each text."""
        lengths = np.array(list(map(len, batch)), np.int32)
        shape = len(batch), int(lengths.max())
        is_text = np.arange(shape[1]) < lengths[:, None]
        ids, text_ids = np.zeros((2, *shape), np.int32)
        ids[is_text] = np.concatenate(batch)
        text_ids[is_text] = np.repeat(np.arange(1, len(batch) + 1), lengths)
        arrays = {
            "input_ids": ids,
            "position_ids": np.arange(shape[1], dtype=np.int32) * is_text,
            "text_ids": text_ids,
            "seeing_ids": text_ids[:, :1].copy(),
            "token_type_ids": np.zeros(shape, np.int32),
            "firsts": np.arange(len(batch), dtype=np.int32) * np.int32(shape[1]),
            "lengths": lengths,
        }
        request = self._free.pop()
        for place, name in enumerate(self._names):
            request.set_input_tensor(place, ov.Tensor(arrays[name]))
        request.start_async()
        request.wait()
        vectors: NDArray[np.float32] = request.get_output_tensor(0).data.copy()
        self._free.append(request)
        return vectors


def batches(ids: list[list[int]], max_tokens: int) -> list[list[list[int]]]:
    """Ids in ascending length, as many in a batch as fit with padding."""
    found: list[list[list[int]]] = [[]]
    for each in ids:
        if (len(found[-1]) + 1) * len(each) > max_tokens:
            found.append([])
        found[-1].append(each)
    return found


def seconds(encode: Encode, work: list[list[list[int]]]) -> float:
    """How long the batches take."""
    with ThreadPoolExecutor(THREADS) as pool:
        began = time.perf_counter()
        list(pool.map(encode, work))
        return time.perf_counter() - began


def main() -> None:
    """Measure."""
    checkpoint = open_checkpoint(Path(sys.argv[1]))
    extra = SentenceTransformersConfig.read(checkpoint.path)
    runtime = OpenVinoEncoder(checkpoint, extra.pooling, num_threads=THREADS, max_tokens=extra.max_tokens)
    ids = Tokenizer.from_checkpoint(checkpoint).encode_batch(bulk_texts())
    ids.sort(key=len)
    rows = Rows(checkpoint, extra.pooling)
    some = ids[::100]
    cosines = (rows.encode(some) * runtime.encode(some)).sum(axis=1)  # of unit vectors
    if cosines.min() < 0.9999:
        raise SystemExit(f"the ways differ in their vectors: a cosine is {cosines.min():.5f}")
    few = ids[:: len(ids) // TEXTS]
    ways: dict[str, Encode] = {"rows": rows.encode, "runtime": runtime.encode}
    work = {}
    for name in REFERENCES:
        best = min(MAX_TOKENS, key=lambda tokens: seconds(ways[name], batches(few, tokens)))
        work[name] = batches(ids, best)
        print(best, flush=True)
    for line in sys.stdin:
        name = line.strip()
        print(seconds(ways[name], work[name]), flush=True)


if __name__ == "__main__":
    main()
