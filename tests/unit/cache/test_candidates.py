from carpool.cache.candidates import Rarity, collect
from carpool.cache.index import normalised
from carpool.cache.labelled import Question
from tests.unit.cache.bag_of_words import embed_text

STREAM = [
    Question("What is the average height of a tree in Norway?", 1),
    Question("What is the average height of a tree in Sweden?", 2),
    Question("What is the usual height of a tree in Norway?", 1),
    Question("What is the average height of a house in Norway?", 3),
    Question("What is the current height of a tree in Norway?", 4),
]


def test_what_is_fitted_to_is_what_could_be_served() -> None:
    vectors = {question.text: normalised(embed_text(question.text)) for question in STREAM}
    found = collect(STREAM, vectors, Rarity({}, 5.0), floor=0.5, reference=1.01)
    asked = {(question, stored) for question, (_, stored) in zip(found.questions, found.pairs, strict=True)}
    # Not Sweden with Norway, which a veto keeps apart, and nothing about now.
    assert asked == {(2, STREAM[0].text), (3, STREAM[0].text), (3, STREAM[2].text)}
    assert sorted(found.same) == [0.0, 0.0, 1.0]
    assert len(found.values) == 3
