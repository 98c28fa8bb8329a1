"""What the gateway and a worker process say to each other: one tagged msgspec struct per frame (`framing`).

Every message with an `id` but `Cancel` is a call, and every call has exactly one end: `Weighed`, `Loaded`,
`Done`, `Counted`, `Result`, `Scores`, `Error`, or `Step` entries that together hold one `finish_reason` for
each of the `n` choices.

    gateway → worker   Weigh  Load  Unload  Set  Tune  Generate  Count  Embed  Score  Cancel
    worker → gateway   Hello  Progress  Weighed  Loaded  Done  Accepted  Step  Counted  Result  Scores
                       Error  Stats
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from carpool.telemetry import Metric

CANCELLED = "cancelled"
"""The finish reason, or the error code, of what ended because of a `Cancel`."""


class Knobs(msgspec.Struct, frozen=True, omit_defaults=True):
    """What can be changed of a model while it runs. None: as it is."""

    max_batch_size: int | None = None
    """Items per batch of an encoder, sequences that run together in a language model."""
    batch_wait_ms: float | None = None
    """How long a batch waits for company, in ms; 0: not at all."""
    weight: float | None = None
    """Its share of the device under the gate's policy `wfq`, relative to the other models'."""

    def over(self, other: "Knobs") -> "Knobs":
        """The other ones with what is set here in their place."""
        own = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(other, **own)


class Source(msgspec.Struct, frozen=True):
    """What a `Weigh` and a `Load` say of a model."""

    id: int
    model: str
    """The name requests use."""
    reference: str
    """Where the files come from, in the form of `models.reference`."""
    options: dict[str, Any] = {}
    """Per-model settings, checked by the worker against its own config types."""


class Weigh(Source, tag="weigh", frozen=True):
    """Fetch a model and tell how much memory it will take. Answered by `Progress` and then `Weighed`."""


class Load(Source, tag="load", frozen=True):
    """Fetch, build and compile a model. Answered by `Progress` and then `Loaded` or `Error` with `id`."""

    knobs: Knobs = Knobs()
    """Over what the options say."""


class Unload(msgspec.Struct, tag="unload", frozen=True):
    """Finish what runs on a model, then free it. Answered by `Done`."""

    id: int
    model: str


class Grammar(msgspec.Struct, array_like=True, frozen=True):
    """What a generated text must match."""

    kind: Literal["json_schema", "regex", "lark", "tool_calls"]
    text: str
    field: str
    """Where the client wrote it; errors name it."""


class Prompt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a language model reads. Exactly one of `messages`, `prompt` and `prompt_ids` is given."""

    id: int
    model: str
    messages: list[dict[str, Any]] | None = None
    """A chat, rendered with the model's own template."""
    tools: list[dict[str, Any]] | None = None
    """Told to the model with the messages, in OpenAI's shape."""
    prompt: str | None = None
    prompt_ids: list[int] | None = None


class Count(Prompt, tag="count", frozen=True):
    """Count the tokens of a prompt and generate nothing. Answered by `Counted`."""


class Generate(Prompt, tag="generate", frozen=True):
    """Generate text."""

    max_tokens: int | None = None
    """None: as many as fit the context."""
    min_tokens: int = 0
    ignore_eos: bool = False
    stop_token_ids: list[int] = []
    n: int = 1
    temperature: float | None = None
    """None, here and in the next four: as the model's authors recommend."""
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    grammar: Grammar | None = None
    seed: int | None = None
    top_logprobs: int | None = None
    """None: no logprobs."""
    priority: int = 1
    """An `inference_engine.Priority`."""
    tenant: str = "local"
    timeout_s: float | None = None


class Embed(msgspec.Struct, tag="embed", frozen=True, omit_defaults=True):
    """Embed texts or token-id sequences."""

    id: int
    model: str
    inputs: Sequence[str | list[int]]
    truncate: bool = False
    priority: int = 1
    tenant: str = "local"
    timeout_s: float | None = None


class Score(msgspec.Struct, tag="score", frozen=True, omit_defaults=True):
    """Score how well each document answers a query. Answered by `Scores`, in the order of the documents.

    A reranker (`task: rerank`) reads query and document together. Its scores are what the model's authors
    put behind the head, mostly a sigmoid, so in [0, 1]; with `raw` they are the head's logits. An embedding
    model (`task: embed`) compares vectors, mostly by cosine, so in [-1, 1], with its own prompts for queries
    and documents; `raw` makes no difference there. Higher is better in every case.

    A query or document that is empty or not Unicode, and without `truncate` one that is too long, is refused
    with `param` `query` or `documents[i]`. `truncate` cuts to the model's window: for a reranker the longer
    of the two texts first, as the Hugging Face tokenizers' `longest_first`.
    """

    id: int
    model: str
    query: str
    documents: Sequence[str]
    truncate: bool = False
    raw: bool = False
    priority: int = 1
    tenant: str = "local"
    timeout_s: float | None = None


