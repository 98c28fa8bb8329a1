"""What a generation engine tells the telemetry registry."""

from carpool.telemetry import SIZE_BUCKETS, Instrument, Registry, Series

from .scheduler import Scheduler
from .step import Step


class EngineMetrics:
    """The instruments of one engine, each with the label `model`."""

    def __init__(self, registry: Registry, model: str, scheduler: Scheduler) -> None:
        def own(instrument: Instrument) -> Series:
            return instrument.labelled({"model": model})

        counter, gauge, histogram = registry.counter, registry.gauge, registry.histogram
        self._model = model
        self._scheduler = scheduler
        self._batch_size = histogram(
            "carpool_step_batch_size", "Sequences that decoded together in one step.", SIZE_BUCKETS
        )
        self._seconds = histogram("carpool_step_seconds", "Duration of one step.")
        self._failures = own(counter("carpool_step_failures_total", "Steps that failed."))
        self._prompt = own(counter("carpool_prompt_tokens_total", "Prompt tokens of admitted sequences."))
        self._cached = own(
            counter("carpool_prefix_cache_hit_tokens_total", "Prompt tokens found in the prefix cache.")
        )
        self._output = own(counter("carpool_generation_tokens_total", "Tokens generated."))
        self._preemptions = own(
            counter("carpool_preemptions_total", "Sequences returned to the queue for want of KV memory.")
        )
        self._running = own(gauge("carpool_sequences_running", "Sequences that take part in steps."))
        self._waiting = own(gauge("carpool_sequences_waiting", "Sequences that wait for a place."))
        self._used = own(gauge("carpool_kv_blocks_used", "Blocks of KV memory owned by sequences."))
        own(gauge("carpool_kv_blocks", "Blocks of KV memory.")).value = scheduler.blocks.num_blocks

    def finished(self, step: Step, seconds: float) -> None:
        """Record a step that succeeded."""
        if step.num_decodes:
            self._batch_size.observe(step.num_decodes, model=self._model)
        self._seconds.observe(seconds, model=self._model)

    def failed(self) -> None:
        """Record a step that failed."""
        self._failures.value += 1

    def update(self) -> None:
        """Bring the scheduler's totals and gauges up to date."""
        scheduler = self._scheduler
        self._prompt.value = scheduler.num_prompt_tokens
        self._cached.value = scheduler.num_cached_tokens
        self._output.value = scheduler.num_output_tokens
        self._preemptions.value = scheduler.num_preemptions
        self._running.value = len(scheduler.running)
        self._waiting.value = len(scheduler.queue)
        self._used.value = scheduler.blocks.num_used
