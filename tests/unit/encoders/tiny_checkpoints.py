"""Small encoders with random weights as Hugging Face directories, equal wherever they are written.

`scripts/make_tiny_encoder_references.py` runs them with PyTorch, the tests with OpenVINO. NumPy and the
tokenizers library are all it takes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, normalizers, pre_tokenizers, processors

MAX_POSITIONS = 40
"""Tokens of the longest input."""

TEXTS = [
    "a",
    "the ferry leaves the quay",
    "The FERRY leaves the quay!",
    "where is the ticket? 12, 34",
    "les élèves mangent à Nîmes",
    "この電車は東京",
    "xylophone",
    "[SEP] and <pad> written out </s>",
    "the ticket " * 30,
]

QUERY = "where is the ferry?"
LONG_QUERY = "where is the ferry to the quay of the ticket? " * 4
DOCUMENTS = [*TEXTS, "quay", "the ferry is at the quay, where the ticket is"]

_WORDS = ["the", "ferry", "leaves", "quay", "where", "is", "ticket", "and", "query", "passage"]
_LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789?!,.:[]<>/é東京の"]


@dataclass(frozen=True)
class Tiny:
    """One checkpoint. `extra` are the other JSON files of its directory, by their paths."""

    name: str
    architecture: str
    config: Mapping[str, Any] = field(default_factory=dict)
    pooling: str | None = None
    """`mean`, `cls` or `max`; None without modules.json."""
    normalize: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_bert(self) -> bool:
        return self.architecture.startswith("Bert")

    def write(self, directory: Path) -> Path:
        """Write the directory and return it."""
        directory.mkdir(parents=True, exist_ok=True)
        config = self.full_config
        for name, content in {"config.json": config, **self._library_files(), **self.extra}.items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text(json.dumps(content))
        _write_safetensors(directory / "model.safetensors", self._weights(config))
        if self.is_bert:
            backend = _bert_tokenizer()
        elif "XLM" in self.architecture:
            backend = _unigram_tokenizer()
        else:
            backend = _byte_tokenizer()
        backend.save(str(directory / "tokenizer.json"))
        return directory

    @property
    def full_config(self) -> dict[str, Any]:
        shape = {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-6,
        }
        if self.is_bert:
            kind = {"model_type": "bert", "vocab_size": len(_bert_vocabulary()), "pad_token_id": 0}
            kind |= {"max_position_embeddings": MAX_POSITIONS, "type_vocab_size": 2}
        else:
            kind = {"model_type": "xlm-roberta" if "XLM" in self.architecture else "roberta"}
            kind |= {"vocab_size": 300, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
            kind |= {"max_position_embeddings": MAX_POSITIONS + 2, "type_vocab_size": 1}
        if self.architecture.endswith("ForSequenceClassification"):
            kind |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
        return {"architectures": [self.architecture], **shape, **kind, **self.config}

    def _library_files(self) -> dict[str, Any]:
        files: dict[str, Any] = {
            "tokenizer_config.json": {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": MAX_POSITIONS,
                "pad_token": "[PAD]" if self.is_bert else "<pad>",
            }
        }
        if self.pooling is not None:
            place = "sentence_transformers.models."
            modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
            files["modules.json"] = [
                {"idx": idx, "name": str(idx), "path": path, "type": place + kind}
                for idx, (path, kind) in enumerate(modules[: 3 if self.normalize else 2])
            ]
            flag = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}[self.pooling]
            files["1_Pooling/config.json"] = {f"pooling_mode_{flag}": True, "word_embedding_dimension": 16}
        return files

    def _weights(self, config: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        body: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
            "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
            "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
            "embeddings.LayerNorm.weight": (hidden,),
            "embeddings.LayerNorm.bias": (hidden,),
        }
        layer = {
            "attention.self.query": (hidden, hidden),
            "attention.self.key": (hidden, hidden),
            "attention.self.value": (hidden, hidden),
            "attention.output.dense": (hidden, hidden),
            "attention.output.LayerNorm": (hidden,),
            "intermediate.dense": (inner, hidden),
            "output.dense": (hidden, inner),
            "output.LayerNorm": (hidden,),
        }
        for index in range(config["num_hidden_layers"]):
            for name, size in layer.items():
                body[f"encoder.layer.{index}.{name}.weight"] = size
                body[f"encoder.layer.{index}.{name}.bias"] = size[:1]
        head: dict[str, tuple[int, ...]] = {}
        if self.architecture in ("BertModel", "BertForSequenceClassification"):
            body |= {"pooler.dense.weight": (hidden, hidden), "pooler.dense.bias": (hidden,)}
        if self.architecture == "BertForSequenceClassification":
            head = {"classifier.weight": (1, hidden), "classifier.bias": (1,)}
        elif self.architecture.endswith("ForSequenceClassification"):
            head = {"classifier.dense.weight": (hidden, hidden), "classifier.dense.bias": (hidden,)}
            head |= {"classifier.out_proj.weight": (1, hidden), "classifier.out_proj.bias": (1,)}
        prefix = "" if self.architecture.endswith("Model") else "bert." if self.is_bert else "roberta."
        shapes = {prefix + name: shape for name, shape in body.items()} | head
        random = np.random.default_rng(7)
        return {name: random.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}


EMBEDDING = [
    Tiny("bert-mean", "BertModel", pooling="mean", normalize=True),
    Tiny("bert-cls", "BertForMaskedLM", {"hidden_act": "gelu_new"}, pooling="cls"),
    Tiny("bert-max", "BertModel", pooling="max"),
    Tiny("xlm-roberta-cls", "XLMRobertaModel", pooling="cls", normalize=True),
    Tiny(
        "xlm-roberta-mean",
        "XLMRobertaForMaskedLM",
        pooling="mean",
        normalize=True,
        extra={
            "sentence_bert_config.json": {"max_seq_length": 20, "do_lower_case": False},
            "config_sentence_transformers.json": {
                "prompts": {"query": "query: ", "passage": "passage: "},
                "default_prompt_name": "query",
            },
        },
    ),
    Tiny("roberta-mean", "RobertaModel", pooling="mean"),
]

RERANK = [
    Tiny(
        "bert-cross",
        "BertForSequenceClassification",
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
    ),
    Tiny("xlm-roberta-cross", "XLMRobertaForSequenceClassification"),
    Tiny("roberta-cross", "RobertaForSequenceClassification"),
]

BY_NAME = {tiny.name: tiny for tiny in [*EMBEDDING, *RERANK]}


def _write_safetensors(path: Path, weights: Mapping[str, NDArray[np.float32]]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, weight in weights.items():
        begin, end = end, end + weight.nbytes
        header[name] = {"dtype": "F32", "shape": weight.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    data = b"".join(weight.tobytes() for weight in weights.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def _bert_vocabulary() -> dict[str, int]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *_WORDS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    return {piece: id_ for id_, piece in enumerate(pieces)}


def _bert_tokenizer() -> tokenizers.Tokenizer:
    vocabulary = _bert_vocabulary()
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return backend


def _unigram_tokenizer() -> tokenizers.Tokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*((piece, 0.0) for piece in special), ("\u2581", -3.0)]
    pieces += [(f"\u2581{word}", -4.0 - index / 10) for index, word in enumerate(_WORDS)]
    pieces += [(letter, -6.0 - index / 20) for index, letter in enumerate(_LETTERS)]
    backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=3))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.add_special_tokens(special)
    return _with_roberta_template(backend)


def _byte_tokenizer() -> tokenizers.Tokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*special, *alphabet, "th", "the", "\u0120the"]
    vocabulary = {piece: id_ for id_, piece in enumerate(pieces)}
    merges = [("t", "h"), ("th", "e"), ("\u0120", "the")]
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(special)
    return _with_roberta_template(backend)


def _with_roberta_template(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return backend
