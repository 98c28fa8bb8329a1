"""Embedding and rerank models on the batching core.

    checkpoint = open_checkpoint(directory)
    tokenizer = Tokenizer.from_checkpoint(checkpoint)
    extra = SentenceTransformersConfig.read(directory)
    runtime = OpenVinoEncoder(checkpoint, extra.pooling, num_threads=2, max_tokens=extra.max_tokens)
    async with Embedder(runtime, tokenizer, EncoderConfig(), name="minilm", extra=extra) as embedder:
        embeddings = await embedder.embed(["a text", "another"])     # .vectors [2, dimensions]
        scores = await embedder.score("a query", ["a document"])     # .scores [1]

A `Reranker` scores with a cross-encoder instead, on an `OpenVinoClassifier`.

A call's way: its inputs are checked and tokenised in a thread (`input_tokenizer`, `pair_tokenizer`), queued
one by one (`batching`), batched by the `inference_engine` with other calls' inputs, and computed by the
runtime.
"""

from .config import EncoderConfig
from .cross_encoder import Activation, CrossEncoderConfig
from .embedder import Embedder, Embeddings
from .input_tokenizer import Inputs
from .reranker import Reranker
from .scores import Scores
from .sentence_transformers import SentenceTransformersConfig

__all__ = [
    "Activation",
    "CrossEncoderConfig",
    "Embedder",
    "Embeddings",
    "EncoderConfig",
    "Inputs",
    "Reranker",
    "Scores",
    "SentenceTransformersConfig",
]
