"""Questions of which one has the opposite of a word in the other."""

from carpool.cache.difference import words

_ANTONYMS = """
    win/lose won/lost winner/loser buy/sell bought/sold increase/decrease rise/fall gain/lose before/after
    open/close start/stop begin/end enable/disable import/export hot/cold warm/cool upload/download
    encrypt/decrypt encode/decode compress/decompress activate/deactivate add/remove add/subtract
    multiply/divide plus/minus push/pull send/receive accept/reject allow/forbid borrow/lend love/hate
    maximum/minimum max/min maximize/minimize highest/lowest high/low large/small big/small long/short
    tall/short fast/slow old/new old/young more/less more/fewer most/least many/few best/worst better/worse
    good/bad first/last early/late earlier/later ascending/descending left/right above/below up/down on/off
    inside/outside true/false positive/negative even/odd strong/weak rich/poor wet/dry full/empty
    advantage/disadvantage pro/con benefit/risk useful/useless harmful/harmless north/south east/west
    internal/external input/output
"""


def _forms(word: str) -> list[str]:
    """A word and what it may inflect to, real or not: `stop`, `stops`, `stopped`, `stoping`."""
    stems = (word, word + word[-1], word.removesuffix("e"))
    return [word] + [stem + suffix for stem in stems for suffix in ("s", "ed", "ing", "er", "est")]


_SIDES = [tuple(frozenset(_forms(word)) for word in pair.split("/")) for pair in _ANTONYMS.split()]


def opposite(first: str, second: str) -> bool:
    """Whether one question has a word and the other its antonym; not where one has both."""
    a, b = set(words(first)), set(words(second))
    sides = ({(bool(one & text), bool(other & text)) for text in (a, b)} for one, other in _SIDES)
    return {(True, False), (False, True)} in sides
