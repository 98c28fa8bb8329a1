"""Make tests/unit/models/fixtures/smollm2_tokens.json: token ids of SmolLM2 by transformers.

Run it in an environment of its own, with the path of SmolLM2-135M-Instruct.Q4_1.gguf:

    pip install torch==2.13.0 transformers gguf
    python scripts/make_tokenizer_reference.py PATH_OF_GGUF

The vocabulary, merges and special tokens are those that transformers loads from the GGUF file. Its conversion
gives every GGUF file GPT-2's splitting rule; the splitting rule of SmolLM2's published tokenizer.json (single
digits first, then GPT-2's) is put in its place. The rendered chat is transformers' `apply_chat_template` with
the file's template.
"""
# ruff: noqa: RUF001  (the texts are meant to hold characters that look like others)

import json
import sys
from pathlib import Path

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

TEXTS = [
    "",
    " ",
    "Hello, world!",
    "The capital of France is Paris.",
    "  two leading and trailing spaces  ",
    "tabs\t\tand\nnewlines\r\n\r\n   mixed \n \n end\n",
    "In 1969, 12345 people paid $3.50 for 0x1F; call 555 0123  42",
    "  7 spaces before 123   456",
    "½ ² Ⅷ ٣٤ 千二百 １２３",
    'def f(x: int) -> str:\n    return f"{x!r:>10}"  # comment\n\n\nclass A:\n\tpass\n',
    "SELECT * FROM t WHERE a<>'b' AND c >= 10;",
    "it's we're I'LL don't they'd 'tis O'Neil's",
    "Größe, naïve café, Ångström, e\u0301",
    "Привет, как дела?",
    "你好，世界。今天天气怎么样？",
    "こんにちは世界 안녕하세요",
    "مرحبا بالعالم שלום",
    "नमस्ते दुनिया",
    "😀 👩‍👩‍👧‍👦 🇫🇷 👍🏽 ❤️",
    "zero\u200bwidth non\u00a0breaking \ufeff bom \u2028 line",
    "\u0000\u0001\u007f control",
    "∑_{i=0}^{n} x_i² ≤ ∫ f(x) dx → ∞",
    "https://example.org/a/b?c=d&e=%20#f user@example.org",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "Antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "text <|endoftext|> between<|im_end|>specials <|im_start |> not one <repo_name><empty_output>",
    "\U000104a0 \U0001d54f \U0001f9ff \u0e01\u0e33",
]
MESSAGES = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "  1 + 1?\n"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "And 2 + 2? 😀"},
    ],
]
TARGET = Path(__file__).parent.parent / "tests/unit/models/fixtures/smollm2_tokens.json"


def main() -> None:
    """Write the fixture."""
    gguf_file = Path(sys.argv[1])
    tokenizer = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    texts = [{"text": text, "ids": tokenizer(text)["input_ids"]} for text in TEXTS]
    chats = [
        {
            "messages": messages,
            "rendered": (
                rendered := tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True
                )
            ),
            "ids": tokenizer(rendered, add_special_tokens=False)["input_ids"],
        }
        for messages in MESSAGES
    ]
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps({"texts": texts, "chats": chats}, indent=1) + "\n")


main()
