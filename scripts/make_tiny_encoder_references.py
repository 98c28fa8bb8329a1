"""Make tests/unit/encoders/fixtures/tiny.json and tiny-bert.onnx: the tests' checkpoints run by PyTorch.

Run it in an environment of its own:

    pip install torch==2.13.0 transformers onnx
    PYTHONPATH=. python scripts/make_tiny_encoder_references.py

Pooling, prompts, windows and pairs are written out here and not read from the directories, so that a mistake
in reading cannot hide. Every text is run alone, so that padding plays no part.
"""

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from tests.unit.encoders.tiny_checkpoints import (
    BY_NAME,
    DOCUMENTS,
    EMBEDDING,
    LONG_QUERY,
    MAX_POSITIONS,
    QUERY,
    RERANK,
    TEXTS,
    Tiny,
)

FIXTURES = Path(__file__).parent.parent / "tests/unit/encoders/fixtures"
WINDOWS = {"xlm-roberta-mean": 20}
PROMPTS = {"xlm-roberta-mean": "query: "}


def rounded(values: torch.Tensor) -> Any:
    """For the file."""
    return [round(value, 6) for value in values.tolist()]


def embed(tiny: Tiny, directory: Path) -> dict[str, Any]:
    """Token counts and vectors of the texts."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    counts, vectors = [], []
    for text in TEXTS:
        window = WINDOWS.get(tiny.name, MAX_POSITIONS)
        inputs = tokenizer(
            PROMPTS.get(tiny.name, "") + text, truncation=True, max_length=window, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state[0]
        vector = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.max(0).values}[tiny.pooling or ""]
        vectors.append(rounded(torch.nn.functional.normalize(vector, dim=0) if tiny.normalize else vector))
        counts.append(len(hidden))
    return {"tokens": counts, "vectors": vectors}


def rerank(directory: Path) -> dict[str, Any]:
    """Token counts and logits of the documents with the query, and logits with the long one."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32).eval()
    result: dict[str, Any] = {}
    for key, query in (("", QUERY), ("long_", LONG_QUERY)):
        counts, logits = [], []
        for document in DOCUMENTS:
            inputs = tokenizer(
                query,
                document,
                truncation="longest_first",
                max_length=MAX_POSITIONS,
                return_token_type_ids=True,
                return_tensors="pt",
            )
            with torch.inference_mode():
                logits.append(model(**inputs).logits[0, 0])
            counts.append(inputs["input_ids"].shape[1])
        result |= {f"{key}tokens": counts, f"{key}logits": rounded(torch.stack(logits))}
    return result


class Exported(torch.nn.Module):
    """A BERT with positional inputs, as the exporter wants them."""

    def __init__(self, bert: torch.nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Hidden states, and what BERT's own pooler makes of the first."""
        found = self.bert(input_ids=ids, attention_mask=mask, token_type_ids=types)
        return found.last_hidden_state, found.pooler_output


def export(directory: Path, path: Path) -> None:
    """The hidden states as ONNX, in Optimum's form: integers of 64 bits, batch and tokens of any number."""
    model = AutoModel.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = tuple(torch.ones((2, 5), dtype=torch.int64) for _ in names)
    warnings.simplefilter("ignore")
    torch.onnx.export(
        Exported(model),
        example,
        path,
        input_names=names,
        output_names=["last_hidden_state", "pooler_output"],
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names},
        dynamo=False,
    )


def main() -> None:
    """Write the fixtures."""
    references = {}
    with tempfile.TemporaryDirectory() as place:
        for tiny in EMBEDDING:
            references[tiny.name] = embed(tiny, tiny.write(Path(place) / tiny.name))
        for tiny in RERANK:
            references[tiny.name] = rerank(tiny.write(Path(place) / tiny.name))
        export(Path(place) / BY_NAME["bert-mean"].name, FIXTURES / "tiny-bert.onnx")
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in references.items()]
    (FIXTURES / "tiny.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    for name in ("tiny.json", "tiny-bert.onnx"):
        print(f"{name}: {(FIXTURES / name).stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
