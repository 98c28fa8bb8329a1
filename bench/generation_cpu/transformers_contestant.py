"""Hugging Face transformers. argv: the model's directory, the dtype, `static` or `continuous`."""

import sys
import time
from collections.abc import Sequence

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.generation import ContinuousBatchingConfig
from transformers.generation.streamers import BaseStreamer
from workload import NEW_TOKENS, THREADS, answer


class _Stopwatch(BaseStreamer):
    """The times of a static batch's steps; `generate` hands the prompts over first."""

    def __init__(self, began: float) -> None:
        self._began = began
        self.times: list[float] = []

    def put(self, _: torch.Tensor) -> None:
        self.times.append(time.perf_counter() - self._began)

    def end(self) -> None:
        del self.times[0]


class _Model:
    def __init__(self, path: str, dtype: str) -> None:
        torch.set_num_threads(THREADS)
        self.tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()


class StaticContestant(_Model):
    """`generate`: what waits becomes a padded batch, which runs to completion."""

    def _run(self, prompts: Sequence[str], streamer: BaseStreamer | None = None) -> list[str]:
        inputs = self.tokenizer(list(prompts), padding=True, return_tensors="pt")
        with torch.inference_mode():
            output = self.model.generate(
                **inputs,
                max_new_tokens=NEW_TOKENS,
                min_new_tokens=NEW_TOKENS,
                do_sample=False,
                streamer=streamer,
            )
        return self.tokenizer.batch_decode(output[:, -NEW_TOKENS:], skip_special_tokens=True)

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """See `Contestant`."""
        return self._run(prompts)

    def serve(self, prompts: Sequence[str], due: Sequence[float]) -> list[list[float]]:
        """See `Contestant`."""
        began = time.perf_counter()
        times: list[list[float]] = []
        while len(times) < len(prompts):
            time.sleep(max(0.0, due[len(times)] - (time.perf_counter() - began)))
            now = time.perf_counter() - began
            batch = [prompt for prompt, at in zip(prompts, due, strict=True) if due[len(times)] <= at <= now]
            stopwatch = _Stopwatch(began)
            self._run(batch, stopwatch)
            times += [stopwatch.times] * len(batch)
        return times


class ContinuousContestant(_Model):
    """The manager behind `generate_batch`, kept from call to call."""

    def __init__(self, path: str, dtype: str) -> None:
        super().__init__(path, dtype)
        self._manager = self.model.init_continuous_batching(
            GenerationConfig(max_new_tokens=NEW_TOKENS, eos_token_id=-1, do_sample=False),
            # Without bounds it takes nine tenths of the memory and tries steps of many thousand tokens.
            ContinuousBatchingConfig(num_blocks=128, max_batch_tokens=512, max_requests_per_batch=64),
        )
        self._manager.start()

    def _add(self, prompt: str) -> str:
        ids = self.tokenizer(prompt)["input_ids"]
        return self._manager.add_request(ids, record_timestamps=True)

    def _collect(self, ids: Sequence[str]) -> list:
        found: dict = {}
        while len(found) < len(ids):
            result = self._manager.get_result()
            if result is None or result.error is not None:
                raise RuntimeError("the manager has ended" if result is None else result.error)
            found[result.request_id] = result
        results = [found[id_] for id_ in ids]
        assert all(len(result.generated_tokens) == NEW_TOKENS for result in results)
        return results

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """See `Contestant`."""
        results = self._collect([self._add(prompt) for prompt in prompts])
        return self.tokenizer.batch_decode(
            [result.generated_tokens for result in results], skip_special_tokens=True
        )

    def serve(self, prompts: Sequence[str], due: Sequence[float]) -> list[list[float]]:
        """See `Contestant`."""
        began = time.perf_counter()
        ids = []
        for prompt, at in zip(prompts, due, strict=True):
            time.sleep(max(0.0, at - (time.perf_counter() - began)))
            ids.append(self._add(prompt))
        return [[at - began for at in result.timestamps] for result in self._collect(ids)]


if __name__ == "__main__":
    kind = {"static": StaticContestant, "continuous": ContinuousContestant}[sys.argv[3]]
    answer(lambda: kind(sys.argv[1], sys.argv[2]))
