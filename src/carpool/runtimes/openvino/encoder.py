"""Encoders on the CPU."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carpool.models.checkpoint import Checkpoint
from carpool.runtimes.encoder import EncoderSpec
from carpool.runtimes.openvino.bert import build_bert
from carpool.runtimes.openvino.device import Precision, compile_model
from carpool.runtimes.pooling import Pooling


class OpenVinoEncoder:
    """A BERT-family encoder with its pooling; implements `EncoderRuntime`.

    It has one inference request, reused for every batch, so calls come from one thread at a time.
    `max_tokens` lowers the longest input below what the checkpoint has positions for; `num_threads` is the
    budget of a forward pass. Raises `ModelFailed` for a checkpoint that cannot be built.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        pooling: Pooling,
        *,
        num_threads: int,
        max_tokens: int | None = None,
        precision: Precision | None = None,
    ) -> None:
        positions = int(checkpoint.config["max_position_embeddings"])
        self._spec = EncoderSpec(
            dimensions=int(checkpoint.config["hidden_size"]),
            max_tokens=positions if max_tokens is None else min(max_tokens, positions),
        )
        compiled = compile_model(
            build_bert(checkpoint, pooling), num_threads=num_threads, precision=precision
        )
        self._request = compiled.create_infer_request()
        self.encode([[0, 0]])  # the plugin packs the weights at the first call

    @property
    def spec(self) -> EncoderSpec:
        """Sizes, constant over the runtime's life."""
        return self._spec

    def encode(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Run one batch, padded to its longest sequence; returns [len(batch), dimensions].

        Every sequence has 1 to `spec.max_tokens` ids below the vocabulary's size. Releases the GIL while the
        device works.
        """
        shape = (len(batch), max(len(ids) for ids in batch))
        input_ids, attention_mask = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        for row, ids in enumerate(batch):
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
        # Without share_inputs: with it, OpenVINO 2026.4.1 corrupts the heap as shapes change.
        outputs = self._request.infer({"input_ids": input_ids, "attention_mask": attention_mask})
        vectors: NDArray[np.float32] = outputs["embeddings"]
        return vectors

    def close(self) -> None:
        """Free the memory; the encoder cannot be used any more."""
        del self._request
