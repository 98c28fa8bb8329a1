"""OpenVINO GenAI's ContinuousBatchingPipeline.

argv: a GGUF file or a directory with an IR, tokens of a step, further properties of the CPU plugin as JSON.
"""

import json
import sys
import time
from collections.abc import Sequence

import openvino_genai as genai
from workload import NEW_TOKENS, THREADS, answer


class GenAiContestant:
    """A pipeline."""

    def __init__(self, path: str, step_tokens: int, properties: dict[str, object]) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = 1  # GiB, as Carpool's default
        scheduler.max_num_seqs = 64  # as Carpool's default
        scheduler.max_num_batched_tokens = step_tokens
        scheduler.enable_prefix_caching = True  # as Carpool's default
        self._pipeline = genai.ContinuousBatchingPipeline(
            path, scheduler, "CPU", {"INFERENCE_NUM_THREADS": THREADS, **properties}
        )
        self._config = genai.GenerationConfig()
        self._config.max_new_tokens = NEW_TOKENS
        self._config.ignore_eos = True
        self._config.do_sample = False
        self._config.apply_chat_template = False

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """See `Contestant`."""
        results = self._pipeline.generate(list(prompts), [self._config] * len(prompts))
        return [result.m_generation_ids[0] for result in results]

    def serve(self, prompts: Sequence[str], due: Sequence[float]) -> list[list[float]]:
        """See `Contestant`."""
        began = time.perf_counter()
        times: list[list[float]] = []
        handles: list[genai.GenerationHandle] = []
        tokenizer = self._pipeline.get_tokenizer()
        while len(times) < len(prompts) or self._pipeline.has_non_finished_requests():
            while len(times) < len(prompts) and due[len(times)] <= time.perf_counter() - began:
                handles.append(self._pipeline.add_request(len(handles), prompts[len(times)], self._config))
                times.append([])
            if not self._pipeline.has_non_finished_requests():
                time.sleep(max(0.0, due[len(times)] - (time.perf_counter() - began)))
                continue
            self._pipeline.step()
            now = time.perf_counter() - began
            for handle, mine in zip(handles, times, strict=True):
                if handle.can_read():
                    for output in handle.read().values():
                        tokenizer.decode(output.generated_ids)
                        mine += [now] * len(output.generated_ids)
        return times


if __name__ == "__main__":
    answer(lambda: GenAiContestant(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])))
