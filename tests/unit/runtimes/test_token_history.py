"""Which tokens a sequence holds, as it grows."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from carpool.runtimes.decoder import Sample, SamplingParams
from carpool.runtimes.logits_processing import process
from carpool.runtimes.token_history import TokenHistory


def test_it_follows_what_is_drawn() -> None:
    dice = random.Random(3)
    prompt, output = [5, 7, 5, 900], [7, 3]
    history = TokenHistory(prompt, output)
    for _ in range(300):
        output += [dice.randrange(500) for _ in range(dice.randint(0, 3))]
        seen, times = history.seen()
        assert sorted(seen.tolist()) == sorted({*prompt, *output})
        assert times.tolist() == [Counter(output)[token_id] for token_id in seen.tolist()]
        drawn, times = history.drawn()
        assert dict(zip(drawn.tolist(), times.tolist(), strict=True)) == Counter(output)


def test_it_may_be_empty_and_begin_without_a_prompt() -> None:
    output: list[int] = []
    history = TokenHistory([], output)
    assert (len(history.seen()[0]), len(history.drawn()[0])) == (0, 0)
    output.append(4)
    assert [part.tolist() for part in history.drawn()] == [[4], [1]]
    assert [part.tolist() for part in history.seen()] == [[4], [1]]


class Read(list[int]):
    """Counts how often it is read."""

    times = 0

    def __iter__(self) -> Iterator[int]:
        self.times += 1
        return super().__iter__()


def test_penalties_read_a_prompt_once_however_many_tokens_are_drawn() -> None:
    prompt, output = Read(range(100)), [1, 2]
    params = SamplingParams(repetition_penalty=1.3, frequency_penalty=0.5)
    sample = Sample(0, params, prompt, output, history=TokenHistory(prompt, output))
    row = np.random.default_rng(0).normal(size=200).astype(np.float32)
    for token_id in range(90, 130):
        kept = process(row[None].copy(), {0: replace(sample, row=token_id)})
        anew = process(row[None].copy(), {0: Sample(0, params, list(prompt), output)})
        of_kept, of_anew = (
            dict(zip(each.ids[0].tolist(), each.elements[0].tolist(), strict=True)) for each in (kept, anew)
        )
        assert of_kept == of_anew
        prompt.times -= 1  # which was the copy just made
        output.append(token_id)
    assert prompt.times == 1
