"""A row for each text."""

from carpool.runtimes.openvino.padded_batch import PaddedBatch


def test_inputs() -> None:
    arrays = PaddedBatch().inputs([[5], [6, 7, 8]], [1, 2])
    assert arrays["input_ids"].tolist() == [[5, 0, 0], [6, 7, 8]]
    assert arrays["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert arrays["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 1]]
