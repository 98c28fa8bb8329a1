"""The parts of byte-level BPE tokenizers, as those of GPT-2 and its successors are built from.

Sennrich et al., https://arxiv.org/abs/1508.07909, on bytes as in Radford et al., Language Models are
Unsupervised Multitask Learners (2019).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from carpool.errors import ModelFailed


def build_byte_level_bpe(
    vocab: Mapping[str, int], merges: Sequence[str], path: Path, *, ignore_merges: bool = False
) -> Tokenizer:
    """A tokenizer without a splitting rule yet; a merge is two tokens and the space between them.

    `ignore_merges`: a word that is in the vocabulary is taken whole. Raises `ModelFailed` for merges that do
    not fit the vocabulary; `path` is for the message.
    """
    pairs = [tuple(merge.split(" ")) for merge in merges]
    try:
        tokenizer = Tokenizer(models.BPE(vocab=dict(vocab), merges=pairs, ignore_merges=ignore_merges))  # type: ignore[arg-type]
    except Exception as error:  # the library raises no narrower class
        raise ModelFailed(f"{path}: the tokenizer's merges are malformed: {error}") from error
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_level(*, use_regex: bool, add_prefix_space: bool = False) -> pre_tokenizers.PreTokenizer:
    """Bytes as printable characters; `use_regex` splits by GPT-2's rule before."""
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


def begin_with(token: str, token_id: int) -> processors.PostProcessor:
    """What puts a token before every text."""
    return processors.TemplateProcessing(single=f"{token} $A", special_tokens=[(token, token_id)])
