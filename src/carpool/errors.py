"""Every error a client of Carpool can see, each with its HTTP status, OpenAI type and code.

An error raised in a worker process crosses the wire as `(code, message, param, retry_after_s)` and is
rebuilt on the other side by `from_code`, so a class is all it takes to add one.
"""

from typing import ClassVar


class CarpoolError(Exception):
    """Base of all errors with a defined answer.

    `message` is shown to the client. `param` names the request field at fault. `retry_after_s` says when it
    is worth coming back, in seconds; None where nobody knows.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False
    """Whether the same request may succeed later; sent as `x-should-retry`."""

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidRequest(CarpoolError):
    """The body is malformed, or a field has a value that is not allowed."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class ContextLengthExceeded(InvalidRequest):
    """The prompt, or prompt and max_tokens together, do not fit the model's context."""

    code = "context_length_exceeded"


class InvalidKey(CarpoolError):
    """No key was sent, or one that is not known."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(CarpoolError):
    """The key is known but its scope does not cover this route, or the Host is not on the allowlist."""

    status = 403
    type = "permission_error"
    code = "forbidden"


class NotFound(CarpoolError):
    """No such route."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    """No model of that name is served here."""

    code = "model_not_found"


class MethodNotAllowed(CarpoolError):
    """The route exists, the HTTP method does not."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class PayloadTooLarge(CarpoolError):
    """The body is larger than the configured bound."""

    status = 413
    type = "invalid_request_error"
    code = "payload_too_large"


class RateLimited(CarpoolError):
    """A key's own limit is reached."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    retryable = True


class Unavailable(CarpoolError):
    """The service cannot take this request now; the same request may be sent again."""

    status = 503
    type = "service_unavailable_error"
    code = "unavailable"
    retryable = True


class Overloaded(Unavailable):
    """Every place is taken."""

    code = "overloaded"


class ModelLoading(Unavailable):
    """The model is known and not up yet."""

    code = "model_loading"


class ModelUnloaded(Unavailable):
    """The model is known and not loaded; it stays so until somebody loads it."""

    code = "model_unloaded"
    retryable = False


class ModelFailed(Unavailable):
    """The model could not be loaded; the message says why. Trying again does not help."""

    code = "model_failed"
    retryable = False


class WorkerDied(Unavailable):
    """The process that ran the model ended under the request; it is being restarted."""

    code = "worker_died"


class Draining(Unavailable):
    """The server is shutting down and takes no new requests."""

    code = "draining"


class DeadlineExceeded(CarpoolError):
    """The request's deadline passed before it was answered."""

    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"
    retryable = True


class StartError(CarpoolError):
    """The process cannot start as asked: a bad setting, a missing model, a port in use. One line, exit 2."""

    code = "start_error"


def _subclasses(cls: type[CarpoolError]) -> list[type[CarpoolError]]:
    found = [cls]
    for child in cls.__subclasses__():
        found += _subclasses(child)
    return found


def from_code(
    code: str, message: str, *, param: str | None = None, retry_after_s: float | None = None
) -> CarpoolError:
    """Rebuild an error that crossed a process boundary. An unknown code becomes a plain `CarpoolError`."""
    by_code = {cls.code: cls for cls in _subclasses(CarpoolError)}
    return by_code.get(code, CarpoolError)(message, param=param, retry_after_s=retry_after_s)
