"""Make tests/unit/generation/fixtures/smollm2_greedy.json: greedy continuations by transformers' `generate`.

Run it in an environment of its own, with the path of SmolLM2-135M-Instruct.Q4_1.gguf:

    pip install torch==2.13.0 transformers gguf accelerate
    python scripts/make_generation_reference.py PATH_OF_GGUF

The weights are those that transformers dequantises to float32 from the GGUF file; end tokens are ordinary
ones. The prompts are cut from this repository's own texts: 120 of 1 to 600 tokens, and 8 families of 10 that
share a long beginning. Five at a time have the same length and run together, so none is padded. A row holds
the prompt's and the output's token ids and, for every step, how far the runner-up's logit was below the
winner's, in units of 1e-4, rounded down and at most 9999.
"""

import json
import random
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

ROOT = Path(__file__).parent.parent
FIXTURE = ROOT / "tests/unit/generation/fixtures/smollm2_greedy.json"

GROUP_SIZE = 5
NUM_LENGTHS = 24
LONGEST = 600
BEGINNINGS = [40, 64, 100, 150, 200, 256, 350, 480]
"""Tokens that the prompts of a family share; some end on a KV block, some inside one."""
NEW_TOKENS = [24, 24, 24, 24, 48]
"""Of the groups in turn."""


def make_groups(text: list[int], dice: random.Random) -> list[list[list[int]]]:
    """Prompts in groups of equal length."""

    def cut(length: int) -> list[int]:
        begin = dice.randrange(len(text) - length)
        return text[begin : begin + length]

    lengths = [round(LONGEST ** (i / (NUM_LENGTHS - 1))) for i in range(NUM_LENGTHS)]
    groups = [[cut(length) for _ in range(GROUP_SIZE)] for length in lengths]
    for length in BEGINNINGS:
        beginning = cut(length)
        rests = (dice.randint(1, 12), dice.randint(13, 24))
        groups += [[[*beginning, *cut(rest)] for _ in range(GROUP_SIZE)] for rest in rests]
    dice.shuffle(groups)
    return groups


def continue_greedily(
    model: PreTrainedModel, prompts: list[list[int]], count: int
) -> tuple[list[list[int]], list[list[int]]]:
    """The likeliest tokens of each prompt, and the top-2 logit gap at each token."""
    ids = torch.tensor(prompts)
    with torch.inference_mode():
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=count,
            return_dict_in_generate=True,
            output_logits=True,
        )
    best = torch.stack(found.logits, dim=1).topk(2).values
    gaps = (best[..., 0] - best[..., 1]).double().mul(1e4).floor().clamp(max=9999)
    return found.sequences[:, len(prompts[0]) :].tolist(), gaps.int().tolist()


def main() -> None:
    """Write the fixture."""
    gguf_file = Path(sys.argv[1])
    tokenizer = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32
    ).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = None
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/carpool/inference_engine/*.py")]
    text = tokenizer("\n".join(path.read_text() for path in sorted(files)))["input_ids"]
    rows = []
    started = time.perf_counter()
    for i, prompts in enumerate(make_groups(text, random.Random(4))):
        outputs = continue_greedily(model, prompts, NEW_TOKENS[i % len(NEW_TOKENS)])
        rows += [
            json.dumps({"prompt": prompt, "output": output, "gaps": gaps}, separators=(",", ":"))
            for prompt, output, gaps in zip(prompts, *outputs, strict=True)
        ]
        print(f"{len(rows)} after {time.perf_counter() - started:.0f} s", flush=True)
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    FIXTURE.write_text("[\n" + ",\n".join(rows) + "\n]\n")
    print(f"{len(rows)} prompts; {FIXTURE.stat().st_size} bytes in {FIXTURE}")


if __name__ == "__main__":
    main()
