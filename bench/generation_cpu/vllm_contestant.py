"""vLLM's CPU build. argv: the model's directory, the dtype."""

import asyncio
import itertools
import os
import sys
from collections.abc import AsyncIterator, Sequence

from workload import NEW_TOKENS, THREADS, answer, open_loop

os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB, as Carpool's default
os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{THREADS - 1}"
os.environ["VLLM_CPU_NUM_OF_RESERVED_CPU"] = "0"

from vllm import AsyncEngineArgs, SamplingParams
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM


class VllmContestant:
    """An engine in its own process, as `vllm serve` runs it."""

    def __init__(self, runner: asyncio.Runner, path: str, dtype: str) -> None:
        self._runner = runner
        self._ids = map(str, itertools.count())
        arguments = AsyncEngineArgs(
            model=path,
            dtype=dtype,
            max_model_len=2048,
            max_num_seqs=64,  # as Carpool's default
            enable_prefix_caching=True,  # as Carpool's default
            enable_log_requests=False,
            disable_log_stats=True,
        )

        async def start() -> AsyncLLM:
            return AsyncLLM.from_engine_args(arguments)

        self._engine = runner.run(start())

    async def _outputs(self, prompt: str, kind: RequestOutputKind) -> AsyncIterator[RequestOutput]:
        params = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True, output_kind=kind)
        tokens = 0
        async for output in self._engine.generate(prompt, params, next(self._ids)):
            tokens += len(output.outputs[0].token_ids)
            yield output
        assert tokens == NEW_TOKENS

    async def _text(self, prompt: str) -> str:
        [output] = [output async for output in self._outputs(prompt, RequestOutputKind.FINAL_ONLY)]
        return output.outputs[0].text

    async def _stream(self, prompt: str) -> AsyncIterator[int]:
        async for output in self._outputs(prompt, RequestOutputKind.DELTA):
            for token_id in output.outputs[0].token_ids:
                yield token_id

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """See `Contestant`."""

        async def run() -> list[str]:
            return await asyncio.gather(*map(self._text, prompts))

        return self._runner.run(run())

    def serve(self, prompts: Sequence[str], due: Sequence[float]) -> list[list[float]]:
        """See `Contestant`."""
        return self._runner.run(open_loop(self._stream, prompts, due))


if __name__ == "__main__":
    with asyncio.Runner() as loop:
        answer(lambda: VllmContestant(loop, sys.argv[1], sys.argv[2]))
