"""Continuous batching for language models: many requests share every forward pass.

    engine = GenerationEngine(runtime, GenerationConfig(), gate, on_step, name="smollm2", registry=registry)
    engine.start()                                     # on the running event loop; or `async with engine:`
    engine.submit(GenerationRequest(request_id=1, prompt_ids=ids, max_tokens=64))   # raises carpool.errors
    engine.cancel(1)                                   # or cancel(1, index=0), one of its n choices
    await engine.drain(); await engine.stop()          # the caller closes the runtime

`on_step(outputs: list[SequenceOutput])` is called on the loop once per step with what the step gave all
sequences. Every sequence (request id, index) has exactly one output with a `finish_reason`, its last: `stop`,
`length`, `cancelled`, or `error` with the `error` to show. `engine.healthy`, `engine.steps` and
`engine.has_work` are for heartbeats.

A request's way: `submit` checks it (`request`) and queues its n sequences (`sequence`) in the `QueueManager`;
`scheduler` admits them as the `block_manager` has memory, and picks each step's rows; `step` lays them out as
the runtime's arrays, with what their `grammar` allows next; `engine` runs the step and `delivery` hands the
outputs over.
"""

from .config import STATIC_DEFAULTS, GenerationConfig, Mode
from .delivery import OnStep
from .engine import GenerationEngine
from .grammar import Grammar
from .grammar_compiler import GrammarCompiler, GrammarKind, GrammarSource
from .request import GenerationRequest
from .sequence import FinishReason, SequenceOutput, Usage

__all__ = [
    "STATIC_DEFAULTS",
    "FinishReason",
    "GenerationConfig",
    "GenerationEngine",
    "GenerationRequest",
    "Grammar",
    "GrammarCompiler",
    "GrammarKind",
    "GrammarSource",
    "Mode",
    "OnStep",
    "SequenceOutput",
    "Usage",
]
