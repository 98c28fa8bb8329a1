from carpool.cache.labelled import Pair, streams

PAIRS = [
    Pair("a b?", "b a?", True),
    Pair("b a?", "A  B!", False),
    Pair("c", "d", False),
    Pair("e", "f", True),
    Pair("f", "g", True),
]


def test_questions_that_are_the_same_are_of_one_cluster() -> None:
    (stream,) = streams(PAIRS, length=100)
    cluster = {question.text: question.cluster for question in stream}
    assert len(stream) == len(cluster) == 8
    assert cluster["a b?"] == cluster["b a?"] == cluster["A  B!"]  # which differs in case and spaces only
    assert cluster["e"] == cluster["f"] == cluster["g"]
    assert cluster["c"] != cluster["d"]
    assert len(set(cluster.values())) == 4


def test_connected_questions_are_in_one_stream_and_the_order_is_fixed_by_the_seed() -> None:
    made = streams(PAIRS, length=1)
    assert sorted(sorted(question.text for question in stream) for stream in made) == [
        ["A  B!", "a b?", "b a?"],
        ["c", "d"],
        ["e", "f", "g"],
    ]
    assert streams(PAIRS, length=1) == made
