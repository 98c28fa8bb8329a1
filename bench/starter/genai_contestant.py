"""OpenVINO GenAI: its ContinuousBatchingPipeline on the same GGUF file. The file is argv[1]."""

import sys
import time

import openvino_genai as genai
from workload import NEW_TOKENS, THREADS, answer, chat, prompts


def main() -> None:
    """Serve the harness."""
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = 1  # GiB
    scheduler.max_num_seqs = 256
    scheduler.enable_prefix_caching = True  # as Carpool does
    pipeline = genai.ContinuousBatchingPipeline(
        sys.argv[1], scheduler, "CPU", {"INFERENCE_NUM_THREADS": THREADS}
    )
    config = genai.GenerationConfig()
    config.max_new_tokens = NEW_TOKENS
    config.ignore_eos = True
    config.do_sample = False
    config.apply_chat_template = False

    def run(task: str, size: int) -> float:
        assert task == "generate"
        began = time.perf_counter()
        turns = [chat(turn) for turn in prompts(size)]
        results = pipeline.generate(turns, [config] * size)
        elapsed = time.perf_counter() - began
        assert all(result.m_generation_ids[0] for result in results)
        return size * NEW_TOKENS / elapsed

    answer(run)


if __name__ == "__main__":
    main()
