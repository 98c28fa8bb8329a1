"""Prompts made from templates: no two of a group ask the same, so a hit would be right by luck only.

This is what applications send: the same instruction with another text to it, or another question about the
same passage. All texts were written for this suite.
"""

from itertools import product

_PASSAGES = (
    "The Harbour Museum opens at nine and closes at five. Tickets are 12 euros, children pay half. The tower"
    " was built in 1874 by Ida Lund, and the clock in it still runs.",
    "The Harbour Museum opens at ten and closes at six. Tickets are 15 euros, children pay nothing. The tower"
    " was built in 1921 by Nils Berg, and the clock in it has stopped.",
    "Marta keeps eleven hens and one goat behind the mill. The hens lay about six eggs a day, which she sells"
    " on Saturdays in Brill. Her brother Tom repairs the fence.",
    "Pavel keeps forty ducks and a donkey beside the canal. The ducks lay about thirty eggs a day, which he"
    " sells on Tuesdays in Thame. His sister Ann paints the shed.",
)
_ABOUT_MUSEUM = (
    "When does the museum open?",
    "When does the museum close?",
    "How much is a ticket for an adult?",
    "How much is a ticket for a child?",
    "Who built the tower?",
    "When was the tower built?",
    "Does the clock run?",
)
_ABOUT_FARM = (
    "How many animals lay eggs?",
    "How many eggs are laid a day?",
    "Where are the eggs sold?",
    "On which day are the eggs sold?",
    "Who helps the farmer?",
    "What does the farmer's sibling do?",
    "Where are the animals kept?",
)
_REVIEWS = (
    "The soup was cold and the waiter rude.",
    "The soup was hot and the waiter kind.",
    "We waited an hour for a table we had booked.",
    "We got the table we had booked at once.",
    "Best noodles in town, and cheap.",
    "Worst noodles in town, and dear.",
    "It is a restaurant. It has chairs.",
    "I would come back any day.",
    "I would not come back for free.",
    "The terrace is lovely, the kitchen is not.",
)
_SENTENCES = (
    "The train leaves from platform four.",
    "The train leaves from platform nine.",
    "My sister plays the violin.",
    "My brother plays the violin.",
    "My sister plays the cello.",
    "Please close the window, it is cold.",
    "Please open the window, it is warm.",
    "The cat follows the dog.",
    "The dog follows the cat.",
    "We will meet before lunch.",
    "We will meet after lunch.",
)
_LANGUAGES = ("French", "German", "Spanish", "Portuguese", "Dutch", "Danish", "Norwegian")
_NOTES = (
    "Ms Okafor flew from Lagos to Lisbon on Monday.",
    "Ms Okafor flew from Lisbon to Lagos on Monday.",
    "Mr Haugen flew from Bergen to Oslo on Friday.",
    "Mr Haugen took the train from Bergen to Oslo on Friday.",
    "Dr Castro met Ms Ito in Kyoto to sign the lease.",
    "Dr Ito met Ms Castro in Kyoto to sign the lease.",
    "Invoice 4471 over 310 euros is due on 3 May.",
    "Invoice 4417 over 310 euros is due on 3 May.",
    "Invoice 4471 over 310 euros is due on 5 March.",
)
_TASKS = (
    "reverses a string",
    "reverses a list",
    "reverses the words of a sentence",
    "sorts a list of tuples by the first item",
    "sorts a list of tuples by the second item",
    "sorts a list of numbers in ascending order",
    "sorts a list of numbers in descending order",
    "reads a CSV file into a list of dicts",
    "writes a list of dicts to a CSV file",
    "converts Celsius to Fahrenheit",
    "converts Fahrenheit to Celsius",
    "encodes bytes as base64",
    "decodes base64 to bytes",
)
_ERRORS = (
    "ENOENT: no such file or directory",
    "EACCES: permission denied",
    "EADDRINUSE: address already in use",
    "ECONNREFUSED: connection refused",
    "ECONNRESET: connection reset by peer",
    "EPIPE: broken pipe",
    "EMFILE: too many open files",
)
_SPELLED = (
    "convert_to_upper()",
    "convert_to_lower()",
    "user.get_name()",
    "user.get_names()",
    "user.set_name()",
    "list_a + list_b",
    "list_a - list_b",
    "x if y else z",
    "z if y else x",
)


def _made(template: str, *parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(template.format(*choice) for choice in product(*parts))


GROUPS: dict[str, tuple[str, ...]] = {
    "rag, passage first": (
        *_made("Context: {}\n\nQuestion: {}", _PASSAGES[:2], _ABOUT_MUSEUM),
        *_made("Context: {}\n\nQuestion: {}", _PASSAGES[2:], _ABOUT_FARM),
    ),
    "rag, question first": (
        *_made("Answer from the text only. {1}\n\n{0}", _PASSAGES[:2], _ABOUT_MUSEUM),
        *_made("Answer from the text only. {1}\n\n{0}", _PASSAGES[2:], _ABOUT_FARM),
    ),
    "classify": _made("Is this review positive, negative or neutral? Review: {}", _REVIEWS),
    "classify, text first": _made('"{}" Is that review positive, negative or neutral?', _REVIEWS),
    "classify, one line": _made("Classify the sentiment of the following review {}", _REVIEWS),
    "translate": _made("Translate into {}: {}", _LANGUAGES, _SENTENCES),
    "translate, text first": _made("{1} How do you say that in {0}?", _LANGUAGES, _SENTENCES),
    "extract": _made("Extract all names, places and dates from this note as JSON: {}", _NOTES),
    "extract one": _made("Which {} does this note name? {}", ("person", "place", "day", "number"), _NOTES),
    "summarise": _made("Summarise the following in one sentence.\n{}", _PASSAGES),
    "code": _made("Write a function in {} that {}.", ("Python", "Ruby", "Go", "Java", "C", "C++"), _TASKS),
    "errors": _made("My program ends with {}. What does it mean?", _ERRORS),
    "identifiers": _made("What does {} do in this program?", _SPELLED),
}
