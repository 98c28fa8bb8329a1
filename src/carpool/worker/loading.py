"""From a `Load` message to a running model: fetch, read, build, compile."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

import msgspec

from carpool.encoders import CrossEncoderConfig, Embedder, EncoderConfig, Reranker, SentenceTransformersConfig
from carpool.errors import ModelFailed
from carpool.garbage import collect_seldom
from carpool.generation import STATIC_DEFAULTS, GenerationConfig, GrammarCompiler, Mode
from carpool.models.chat_template import ChatTemplate, read_chat_template
from carpool.models.checkpoint import Checkpoint
from carpool.models.detokenizer import IncrementalDetokenizer
from carpool.models.open import open_checkpoint
from carpool.models.reference import ModelReference
from carpool.models.revision import revision
from carpool.models.sampling_defaults import sampling_defaults
from carpool.models.source import fetch
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.decoder import StepSize
from carpool.runtimes.openvino.config import DecoderConfig, WeightFormat
from carpool.runtimes.openvino.decoder import load_decoder
from carpool.runtimes.openvino.encoder import OpenVinoClassifier, OpenVinoEncoder
from carpool.runtimes.openvino.memory import decoder_bytes, encoder_bytes
from carpool.worker.embedding_model import CrossEncoder, Encoder
from carpool.worker.host import Surroundings
from carpool.worker.hosted import Description, HostedModel
from carpool.worker.language_model import LanguageModel
from carpool.worker.progress import ProgressReporter
from carpool.worker.protocol import Load, Source, Weigh

_CONVERTING = threading.Lock()
"""msgspec 0.22 crashes when two threads are the first to convert to the same dataclass."""

Config = TypeVar("Config")
Outcome = TypeVar("Outcome")
Start = Callable[[], HostedModel]
"""What is left to do on the event loop."""


class FileLoader:
    """Models from files; implements `host.ModelLoader`. The slow parts run in a thread.

    Raises `ModelFailed` or `StartError` with one sentence for files or options that do not fit.
    """

    async def weigh(self, weigh: Weigh, surroundings: Surroundings) -> int:
        """Weights as they will be held, and KV memory."""
        reporter = ProgressReporter(weigh.model, surroundings.on_progress)
        return await _in_thread(weigh.model, partial(_weigh, weigh, surroundings, reporter))

    async def load(self, load: Load, surroundings: Surroundings) -> HostedModel:
        """See `host.ModelLoader`."""
        reporter = ProgressReporter(load.model, surroundings.on_progress)
        start = await _in_thread(load.model, partial(_prepare, load, surroundings, reporter))
        model = start()
        collect_seldom()
        return model


async def _in_thread(name: str, work: Callable[[], Outcome]) -> Outcome:
    """Work in a thread of its own, so that loads never keep other models' requests from being tokenised."""
    thread = ThreadPoolExecutor(1, thread_name_prefix=f"load {name}")
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, work)
    finally:
        thread.shutdown(wait=False)


def _open(
    source: Source, surroundings: Surroundings, reporter: ProgressReporter
) -> tuple[Checkpoint, str | None]:
    """A model's files and its revision, which is looked at before they are read."""
    reporter.phase("fetching")
    reference = ModelReference.parse(source.reference)
    path = fetch(reference, surroundings.config.model_dir, reporter.fetched)
    found = revision(reference, surroundings.config.model_dir)
    reporter.phase("reading")
    return open_checkpoint(path), found


def _generates(checkpoint: Checkpoint) -> bool:
    return checkpoint.architecture.endswith(("ForCausalLM", "LMHeadModel"))


def _weigh(weigh: Weigh, surroundings: Surroundings, reporter: ProgressReporter) -> int:
    checkpoint, _ = _open(weigh, surroundings, reporter)
    if _generates(checkpoint):
        return decoder_bytes(checkpoint, _decoder_configs(weigh, surroundings)[0])
    return _encoder_bytes(checkpoint, _encoder_config(weigh, surroundings))


def _encoder_bytes(checkpoint: Checkpoint, config: EncoderConfig) -> int:
    return encoder_bytes(checkpoint, config.precision, WeightFormat(config.weights))


def _prepare(load: Load, surroundings: Surroundings, reporter: ProgressReporter) -> Start:
    checkpoint, found = _open(load, surroundings, reporter)
    tokenizer = Tokenizer.from_checkpoint(checkpoint)
    if _generates(checkpoint):
        prepare = _prepare_decoder
    elif checkpoint.architecture.endswith("ForSequenceClassification"):
        prepare = _prepare_reranker
    else:
        prepare = _prepare_encoder
    return prepare(load, surroundings, reporter, checkpoint, found, tokenizer)


