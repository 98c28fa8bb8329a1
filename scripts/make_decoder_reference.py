"""Make tests/unit/runtimes/fixtures/tiny_decoders.json: greedy continuations by transformers' `generate`.

Run it in an environment of its own:

    pip install torch==2.13.0 transformers
    python scripts/make_decoder_reference.py

The models and prompts are those of tests/unit/runtimes/tiny_decoders.py. For each model there is a digest of
its weights, and for each prompt the output's token ids and, for every step, how far the runner-up's logit was
below the winner's, in units of 1e-4, rounded down and at most 9999. Each prompt runs alone, in float32.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.unit.runtimes.tiny_decoders import DECODERS, NEW_TOKENS, TinyDecoder, digest, prompts  # noqa: E402

FIXTURE = ROOT / "tests/unit/runtimes/fixtures/tiny_decoders.json"


def build(decoder: TinyDecoder) -> PreTrainedModel:
    """The model with exactly the tensors of the tiny decoder."""
    values = {name: value for name, value in decoder.full_config.items() if name != "model_type"}
    config = AutoConfig.for_model(decoder.model_type, **values)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    assert type(model).__name__ == decoder.architecture
    weights = {name: torch.from_numpy(array) for name, array in decoder.weights().items()}
    if not decoder.prefix:
        weights = {f"{model.base_model_prefix}.{name}": value for name, value in weights.items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= {"lm_head.weight"}, missing
    model.tie_weights()
    return model


def continue_greedily(model: PreTrainedModel, prompt: list[int]) -> tuple[list[int], list[int]]:
    """The likeliest tokens, and the top-2 logit gap at each."""
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            return_dict_in_generate=True,
            output_logits=True,
        )
    top = torch.stack([step[0].topk(2).values for step in found.logits])
    gaps = ((top[:, 0] - top[:, 1]) * 10_000).floor().clamp(max=9999).int().tolist()
    return found.sequences[0, len(prompt) :].tolist(), gaps


def main() -> None:
    """Write the fixture."""
    torch.set_num_threads(1)  # the models are too small for more
    reference = {}
    for name, decoder in DECODERS.items():
        model = build(decoder)
        rows = [continue_greedily(model, prompt) for prompt in prompts()]
        reference[name] = {"weights": digest(decoder.weights()), "rows": rows}
        tokens = [token for ids, _ in rows for token in ids]
        gaps = sorted(gap for _, gaps in rows for gap in gaps)
        common = Counter(tokens).most_common(1)[0][1]
        print(
            f"{name}: {len(set(tokens))} different tokens of {len(tokens)}, the commonest {common} times; "
            f"smallest gaps {gaps[:4]}, median {gaps[len(gaps) // 2]}"
        )
    lines = []
    for name, found in reference.items():
        rows = ",\n".join("  " + json.dumps(row, separators=(",", ":")) for row in found["rows"])
        lines.append(f'"{name}": {{"weights": "{found["weights"]}", "rows": [\n{rows}\n]}}')
    FIXTURE.parent.mkdir(exist_ok=True)
    FIXTURE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{FIXTURE}, {FIXTURE.stat().st_size} bytes")


main()
