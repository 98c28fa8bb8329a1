"""Whatever goes wrong in a worker, as the error that crosses the wire."""

import logging

from carpool import inference_engine
from carpool.errors import CarpoolError, DeadlineExceeded, Draining, InvalidRequest, Overloaded
from carpool.worker.protocol import Error

_log = logging.getLogger(__name__)


def as_error(call_id: int, error: BaseException) -> Error:
    """The end of a call that failed. What nobody foresaw is logged, and told without its inner words."""
    known = _translate(error)
    return Error(call_id, known.code, known.message, known.param, known.retry_after_s)


def _translate(error: BaseException) -> CarpoolError:
    match error:
        case CarpoolError():
            return error
        case inference_engine.QueueFull(retry_after_s=retry_after_s):
            return Overloaded("The model has too much work waiting.", retry_after_s=max(retry_after_s, 1.0))
        case inference_engine.DeadlineExceeded():
            return DeadlineExceeded("The request's deadline passed before it was answered.")
        case inference_engine.EngineStopped():
            return Draining("The model is being unloaded or restarted.")
        case inference_engine.InvalidConfig():
            return InvalidRequest(str(error))
        case _:
            _log.error("a request failed", exc_info=error)
            return CarpoolError("The model failed while it worked on this request.")