def _prepare_decoder(
    load: Load,
    surroundings: Surroundings,
    reporter: ProgressReporter,
    checkpoint: Checkpoint,
    found: str | None,
    tokenizer: Tokenizer,
) -> Start:
    config, generation_config = _decoder_configs(load, surroundings)
    defaults = sampling_defaults(ModelReference.parse(load.reference), checkpoint)
    template = ChatTemplate(read_chat_template(checkpoint), tokenizer)
    IncrementalDetokenizer(tokenizer)  # a tokenizer that it refuses is refused now, not at the first request
    runtime = load_decoder(
        checkpoint,
        config,
        num_threads=surroundings.config.threads,
        largest_step=StepSize(
            tokens=generation_config.max_num_batched_tokens, samples=generation_config.max_num_seqs
        ),
        on_progress=lambda phase, _: reporter.phase(phase),
    )
    spec = runtime.spec
    grammars = GrammarCompiler(tokenizer, spec.vocab_size, template.tool_form)
    description = Description(
        task="generate",
        context_length=min(spec.context_length, spec.num_blocks * spec.block_size),
        tokenizer=tokenizer.to_json(),
        memory_bytes=decoder_bytes(checkpoint, config),
        revision=found,
        tool_form=template.tool_form.name,
        details={
            "architecture": checkpoint.architecture,
            "weights": runtime.weights.value,
            "kv_blocks": spec.num_blocks,
            "kv_block_tokens": spec.block_size,
            "chat_template": "fallback" if template.is_fallback else "own",
            **asdict(defaults),
        },
    )
    return lambda: LanguageModel(
        load.model,
        runtime,
        tokenizer,
        template,
        defaults,
        grammars,
        generation_config,
        surroundings,
        description,
    )


def _prepare_encoder(
    load: Load,
    surroundings: Surroundings,
    reporter: ProgressReporter,
    checkpoint: Checkpoint,
    found: str | None,
    tokenizer: Tokenizer,
) -> Start:
    config = _encoder_config(load, surroundings)
    extra = SentenceTransformersConfig.read(checkpoint.path)
    reporter.phase("compiling")
    runtime = OpenVinoEncoder(
        checkpoint,
        extra.pooling,
        num_threads=surroundings.config.threads,
        max_tokens=extra.max_tokens,
        precision=config.precision,
        weights=WeightFormat(config.weights),
    )
    description = Description(
        task="embed",
        context_length=runtime.spec.max_tokens,
        dimensions=runtime.spec.dimensions,
        memory_bytes=_encoder_bytes(checkpoint, config),
        revision=found,
        details={
            "architecture": checkpoint.architecture,
            "weights": config.weights,
            "pooling": extra.pooling.mode.value,
        },
    )

    def start() -> HostedModel:
        embedder = Embedder(
            runtime,
            tokenizer,
            config,
            name=load.model,
            extra=extra,
            gate=surroundings.gate,
            registry=surroundings.registry,
        )
        return Encoder(runtime, embedder, description)

    return start


def _prepare_reranker(
    load: Load,
    surroundings: Surroundings,
    reporter: ProgressReporter,
    checkpoint: Checkpoint,
    found: str | None,
    tokenizer: Tokenizer,
) -> Start:
    config = _encoder_config(load, surroundings)
    extra = CrossEncoderConfig.read(checkpoint)
    reporter.phase("compiling")
    runtime = OpenVinoClassifier(
        checkpoint,
        num_threads=surroundings.config.threads,
        max_tokens=extra.max_tokens,
        precision=config.precision,
        weights=WeightFormat(config.weights),
    )
    description = Description(
        task="rerank",
        context_length=runtime.spec.max_tokens,
        memory_bytes=_encoder_bytes(checkpoint, config),
        revision=found,
        details={
            "architecture": checkpoint.architecture,
            "weights": config.weights,
            "activation": extra.activation.value,
        },
    )

    def start() -> HostedModel:
        reranker = Reranker(
            runtime,
            tokenizer,
            config,
            name=load.model,
            gate=surroundings.gate,
            registry=surroundings.registry,
            activation=extra.activation,
        )
        return CrossEncoder(runtime, reranker, description)

    return start


def _decoder_configs(source: Source, surroundings: Surroundings) -> tuple[DecoderConfig, GenerationConfig]:
    settings = surroundings.config
    values = dict(STATIC_DEFAULTS) if source.options.get("mode") == Mode.STATIC else {}
    if settings.max_batch_size is not None:
        # Twice the sequences, where that is more than the default, leaves prompts half of each step.
        step_tokens = max(GenerationConfig().max_num_batched_tokens, 2 * settings.max_batch_size)
        values |= {"max_num_seqs": settings.max_batch_size, "max_num_batched_tokens": step_tokens}
    if settings.batch_wait_ms is not None:
        values |= {"admission_window_ms": settings.batch_wait_ms}
    values |= source.options
    _refuse_unknown(values, DecoderConfig, GenerationConfig)
    return _configured(DecoderConfig, values), _configured(GenerationConfig, values)


def _encoder_config(source: Source, surroundings: Surroundings) -> EncoderConfig:
    settings = surroundings.config
    values: dict[str, Any] = {}
    if settings.max_batch_size is not None:
        values |= {"max_batch_size": settings.max_batch_size}
    if settings.batch_wait_ms is not None:
        values |= {"batch_wait_ms": settings.batch_wait_ms}
    values |= source.options
    _refuse_unknown(values, EncoderConfig)
    return _configured(EncoderConfig, values)


def _refuse_unknown(values: Mapping[str, Any], *kinds: type) -> None:
    known = {name for kind in kinds for name in inspect.signature(kind).parameters}
    for name in values:
        if name not in known:
            raise ModelFailed(f"there is no option {name}; there are {', '.join(sorted(known))}")


def _configured(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """A floor's config from those of the values that are its own."""
    own = {name: values[name] for name in inspect.signature(kind).parameters if name in values}
    try:
        with _CONVERTING:
            return msgspec.convert(own, kind)
    except msgspec.ValidationError as error:
        raise ModelFailed(f"an option does not fit: {error}") from error
