"""Progress bars of loading models: live on a terminal, one line a phase elsewhere."""

import sys
from collections.abc import Collection

from carpool.errors import StartError
from carpool.worker.client import WorkerClient
from carpool.worker.states import ModelState

_BAR = 24


async def show_progress(client: WorkerClient) -> None:
    """Show how the models come up; returns when all are that should. Raises `StartError` if one fails."""
    terminal = sys.stderr.isatty()
    shown: dict[str, str] = {}
    version = -1
    while True:
        states = list(client.models.values())
        if terminal:
            _redraw(states, first=version < 0)
        else:
            for state in states:
                if shown.get(state.name) != state.phase:
                    shown[state.name] = state.phase
                    print(f"{state.name}: {state.phase}", file=sys.stderr, flush=True)
        for state in states:
            if state.phase == "failed":
                raise StartError(f"{state.name} ({state.reference}): {state.error}")
        if all(state.phase in ("ready", "unloaded") for state in states):
            return
        version = await client.changed(client.version)


def _redraw(states: Collection[ModelState], *, first: bool) -> None:
    """All models' lines again, over the old ones."""
    up = "" if first else f"\x1b[{len(states)}A"
    lines = "".join(f"\x1b[2K{line(state)}\n" for state in states)
    print(up + lines, end="", file=sys.stderr, flush=True)


def line(state: ModelState) -> str:
    """One model's name, bar, percent and phase, with megabytes while it is fetched."""
    filled = round(_BAR * state.percent / 100)
    bar = "█" * filled + "░" * (_BAR - filled)
    size = ""
    if state.phase == "fetching" and state.total_bytes:
        size = f"  {state.done_bytes / 1e6:.0f} of {state.total_bytes / 1e6:.0f} MB"
    return f"{state.name:24} {bar} {state.percent:3.0f} %  {state.phase}{size}"
