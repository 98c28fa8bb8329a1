"""llama.cpp's server in the process, by xllamacpp. argv: a GGUF file."""

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xllamacpp
from workload import NEW_TOKENS, STREAMS, THREADS, answer


class LlamaCppContestant:
    """A server with a slot for every stream, asked by as many threads."""

    def __init__(self, path: str) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = path
        params.n_parallel = max(STREAMS)
        params.n_ctx = 512 * max(STREAMS)
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
        params.cont_batching = True
        self._server = xllamacpp.Server(params)
        self._threads = ThreadPoolExecutor(max(STREAMS))

    def _ask(self, prompt: str, on_chunk: Any = None) -> str:
        request = {
            "prompt": prompt,
            "max_tokens": NEW_TOKENS,
            "ignore_eos": True,
            "temperature": 0,
            "stream": on_chunk is not None,
        }
        if on_chunk is not None:
            self._server.handle_completions(request, on_chunk)
            return ""
        result = self._server.handle_completions(request)
        assert result["usage"]["completion_tokens"] == NEW_TOKENS, result
        return result["choices"][0]["text"]

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """See `Contestant`."""
        return list(self._threads.map(self._ask, prompts))

    def serve(self, prompts: Sequence[str], due: Sequence[float]) -> list[list[float]]:
        """See `Contestant`."""
        began = time.perf_counter()

        def one(prompt: str, at: float) -> list[float]:
            time.sleep(max(0.0, at - (time.perf_counter() - began)))
            times: list[float] = []
            self._ask(prompt, lambda _: times.append(time.perf_counter() - began))
            return times[:NEW_TOKENS]

        with ThreadPoolExecutor(len(prompts)) as threads:
            return list(threads.map(one, prompts, due))


if __name__ == "__main__":
    answer(lambda: LlamaCppContestant(sys.argv[1]))
