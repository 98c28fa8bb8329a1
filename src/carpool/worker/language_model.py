"""A hosted language model: text in, through the template and the tokenizer, to the generation engine."""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from carpool.errors import ContextLengthExceeded, InvalidRequest
from carpool.generation import (
    GenerationConfig,
    GenerationEngine,
    GenerationRequest,
    Grammar,
    GrammarCompiler,
    GrammarKind,
    GrammarSource,
    SequenceOutput,
)
from carpool.inference_engine import Priority
from carpool.models.chat_template import ChatTemplate
from carpool.models.sampling_defaults import SamplingDefaults
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.decoder import DecoderRuntime, SamplingParams
from carpool.worker import protocol
from carpool.worker.errors import as_error
from carpool.worker.host import Surroundings
from carpool.worker.hosted import Description, GeneratingModel
from carpool.worker.protocol import Count, Generate, Knobs, Prompt, Step, StepEntry


class LanguageModel(GeneratingModel):
    """A decoder with its engine, started on the running event loop. It owns the runtime from now on."""

    def __init__(
        self,
        name: str,
        runtime: DecoderRuntime,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        defaults: SamplingDefaults,
        grammars: GrammarCompiler,
        config: GenerationConfig,
        surroundings: Surroundings,
        description: Description,
    ) -> None:
        self.description = description
        self._name = name
        self._runtime = runtime
        self._tokenizer = tokenizer
        # A tokenizer may know tokens that the model has no logits for.
        self._end_ids = frozenset(id_ for id_ in tokenizer.end_ids if id_ < runtime.spec.vocab_size)
        self._template = template
        self._defaults = defaults
        self._grammars = grammars
        self._emit = surroundings.emit
        self._engine = GenerationEngine(
            runtime, config, surroundings.gate, self._on_step, name=name, registry=surroundings.registry
        )
        self._engine.start()

    @property
    def steps(self) -> int:
        """Steps of the engine."""
        return self._engine.steps

    @property
    def has_work(self) -> bool:
        """See `HostedModel`."""
        return self._engine.has_work

    @property
    def healthy(self) -> bool:
        """See `HostedModel`."""
        return self._engine.healthy

    @property
    def knobs(self) -> Knobs:
        """See `HostedModel`."""
        config = self._engine.config
        return Knobs(config.max_num_seqs, config.admission_window_ms, config.weight)

    def tune(self, knobs: Knobs) -> None:
        """See `HostedModel`."""
        config = self._engine.config
        self._engine.config = replace(config, **_changes(knobs, config, self._runtime.spec.block_size))

    async def generate(self, request: Generate, accept: Callable[[int], None]) -> None:
        """See `GeneratingModel`. What is wrong with a prompt that was rendered is wrong with its messages."""
        try:
            await self._generate(request, accept)
        except InvalidRequest as error:
            if error.param == "prompt" and request.messages is not None:
                error.param = "messages"
            raise

    async def _generate(self, request: Generate, accept: Callable[[int], None]) -> None:
        """Render and tokenise in a thread, then hand over to the engine."""
        deadline = None if request.timeout_s is None else time.monotonic() + request.timeout_s
        with self._engine.expecting():
            prompt_ids = await asyncio.to_thread(self._prompt_ids, request)
        grammar = None if request.grammar is None else await self._compile(request.grammar)
        self._engine.submit(
            GenerationRequest(
                request_id=request.id,
                prompt_ids=prompt_ids,
                params=_sampling_params(request, self._defaults),
                max_tokens=request.max_tokens,
                min_tokens=request.min_tokens,
                end_token_ids=self._end_ids,
                ignore_eos=request.ignore_eos,
                stop_token_ids=frozenset(request.stop_token_ids),
                grammar=grammar,
                n=request.n,
                priority=Priority(request.priority),
                tenant=request.tenant,
                deadline=deadline,
            )
        )
        accept(len(prompt_ids))

    async def count(self, request: Count) -> int:
        """See `GeneratingModel`."""
        return len(await asyncio.to_thread(self._prompt_ids, request))

    def cancel(self, request_id: int, index: int | None) -> None:
        """See `GeneratingModel`."""
        self._engine.cancel(request_id, index)

    async def close(self) -> None:
        """Finish what was accepted, then free the device."""
        await self._engine.drain()
        await self._engine.stop()
        self._grammars.close()
        await asyncio.to_thread(self._runtime.close)

    async def _compile(self, given: protocol.Grammar) -> Grammar:
        try:
            return await self._grammars.compile(GrammarSource(GrammarKind(given.kind), given.text))
        except InvalidRequest as error:  # the one error of all who wait for this grammar
            raise InvalidRequest(error.message, param=given.field) from error

    def _prompt_ids(self, request: Prompt) -> list[int]:
        match request:
            case Prompt(messages=list(messages), prompt=None, prompt_ids=None):
                text = self._template.render(messages, request.tools)
                return self._encode(text, add_special_tokens=self._template.is_fallback)
            case Prompt(messages=None, prompt=str(prompt), prompt_ids=None):
                return self._encode(prompt, add_special_tokens=True)
            case Prompt(messages=None, prompt=None, prompt_ids=list(prompt_ids)):
                return prompt_ids
        raise InvalidRequest("Exactly one of messages, a prompt and prompt ids is needed.")

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Refuse a text that cannot fit before it takes seconds to encode, while others wait."""
        context = self._runtime.spec.context_length
        if self._tokenizer.certainly_exceeds(text, context):
            raise ContextLengthExceeded(
                f"This model's context length is {context} tokens; the prompt's "
                f"{len(text.encode(errors='replace'))} bytes are more than that",
                param="prompt",
            )
        return self._tokenizer.encode(text, add_special_tokens)

    def _on_step(self, outputs: list[SequenceOutput]) -> None:
        entries = [_entry(output) for output in outputs if output.error is None]
        if entries:
            self._emit(Step(self._name, entries))
        # The choices of a request fail together, with one error for all.
        for request_id, error in {o.request_id: o.error for o in outputs if o.error is not None}.items():
            self._emit(as_error(request_id, error))


def _changes(knobs: Knobs, config: GenerationConfig, block_size: int) -> dict[str, Any]:
    """What knobs change in a config. A step grows with its batch, so that prompts keep half of it."""
    changes: dict[str, Any] = {"admission_window_ms": knobs.batch_wait_ms, "weight": knobs.weight}
    if (size := knobs.max_batch_size) is not None:
        step_tokens = max(config.max_num_batched_tokens, 2 * size, size + block_size)
        changes |= {"max_num_seqs": size, "max_num_batched_tokens": step_tokens}
    return {name: value for name, value in changes.items() if value is not None}


def _entry(output: SequenceOutput) -> StepEntry:
    logprobs = output.logprobs
    return StepEntry(
        output.request_id,
        output.index,
        output.token_ids,
        None if logprobs is None else [(each.logprob, list(each.top)) for each in logprobs],
        output.finish_reason,
        output.usage.cached_tokens,
    )


def _sampling_params(request: Generate, defaults: SamplingDefaults) -> SamplingParams:
    chosen = {
        field.name: getattr(defaults, field.name)
        if (given := getattr(request, field.name)) is None
        else given
        for field in fields(defaults)
    }
    return SamplingParams(
        **chosen,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        logit_bias=request.logit_bias,
        seed=secrets.randbits(32) if request.seed is None else request.seed,
        reproducible=request.seed is not None,
        top_logprobs=request.top_logprobs,
    )
