"""Whose turn at an encoder comes first: calls that somebody waits for, before those with much to compute."""

from carpool.errors import InvalidRequest
from carpool.gateway.exchange import Exchange
from carpool.inference_engine import Priority

BULK_ITEMS = 64
"""From so many inputs or documents on, a call gives way to others by itself."""

_LANES = {b"interactive": Priority.INTERACTIVE, b"bulk": Priority.BULK}


def lane_of(exchange: Exchange, items: int) -> Priority:
    """The lane that the header `x-carpool-priority` asks for, else by size. Raises `InvalidRequest`."""
    wish = exchange.header(b"x-carpool-priority")
    if wish is None:
        return Priority.BULK if items >= BULK_ITEMS else Priority.INTERACTIVE
    if wish not in _LANES:
        raise InvalidRequest(
            "The header x-carpool-priority must be interactive or bulk.", param="x-carpool-priority"
        )
    return _LANES[wish]
