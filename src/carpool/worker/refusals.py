"""Why a model cannot serve a request, as the client says it."""

from carpool.errors import CarpoolError, InvalidRequest, ModelFailed, ModelLoading, ModelUnloaded, Overloaded
from carpool.worker.states import ModelState

_DOES = {"generate": "generates text", "embed": "makes embeddings", "rerank": "scores documents"}


def wrong_task(state: ModelState) -> CarpoolError:
    """It is a model for other requests."""
    return InvalidRequest(f"The model `{state.name}` only {_DOES[str(state.task)]}.", param="model")


def not_up(state: ModelState, *, load_on_demand: bool, start_left_s: float) -> CarpoolError:
    """It is not loaded; `start_left_s` tells when it should be if it is on its way."""
    last_time = f" The last time it could not be loaded: {state.error}." if state.error else ""
    reason = f": {state.error}" if state.error else ""
    match state.phase:
        case "failed":
            return ModelFailed(f"The model `{state.name}` could not be loaded: {state.error}")
        case "unloaded" if load_on_demand:
            return Overloaded(f"The model `{state.name}` cannot be loaded now{reason}.", retry_after_s=5.0)
        case "unloaded" | "unloading":
            return ModelUnloaded(
                f"The model `{state.name}` is not loaded.{last_time} `carpool models load {state.name}` "
                f"or POST /admin/models/{state.name}/load loads it; with the setting "
                "worker.load_on_demand requests do."
            )
    return ModelLoading(
        f"The model `{state.name}` is loading ({state.phase}, {state.percent:.0f} %).{last_time}",
        retry_after_s=start_left_s,
    )