class Cancel(msgspec.Struct, tag="cancel", frozen=True):
    """Stop a `Generate`, or one of its choices, an `Embed` or a `Score`. What already ended is left as it is.

    A stopped choice ends with a `Step` entry and the finish reason `cancelled`; a request that was not
    accepted yet, an `Embed` and a `Score`, with an `Error` and the code `cancelled`.
    """

    id: int
    index: int | None = None
    """One choice; None: all of them."""


class Set(msgspec.Struct, tag="set", frozen=True):
    """Change a setting of the running worker: `gate_policy`. Answered by `Done`."""

    id: int
    key: str
    value: str | int | float


class Tune(msgspec.Struct, tag="tune", frozen=True):
    """Change knobs of a loaded model; they hold from its next batch on. Answered by `Done`."""

    id: int
    model: str
    knobs: Knobs


class Hello(msgspec.Struct, tag="hello", frozen=True):
    """The worker is up. `epoch` differs between two lives of a worker."""

    epoch: str
    device: str


class Progress(msgspec.Struct, tag="progress", frozen=True):
    """How far a `Weigh` or a `Load` is."""

    model: str
    phase: str
    """`fetching`, `reading`, `building` or `compiling`."""
    percent: float
    """Of the whole load, 0 to 100."""
    done_bytes: int = 0
    """Of the download."""
    total_bytes: int = 0
    """0 where it is not known."""


class Weighed(msgspec.Struct, tag="weighed", frozen=True):
    """How much memory a model will take."""

    id: int
    memory_bytes: int
    """Weights as they will be held, and KV memory."""


class Loaded(msgspec.Struct, tag="loaded", frozen=True):
    """A model is ready."""

    id: int
    model: str
    task: str
    """`generate`, `embed` or `rerank`."""
    context_length: int
    """Most tokens of one request."""
    details: dict[str, Any]
    """For people: architecture, precision, sizes; `chat_template: fallback` where the model has none."""
    tokenizer: str | None = None
    """The tokenizer as JSON, for turning ids into text on the gateway's side."""
    dimensions: int | None = None
    memory_bytes: int = 0
    """As `Weighed` tells it."""
    revision: str | None = None
    """What its files were: see `models.revision`."""
    knobs: Knobs = Knobs()
    """In force."""
    tool_form: str | None = None
    """The name of one of `models.tool_forms`, for a model that generates."""


class Done(msgspec.Struct, tag="done", frozen=True):
    """An `Unload`, `Set` or `Tune` is carried out."""

    id: int


class Accepted(msgspec.Struct, tag="accepted", frozen=True):
    """A `Generate` is well-formed and has its place; only now may the gateway answer 200."""

    id: int
    prompt_tokens: int


class Counted(msgspec.Struct, tag="counted", frozen=True):
    """A `Count`'s answer."""

    id: int
    prompt_tokens: int


class StepEntry(msgspec.Struct, array_like=True, frozen=True):
    """What one engine step gave one sequence of one request."""

    id: int
    index: int
    """Which of the request's `n` choices."""
    token_ids: list[int]
    logprobs: list[tuple[float, list[tuple[int, float]]]] | None
    """Per token: its logprob and the likeliest tokens' (id, logprob)."""
    finish_reason: str | None
    cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache."""


class Step(msgspec.Struct, tag="step", frozen=True):
    """Everything one engine step of one model produced, for all of its streams."""

    model: str
    entries: list[StepEntry]


class Result(msgspec.Struct, tag="result", frozen=True):
    """An embedding request's vectors as raw little-endian float32, row-major [len(tokens), dimensions]."""

    id: int
    dimensions: int
    data: memoryview
    tokens: list[int]
    """Token count of each input."""


class Scores(msgspec.Struct, tag="scores", frozen=True):
    """A `Score`'s answer: raw little-endian float32, one for each document, in their order."""

    id: int
    data: memoryview
    tokens: int
    """Tokens computed for query and documents together, special tokens included."""


class Error(msgspec.Struct, tag="error", frozen=True):
    """The terminal message of a call that failed, as `errors.from_code` takes it."""

    id: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None


class EngineStatus(msgspec.Struct, array_like=True, frozen=True):
    """How the engine of one model does; see `watchdog`."""

    steps: int
    """Steps or batches that the device has finished; failed ones do not count."""
    owes_step: bool
    """Whether one is due or running; not while the model's turn is behind another model's."""
    healthy: bool
    """Whether it can compute at all."""


class Stats(msgspec.Struct, tag="stats", frozen=True):
    """The worker's heartbeat and metrics. An engine that is stuck shows in `engines`."""

    engines: dict[str, EngineStatus]
    """Of each loaded model."""
    metrics: list[Metric]


Call = Weigh | Load | Unload | Set | Tune | Count | Embed | Score
"""What ends with one message."""
ToWorker = Call | Generate | Cancel
FromWorker = (
    Hello | Progress | Weighed | Loaded | Done | Accepted | Step | Counted | Result | Scores | Error | Stats
)
