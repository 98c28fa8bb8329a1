"""Make tests/unit/encoders/fixtures/all-minilm-l6-v2.json: the vectors of PyTorch in fp32.

Run it in an environment of its own, with the directory of all-MiniLM-L6-v2:

    pip install torch==2.13.0 transformers
    python scripts/make_encoder_reference.py DIRECTORY

The pooling is written out here and not read from the directory, so that a mistake in reading cannot hide.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

FIXTURE = Path(__file__).parent.parent / "tests/unit/encoders/fixtures/all-minilm-l6-v2.json"
MAX_TOKENS = 256

_PARAGRAPH = (
    "The ferry leaves at seven in the morning, when the harbour is still grey and the gulls have not begun. "
    "On board there is coffee in paper cups, a rack of old timetables, and a heater that ticks. "
)
TEXTS = [
    "a",
    "?",
    " ",
    "Where can I park my bicycle?",
    "where can i park my BICYCLE",
    "The invoice of 14 March was paid twice; please refund 1,284.50 EUR.",
    "Die Straßenbahn hält nicht mehr am Rathausplatz.",
    "Élodie a mangé une crème brûlée à Nîmes.",
    "この電車は東京駅に止まりますか。",
    "Поезд опаздывает на двадцать минут.",
    "القطار متأخر اليوم",
    "🚗💨 sharing a ride with 👩‍👩‍👧 friends 🙌🏽",
    "e\u0301 and \u00e9 are the same letter; \u200bzero\u200bwidth\u00a0space",
    "def ride(seats: int) -> None:\n\treturn None  # TODO",
    "SELECT seat FROM rides WHERE price < 3 AND day = 'Monday';",
    "https://example.org/rides?from=north&to=south#today",
    "supercalifragilisticexpialidocious" * 4,
    "no\n\n\nblank    lines\there",
    "[CLS] written out [SEP] in a text [MASK]",
    _PARAGRAPH,
    _PARAGRAPH * 4,
    _PARAGRAPH * 12,
    "Sie fährt jeden Tag mit drei Kollegen zur Arbeit. " * 60,
]


def main() -> None:
    """Write the fixture."""
    directory = sys.argv[1]
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    vectors, token_counts = [], []
    for text in TEXTS:
        inputs = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state[0]
        vector = torch.nn.functional.normalize(hidden.mean(0), dim=0)
        vectors.append([round(value, 5) for value in vector.tolist()])
        token_counts.append(hidden.shape[0])
    rows = [
        json.dumps({"text": text, "tokens": tokens, "vector": vector}, separators=(",", ":"))
        for text, tokens, vector in zip(TEXTS, token_counts, vectors, strict=True)
    ]
    FIXTURE.write_text("[\n" + ",\n".join(rows) + "\n]\n")
    print(f"{len(rows)} vectors in {FIXTURE}, {FIXTURE.stat().st_size} bytes; tokens: {token_counts}")


if __name__ == "__main__":
    main()
