"""What can go wrong between `submit` and a result. Each error says what its receiver can do next."""


class InferenceEngineError(Exception):
    """Base of every error of this package; a model's own exceptions pass through as they are."""


class InvalidConfig(InferenceEngineError, ValueError):
    """A setting or a task's attribute is out of range; nothing was queued."""


class QueueFull(InferenceEngineError):
    """The work already waiting would keep this task longer than the queue may hold it; nothing was queued.

    `retry_after_s` is when the backlog will have shrunk enough, in seconds from now, by the queue's own
    prediction.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"the queue is full, room is expected in {retry_after_s:.3f} s")
        self.retry_after_s = retry_after_s


class DeadlineExceeded(InferenceEngineError, TimeoutError):
    """The task's deadline passed, or could no longer be met, so its result would have come too late."""


class EngineStopped(InferenceEngineError):
    """The engine no longer accepts work, or stopped before it reached this task."""


class WrongResultCount(InferenceEngineError):
    """The model function did not return one result for each item; `got` is None if it had no length."""

    def __init__(self, expected: int, got: int | None) -> None:
        returned = "something without a length" if got is None else f"{got} results"
        super().__init__(f"the model function got {expected} items and returned {returned}")
        self.expected = expected
        self.got = got


class ModelThreadDied(InferenceEngineError):
    """The model function ended its thread (`SystemExit` and the like); a new thread serves the next batch."""


class ItemFailed(InferenceEngineError):
    """Stands in for an exception that a future cannot carry (`StopIteration`); it is the `__cause__`."""
