"""RoBERTa as OpenVINO nodes: BERT with other positions and another head.

The architecture is that of Liu et al., https://arxiv.org/abs/1907.11692, and Conneau et al.,
https://arxiv.org/abs/1911.02116, with the tensor names of Hugging Face's `XLMRobertaModel`. Covers bge-m3's
dense vectors, multilingual-e5 and bge-reranker.
"""

import openvino as ov
from openvino import opset15 as ops

from carpool.runtimes.openvino.bert import Bert, index


class XlmRoberta(Bert):
    """The layers of a checkpoint; all tokens are of the only type there is."""

    prefix = "roberta."

    def logits(self) -> ov.Node:
        """What the head of `XLMRobertaForSequenceClassification` gives, f32 [batch, labels]."""
        first = ops.gather(self.hidden(), index(0), index(1))
        return self._linear(ops.tanh(self._linear(first, "classifier.dense")), "classifier.out_proj")

    def _places(self) -> ov.Node:
        """Positions count from the padding token's id + 1; a padding token itself is at its own id."""
        padding_id = ops.constant(int(self._checkpoint.config["pad_token_id"]), ov.Type.i32)
        counts = ops.convert(ops.not_equal(self.input_ids, padding_id), "i32")
        count = ops.multiply(ops.cum_sum(counts, ops.constant(1, ov.Type.i32)), counts)
        table = ops.add(self._table("position"), ops.gather(self._table("token_type"), index(0), index(0)))
        return ops.gather(table, ops.add(count, padding_id), index(0))
