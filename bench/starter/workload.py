"""What every contestant does: the same prompts and texts, counted the same way. Standard library only."""

import json
import sys
from collections.abc import Callable
from typing import Any

NEW_TOKENS = 64
STREAMS = (1, 8, 32)
BATCHES = (1, 8, 32)
TEXTS_PER_RUN = 512
THREADS = 2

_TOPICS = ("rivers", "bread", "bridges", "clocks", "whales", "glass", "maps", "bees")
_ASKS = (
    "Explain in a few sentences how {} came to be what they are today.",
    "Write a short letter to a friend about {}.",
    "What should a child know about {}?",
    "Tell me three surprising facts about {} and why they matter to people.",
)


def prompts(count: int) -> list[str]:
    """That many different user turns."""
    turns = [ask.format(topic) for ask in _ASKS for topic in _TOPICS]
    return turns[:count]


def chat(turn: str) -> str:
    """The turn in SmolLM2's own template."""
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{turn}<|im_end|>\n<|im_start|>assistant\n"
    )


def texts(count: int) -> list[str]:
    """Different texts of about ten words, eleven tokens or so."""
    return [f"note {i}: the {_TOPICS[i % 8]} were counted again before noon" for i in range(count)]


def answer(run: Callable[[str, int], float]) -> None:
    """The contestant's loop: read `{"task", "size"}` lines, write `{"rate"}` lines, until stdin ends.

    `run(task, size)` does the work once and returns tokens or texts per second of wall time.
    """
    out = sys.stdout
    sys.stdout = sys.stderr  # whatever the libraries print
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        print(json.dumps({"rate": run(request["task"], request["size"])}), file=out, flush=True)
