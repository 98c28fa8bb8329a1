"""Text to token ids and back."""

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from carpool.errors import InvalidRequest, ModelFailed
from carpool.models.checkpoint import Checkpoint
from carpool.models.directory import read_json_object
from carpool.models.gguf import GgufCheckpoint
from carpool.models.gguf_tokenizer import build_from_gguf
from carpool.models.gpt2_tokenizer import build_gpt2_tokenizer
from carpool.models.known_words import KnownWords
from carpool.models.pair_template import PairTemplate
from carpool.models.text_cut import CHARS_PER_TOKEN, MAX_CHARS_PER_TOKEN, SLACK_TOKENS, TextCut
from carpool.models.token_bytes import TokenBytes

GUARD = "\ufdd0"
"""Put into a special token's text to make it ordinary text; `encode` drops it. A Unicode noncharacter, so no
text that is meant to be exchanged contains it."""

_END_OF_TURN = frozenset(
    {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>"}
)
"""Special tokens which end an answer in every model that has them, though not every model declares them."""

_SPANS_WORDS = re.compile(rb"[^\t-\r ][\t-\r ]+[^\t-\r ]")


@dataclass(frozen=True, slots=True)
class _ByteLevel:
    """What bounds the tokens of a text from below, for byte-level BPE that keeps the text as it is."""

    longest: int
    """Bytes of the longest token."""
    dropped: bytes
    """Bytes without a token, which the backend leaves out."""
    spans_words: bool
    """Whether some token holds parts of two words."""


class Tokenizer:
    """A model's tokenizer with its special tokens; safe to use from several threads.

    `to_json` and `from_json` carry it to another process.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        bos_token: str | None = None,
        eos_token: str | None = None,
        end_ids: Sequence[int] = (),
    ) -> None:
        backend.no_padding()
        backend.no_truncation()
        added = backend.get_added_tokens_decoder()
        specials = {id_: token.content for id_, token in added.items() if token.special}
        declared = [*end_ids, *(id_ for id_, content in specials.items() if content in _END_OF_TURN)]
        if eos_token is not None and (eos_id := backend.token_to_id(eos_token)) is not None:
            declared.append(eos_id)
        self.bos_token = bos_token
        self.eos_token = eos_token
        self.special_ids = frozenset(specials)
        self.end_ids = frozenset(declared)
        """Tokens after which an answer is over."""
        self._backend = backend
        self._known_words = KnownWords.of(backend)
        longest_first = sorted(specials.items(), key=lambda item: len(item[1]), reverse=True)
        self._special = re.compile("|".join(re.escape(content) for _, content in longest_first) or r"(?!)")
        self._special_start = re.compile(f"(?=(?:{self._special.pattern}))(?s:.)")
        self._special_id = {content: id_ for id_, content in specials.items()}

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> "Tokenizer":
        """The tokenizer that belongs to a checkpoint. Raises `ModelFailed` for an unsupported kind."""
        if not isinstance(checkpoint, GgufCheckpoint):
            return cls._from_directory(checkpoint.path, checkpoint.config)
        backend = build_from_gguf(checkpoint.metadata, checkpoint.path)
        bos_id, eos_id = (checkpoint.config[f"{name}_token_id"] for name in ("bos", "eos"))
        return cls(
            backend,
            bos_token=None if bos_id is None else backend.id_to_token(bos_id),
            eos_token=None if eos_id is None else backend.id_to_token(eos_id),
        )

    @classmethod
    def _from_directory(cls, directory: Path, config: Mapping[str, Any]) -> "Tokenizer":
        settings = _optional(directory / "tokenizer_config.json")
        backend = _read_backend(directory, config, settings)
        generation = _optional(directory / "generation_config.json")
        end_ids: list[int] = []
        for value in (config.get("eos_token_id"), generation.get("eos_token_id")):
            values = value if isinstance(value, list) else [value]
            end_ids += [id_ for id_ in values if type(id_) is int and id_ >= 0]
        return cls(
            backend,
            bos_token=_token_text(settings.get("bos_token")),
            eos_token=_token_text(settings.get("eos_token")),
            end_ids=end_ids,
        )

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        """Rebuild what `to_json` gave."""
        state = json.loads(text)
        backend = tokenizers.Tokenizer.from_str(state.pop("backend"))
        return cls(backend, **state)

    def to_json(self) -> str:
        """Everything `from_json` needs, a few megabytes."""
        return json.dumps(
            {
                "backend": self._backend.to_str(),
                "bos_token": self.bos_token,
                "eos_token": self.eos_token,
                "end_ids": sorted(self.end_ids),
            }
        )

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included; the model's own may be larger."""
        return self._backend.get_vocab_size()

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text.

        `add_special_tokens` adds what the model expects around a plain text, such as BOS or [CLS] and [SEP];
        a rendered chat template has them already. Special tokens written out in the text become special
        tokens, except where `guard` was applied. Raises `InvalidRequest` for text that is not Unicode.
        """
        return self.encode_batch([text], add_special_tokens)[0]

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[list[int]]:
        """Token ids of several texts; releases the GIL for all but words it remembers."""
        if self._known_words is None:
            return self._encode_anew(texts, add_special_tokens)
        known = [self._known_words.encode(text, add_special_tokens) for text in texts]
        rest = [text for text, ids in zip(texts, known, strict=True) if ids is None]
        anew = iter(self._encode_anew(rest, add_special_tokens) if rest else [])
        return [next(anew) if ids is None else ids for ids in known]

    def _encode_anew(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        try:
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        except (TypeError, UnicodeError) as error:
            raise InvalidRequest("the text holds unpaired surrogates, which are not valid Unicode") from error
        return [
            self._encode_guarded(text, add_special_tokens) if GUARD in text else encoding.ids
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def guard(self, text: str) -> str:
        """The text, marked so that special tokens written out in it are encoded as ordinary text."""
        return self._special_start.sub(lambda match: match[0] + GUARD, text)

    def special_ids_of(self, texts: Iterable[str]) -> dict[str, int]:
        """The ids of those texts that are special tokens."""
        return {text: self._special_id[text] for text in texts if text in self._special_id}

    def certainly_exceeds(self, text: str, num_tokens: int) -> bool:
        """Whether a text surely has more than `num_tokens` tokens; far cheaper than to encode it.

        Each token covers at most `longest_token` bytes and one word. False where nothing is known, which is
        so of every tokenizer but byte-level BPE without a normalizer.
        """
        bounds = self._byte_level
        if bounds is None or len(text) <= num_tokens:
            return False
        data = text.replace(GUARD, "").encode(errors="ignore").translate(None, bounds.dropped)
        if len(data) > num_tokens * bounds.longest:
            return True
        return not bounds.spans_words and len(data.split(None, num_tokens)) > num_tokens

    def encode_beginnings(
        self, texts: Sequence[str], num_tokens: int, add_special_tokens: bool = True
    ) -> list[tuple[list[int], bool]]:
        """Token ids of each text, and whether they are all of them; far cheaper than to encode long texts.

        Of a long text at least the first `num_tokens` are there and right, special tokens included, unless it
        has fewer in its first 256 characters for each of them, and what follows is not looked at.
        """
        wanted = num_tokens + SLACK_TOKENS
        size = CHARS_PER_TOKEN * wanted
        looked_at = [text[: MAX_CHARS_PER_TOKEN * num_tokens] for text in texts]
        found: list[tuple[list[int], bool]] = [([], False)] * len(texts)
        open_ = list(range(len(texts)))
        while open_:
            parts = [self._cut.beginning(looked_at[index], size) for index in open_]
            encoded = self.encode_batch(parts, add_special_tokens)
            for index, part, ids in zip(open_, parts, encoded, strict=True):
                found[index] = (ids, len(part) == len(texts[index]))
            open_ = [
                index
                for index, part in zip(open_, parts, strict=True)
                if len(part) < len(looked_at[index]) and len(found[index][0]) < wanted
            ]
            size *= 4
        return found

    @functools.cached_property
    def pair_template(self) -> PairTemplate:
        """How two texts are put into one sequence. Raises `ModelFailed` where they are not."""
        return PairTemplate.of(self._backend)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids; bytes that are not UTF-8 become U+FFFD."""
        return self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    @functools.cached_property
    def token_bytes(self) -> TokenBytes:
        """The bytes each token stands for. Raises `ModelFailed` where tokens are no pieces of bytes."""
        return TokenBytes(self._backend)

    @property
    def longest_token(self) -> int | None:
        """Bytes of text that a token covers at most; None where that is not known."""
        return None if self._byte_level is None else self._byte_level.longest

    @functools.cached_property
    def _byte_level(self) -> _ByteLevel | None:
        """None for a backend that may shorten a text or let a token swallow any number of spaces."""
        backend = self._backend
        if backend.normalizer is not None or backend.pre_tokenizer is None:
            return None
        splitting = json.loads(backend.pre_tokenizer.__getstate__())
        steps = splitting.get("pretokenizers", [splitting])
        keeps_text = {step["type"] for step in steps} <= {"Digits", "ByteLevel", "Split"} and all(
            step.get("behavior") != "Removed" for step in steps
        )
        strips = any(token.lstrip or token.rstrip for token in backend.get_added_tokens_decoder().values())
        is_byte_level = isinstance(backend.model, tokenizers.models.BPE) and steps[-1]["type"] == "ByteLevel"
        if strips or not (keeps_text and is_byte_level):
            return None
        tokens = [self.token_bytes[id_] for id_ in backend.get_vocab().values()]
        alphabet = {token[0] for token in tokens if len(token) == 1}
        return _ByteLevel(
            longest=max(map(len, tokens)),
            dropped=bytes(byte for byte in range(256) if byte not in alphabet),
            spans_words=any(map(_SPANS_WORDS.search, tokens)),
        )

    @functools.cached_property
    def _cut(self) -> TextCut:
        return TextCut(self._backend)

    @functools.cached_property
    def _literal_backend(self) -> tokenizers.Tokenizer:
        """A copy that knows no special tokens: the setting belongs to the whole object, not to a call."""
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        backend.encode_special_tokens = True
        return backend

    def _encode_guarded(self, text: str, add_special_tokens: bool) -> list[int]:
        """Encode special tokens without a guard as themselves and everything between them as ordinary text.

        That is how the backend works too: it splits at special tokens before anything else. (It may also drop
        spaces beside some special tokens; where a client writes out special tokens they are kept.)
        """
        ids: list[int] = []
        end = 0
        for match in self._special.finditer(text):
            ids += self._encode_literally(text[end : match.start()])
            ids.append(self._special_id[match[0]])
            end = match.end()
        ids += self._encode_literally(text[end:])
        if add_special_tokens:
            around = self._backend.encode("", add_special_tokens=True).ids
            ids = around[:1] + ids + around[1:]
        return ids

    def _encode_literally(self, text: str) -> list[int]:
        return self._literal_backend.encode(text.replace(GUARD, ""), add_special_tokens=False).ids


def _read_backend(
    directory: Path, config: Mapping[str, Any], settings: Mapping[str, Any]
) -> tokenizers.Tokenizer:
    path = directory / "tokenizer.json"
    if path.exists():
        try:
            return tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises no narrower class
            raise ModelFailed(f"{path} cannot be read: {error}") from error
    backend = build_gpt2_tokenizer(directory, config, settings)
    if backend is None:
        raise ModelFailed(f"{directory} has no tokenizer.json")
    return backend


def _optional(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.exists() else {}


def _token_text(value: Any) -> str | None:
    """A token as tokenizer_config.json has it: its text, or an object with its text."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
