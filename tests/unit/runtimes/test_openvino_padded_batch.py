"""A row for each text."""

from carpool.runtimes.openvino.padded_batch import PaddedBatch
from carpool.runtimes.openvino.row_cost import BY_TOKEN, IN_BLOCKS


def test_inputs() -> None:
    arrays = PaddedBatch(BY_TOKEN, 512).inputs([[5], [6, 7, 8]], [1, 2])
    assert arrays["input_ids"].tolist() == [[5, 0, 0], [6, 7, 8]]
    assert arrays["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert arrays["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 1]]


def test_whole_blocks_are_padding_too_as_far_as_the_model_has_positions() -> None:
    arrays = PaddedBatch(IN_BLOCKS, 62).inputs([[1] * 40, [1] * 44], None)
    assert arrays["input_ids"].shape == (2, 48)
    assert arrays["attention_mask"].sum(axis=1).tolist() == [40, 44]
    assert PaddedBatch(IN_BLOCKS, 62).inputs([[1] * 60], None)["input_ids"].shape == (1, 62)
    assert PaddedBatch(BY_TOKEN, 62).inputs([[1] * 60], None)["input_ids"].shape == (1, 60)
