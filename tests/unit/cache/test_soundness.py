import pytest

from carpool.cache.soundness import carries_material, matchable

SOUND = [
    "What is the largest planet of our solar system?",
    "Is it safe to eat raw eggs?",
    "How do I create a blog?",
    "Why do cats purr?",
    "Explain photosynthesis to a child.",
    "What is the average distance to the Moon in km?",
    "Who wrote Faust, and when?",
    "How long does milk last?",
    "What was the last name of Faust's author?",
    "What is the next number in the series 1, 2, 4, 8?",
    "Who are you?",
    "How does it work in a steam engine?",
]
UNSOUND = [
    "What's the weather in Oslo?",
    "Who is the current president of France?",
    "What happened in politics today?",
    "what time is it",
    "What is the latest version of Python?",
    "Any news about the strike?",
    "What should I cook tonight?",
    "Is the shop open right now?",
    "What is on TV next  Saturday?",
    "Who won last\nnight?",
    "Who won the last election?",
    "Who won the last World Cup?",
    "Where is the next World Cup held?",
    "Who was India's last prime minister?",
    "Pick a number between 1 and 10.",
    "please choose a colour for me",
    "Give me a random fact.",
    "Roll the dice!",
    "Flip a coin",
    "Continue.",
    "go on",
    "Another one, please",
    "More!",
    "Tell me more",
    "What else?",
    "try again",
    "Is this sentence grammatically correct?",
    "What is wrong in my code?",
    "What do you think about this video?",
    "Rephrase the above",
    "Give me other examples",
    "What\u2019s the time in Lima?",
    "What is that?",
    "Why?",
    "And then?",
    "What\u2019s this?",
    "How does it work?",
    "Why is it so?",
    "",
    "   ",
    "?!",
]
DEICTIC = [
    "How high is it?",
    "And what about its population?",
    "Why are cats so?",
    "Translate this into German.",
    "Who is he?",
    "The second one.",
    "yes",
    "Is that so?",
    "How about cats?",
]


@pytest.mark.parametrize("turn", SOUND)
def test_a_question_that_says_it_all(turn: str) -> None:
    assert matchable(turn, False, 400)


@pytest.mark.parametrize("turn", UNSOUND)
@pytest.mark.parametrize("follow_up", [False, True])
def test_now_chance_and_the_unsaid(turn: str, follow_up: bool) -> None:
    assert not matchable(turn, follow_up, 400)
    assert not matchable(turn.upper(), follow_up, 400)


@pytest.mark.parametrize("turn", DEICTIC)
def test_a_follow_up_that_points_at_what_was_said(turn: str) -> None:
    assert not matchable(turn, True, 400)


def test_a_follow_up_that_says_it_all() -> None:
    assert matchable("How tall is the Eiffel Tower?", True, 400)


def test_words_within_words_do_not_count() -> None:
    assert matchable("How do snowflakes form in a renewable newspaper?", False, 400)


def test_long_turns_are_exact_only() -> None:
    turn = "a" * 400
    assert matchable(turn, False, 400)
    assert not matchable(turn + "a", False, 400)


@pytest.mark.parametrize(
    "turn",
    [
        "Translate into French: good morning",
        "please translate good morning into French",
        "Could you summarise the plot of Faust?",
        "Fix the grammar of he go home",
        "Wolves live in packs. What do they eat?",
        "What do they eat?\nWolves live in packs.",
        "What does \u201cto kick the bucket\u201d mean?",
        'Is "the food was great" positive?',
        "Question: how do wolves hunt?",
    ],
)
def test_a_turn_that_carries_material(turn: str) -> None:
    assert carries_material(turn)


@pytest.mark.parametrize(
    "turn",
    [
        *SOUND,
        "How do I translate a book?",
        "What is the U.S. capital?",
        "What is a good review?",
        'What does "ephemeral" mean?',
        "Review?",
        "",
    ],
)
def test_a_turn_that_is_a_question_only(turn: str) -> None:
    assert not carries_material(turn)
