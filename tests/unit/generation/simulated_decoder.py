"""A complete decoder without a model: the next token is a checksum of what the KV memory really holds.

It keeps token ids where a model keeps keys and values, reads each sequence back through its block table
and draws from a checksum of it. A wrong table or position, or a block written by a stranger, is noticed.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from carpool.runtimes.decoder import DecoderSpec, Sample, SamplingParams, StepBatch, StepResult, TokenLogprobs

VOCAB_SIZE = 97
GREEDY = SamplingParams(temperature=0)


def draw(
    content: NDArray[np.int64], params: SamplingParams, num_outputs: int, banned: Sequence[int] = ()
) -> int:
    """The token that follows `content`: greedy depends on the content only, a draw on seed and number too."""
    start = 0 if params.temperature == 0 else hash((params.seed, num_outputs)) & 0xFFFF
    token_id = zlib.crc32(content.tobytes(), start) % VOCAB_SIZE
    while token_id in banned:
        token_id = (token_id + 1) % VOCAB_SIZE
    return token_id


def alone(
    prompt_ids: Sequence[int],
    max_tokens: int,
    params: SamplingParams = GREEDY,
    stop: Sequence[int] = (),
    min_tokens: int = 0,
) -> list[int]:
    """What a sequence must generate, computed without any engine."""
    tokens = list(prompt_ids)
    for count in range(max_tokens):
        banned = stop if count < min_tokens else ()
        token_id = draw(np.array(tokens, np.int64), params, count, banned)
        if token_id in stop:
            break
        tokens.append(token_id)
    return tokens[len(prompt_ids) :]


@dataclass
class SimulatedStep:
    """A step whose work is done when its result is asked for."""

    decoder: "SimulatedDecoder"
    batch: StepBatch
    tokens: list[int]
    """The batch's, with those that were in flight."""

    def result(self) -> StepResult:
        self.decoder.input_ids = self.tokens
        return self.decoder.run(self.batch)


@dataclass
class SimulatedDecoder:
    """`before_step` is called in the step's thread and may block or raise."""

    num_blocks: int = 64
    block_size: int = 4
    context_length: int = 200
    before_step: Callable[[StepBatch], object] = lambda batch: None
    batches: list[StepBatch] = field(default_factory=list)
    keep_batches: bool = True

    def __post_init__(self) -> None:
        self.tokens = np.full((self.num_blocks, self.block_size), -1, np.int64)
        self.positions = np.full((self.num_blocks, self.block_size), -1, np.int64)
        self.drawn: list[int] = []
        """By the last step that has run."""
        self.input_ids: list[int] = []
        """Of the step that runs."""

    @property
    def spec(self) -> DecoderSpec:
        return DecoderSpec(VOCAB_SIZE, self.context_length, self.block_size, self.num_blocks)

    def launch(self, batch: StepBatch) -> SimulatedStep:
        tokens = [self.drawn[-1 - id_] if id_ < 0 else id_ for id_ in batch.token_ids.tolist()]
        return SimulatedStep(self, batch, tokens)

    def close(self) -> None:
        pass

    def run(self, batch: StepBatch) -> StepResult:
        if self.keep_batches:
            self.batches.append(batch)
        self.before_step(batch)
        tables = [
            batch.block_indices[begin:end]
            for begin, end in zip(batch.block_indices_begins, batch.block_indices_begins[1:], strict=False)
        ]
        self._write(batch, tables)
        drawn = [self._draw(batch, tables[sample.row], sample) for sample in batch.samples]
        logprobs = [
            TokenLogprobs(-0.5, [(token_id, -0.5)][: sample.params.top_logprobs])
            if sample.params.top_logprobs is not None
            else None
            for sample, token_id in zip(batch.samples, drawn, strict=True)
        ]
        self.drawn = drawn
        return StepResult(drawn, logprobs)

    def _write(self, batch: StepBatch, tables: list[NDArray[np.int32]]) -> None:
        begins, written = batch.subsequence_begins, set()
        assert len(tables) == len(batch.past_lens) == len(begins) - 1 > 0
        assert begins[-1] == len(batch.token_ids)
        owners = np.bincount(batch.block_indices, minlength=self.num_blocks)
        for row, table in enumerate(tables):
            tokens = self.input_ids[begins[row] : begins[row + 1]]
            past = int(batch.past_lens[row])
            assert len(tokens) > 0
            assert len(table) == -(-(past + len(tokens)) // self.block_size)
            for position, token_id in enumerate(tokens, start=past):
                block = int(table[position // self.block_size])
                assert owners[block] == 1, f"block {block} is written and has {owners[block]} owners"
                self.tokens[block, position % self.block_size] = token_id
                self.positions[block, position % self.block_size] = position
                written.add(block)

    def _draw(self, batch: StepBatch, table: NDArray[np.int32], sample: Sample) -> int:
        row = sample.row
        length = int(batch.past_lens[row] + batch.subsequence_begins[row + 1] - batch.subsequence_begins[row])
        content = self.tokens[table].ravel()[:length]
        assert (self.positions[table].ravel()[:length] == np.arange(length)).all(), "positions are mixed up"
        known = [*sample.prompt_ids, *sample.output_ids]
        if batch.token_ids[batch.subsequence_begins[row]] < 0 and content.tolist()[:-1] == known:
            return 0  # its last token ended it, or it was cancelled meanwhile: nobody will look at this one
        assert content.tolist() == known, "KV memory holds other tokens"
        return draw(content, sample.params, len(sample.output_ids), sample.banned_ids)
