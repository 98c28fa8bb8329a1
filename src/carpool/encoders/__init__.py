"""Embedding and rerank models on the batching core.

    checkpoint = open_checkpoint(directory)
    extra = SentenceTransformersConfig.read(directory)
    runtime = OpenVinoEncoder(checkpoint, extra.pooling, num_threads=2, max_tokens=extra.max_tokens)
    embedder = Embedder(runtime, Tokenizer.from_checkpoint(checkpoint), EncoderConfig(), name="minilm",
                        prompt=extra.default_prompt, lower_case=extra.lower_case)
    async with embedder:
        embeddings = await embedder.embed(["a text", "another"])     # .vectors [2, dimensions]

A call's way: `input_tokenizer` checks and tokenises the inputs in its thread, `embedder` queues them one by
one, the `inference_engine` batches them with other calls' inputs of similar length, and the runtime computes.
"""

from .config import EncoderConfig
from .embedder import Embedder, Embeddings
from .input_tokenizer import Inputs
from .sentence_transformers import SentenceTransformersConfig

__all__ = ["Embedder", "Embeddings", "EncoderConfig", "Inputs", "SentenceTransformersConfig"]
