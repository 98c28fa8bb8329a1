"""GPTCache 0.1.44 as its README sets it up for similar questions, with the vectors that all contestants get.

Runs in a venv of its own. argv: the vectors of the stream, float32 [n, d] in a .npy file, and the similarity
threshold (its default is 0.8). Prompts are the numbers of the questions. Prints the hits as JSON.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from gptcache import Config, cache
from gptcache.adapter.api import get, put
from gptcache.manager import CacheBase, VectorBase, get_data_manager
from gptcache.processor.pre import get_prompt
from gptcache.similarity_evaluation.distance import SearchDistanceEvaluation


def main() -> None:
    """Replay the stream."""
    vectors = np.load(sys.argv[1])

    def embed(prompt: str, **_: Any) -> Any:
        return vectors[int(prompt)]

    with tempfile.TemporaryDirectory() as directory:
        cache.init(
            pre_embedding_func=get_prompt,
            embedding_func=embed,
            data_manager=get_data_manager(
                CacheBase("sqlite", sql_url=f"sqlite:///{directory}/cache.db"),
                VectorBase("faiss", dimension=vectors.shape[1], index_path=f"{directory}/faiss.index"),
                max_size=len(vectors),
            ),
            similarity_evaluation=SearchDistanceEvaluation(),
            config=Config(similarity_threshold=float(sys.argv[2])),
        )
        hits = []
        for index in range(len(vectors)):
            found = get(str(index))
            if found is None:
                put(str(index), str(index))
            else:
                hits.append((index, int(found)))
    print(json.dumps(hits))


if __name__ == "__main__":
    assert Path(sys.argv[1]).exists()
    main()
