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
        """What the head of `XLMRobertaForSequenceClassification` gives, f32 [texts, labels]."""
        return self._head(ops.tanh(self._head(self.first(), "classifier.dense")), "classifier.out_proj")

    def _places(self) -> ov.Node:
        """Positions count from the padding token's id + 1; a padding token itself is at its own id.

        So a padding token within a text, which only a client's own ids can have, counts for nothing.
        """
        ids, position_ids = self._inputs["input_ids"], self._inputs["position_ids"]
        padding_id = ops.constant(int(self._checkpoint.config["pad_token_id"]), ov.Type.i32)
        counted = ops.convert(ops.not_equal(ids, padding_id), "i32")
        before = ops.cum_sum(counted, index(1), exclusive=True)
        width = ops.gather(ops.shape_of(ids), index(1), index(0))
        # For each token the column in which its text begins.
        first = ops.subtract(ops.range(index(0), width, index(1), "i32"), position_ids)
        earlier = ops.subtract(before, ops.gather_elements(before, first, 1))
        table = ops.add(self._table("position"), ops.gather(self._table("token_type"), index(0), index(0)))
        count = ops.multiply(ops.add(earlier, ops.constant(1, ov.Type.i32)), counted)
        return ops.gather(table, ops.add(count, padding_id), index(0))
