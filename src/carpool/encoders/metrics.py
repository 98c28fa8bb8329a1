"""What an embedder tells the telemetry registry."""

from carpool.inference_engine import BatchEvent
from carpool.telemetry import SIZE_BUCKETS, Registry


class EncoderMetrics:
    """The instruments of the encoders; an instance has the label `model`.

    `computed` is the runtime's count of tokens so far, padding included.
    """

    def __init__(self, registry: Registry, model: str, computed: int) -> None:
        self._model = model
        self._plain = computed
        """What the runtime's count would be without padding."""
        self._padded = 0
        self._batch_size = registry.histogram(
            "carpool_encoder_batch_size", "Inputs that were computed together.", SIZE_BUCKETS
        )
        self._seconds = registry.histogram("carpool_encoder_batch_seconds", "Duration of one batch.")
        self._batches = registry.counter(
            "carpool_encoder_batches_total", "Batches, by the reason why each left (`release`)."
        )
        self._failures = registry.counter("carpool_encoder_failures_total", "Batches that failed.")
        self._tokens = registry.counter("carpool_encoder_tokens_total", "Tokens computed, without padding.")
        self._padding = registry.counter("carpool_encoder_padding_tokens_total", "Padding tokens computed.")
        self._waiting = registry.gauge("carpool_encoder_inputs_waiting", "Inputs that wait for a batch.")

    def finished(self, event: BatchEvent, waiting: int, computed: int) -> None:
        """Record a batch; `waiting` is the length of the queue it left.

        `computed` is the runtime's count, which may be some batches ahead.
        """
        self._waiting.set(waiting, model=self._model)
        self._batches.add(model=self._model, release=event.release)
        if event.failed:
            self._failures.add(model=self._model)
            self._plain = computed - self._padded
            return
        tokens = round(event.cost * (1 - event.padding_share))
        self._plain += tokens
        padding = max(0, computed - self._plain - self._padded)
        self._padded += padding
        self._batch_size.observe(event.items, model=self._model)
        self._seconds.observe(event.run_ms / 1e3, model=self._model)
        self._tokens.add(tokens, model=self._model)
        self._padding.add(padding, model=self._model)
