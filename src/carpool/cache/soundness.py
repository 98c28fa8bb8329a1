"""Which questions may be answered by the answer to a similar one.

Similar questions have equal answers only where the question says all there is to know. A question about now
("today's news", "the last election"), about chance ("pick a random city") or about something unsaid ("another
one, please") is therefore answered by exact repetition alone.

The word lists are English. They err on the side of a miss ("electric current" counts as about now), and a
question in another language passes them unseen.
"""

import re
from functools import lru_cache

from carpool.cache.difference import words

# Alternatives of verbose regular expressions: white space is layout, [ ] is a space.
_TIMELESS = r"""
    names? | words? | letters? | digits? | numbers? | lines? | pages? | chapters? | books? | steps? | stages?
    | theorem | thing | resort | time | seen | will | of | to
"""
"""What "the last" and "the next" may go with where the answer stays."""
_NOW = rf"""
    today\w* | tonight\w* | tomorrow\w* | yesterday\w* | now | nowadays | current(?:ly)? | latest | newest
    | recent(?:ly)? | presently | upcoming | up[ ]to[ ]date | so[ ]far | still | yet | ago | weather
    | forecast | news | headlines? | trending | at[ ](?:the|this)[ ]moment | at[ ]present | this[ ]time
    | (?:this|these|next|last|past|coming)[ ](?:few[ ])?(?:minute|hour|day|night|morning|afternoon|evening
    |weekend|week|month|quarter|season|semester|year|decade|(?:mon|tues|wednes|thurs|fri|satur|sun)day)s?
    | (?:the|this|a|'s|won|in|our|their|its|his|her)[ ](?:very[ ])?(?:last|next|previous|coming)[ ]
      (?!(?:{_TIMELESS})\b)\w+
    | what[ ](?:time|day|date|year)[ ]is | what(?:'s|[ ]is)[ ]the[ ](?:time|date)
"""
_CHANCE = r"""
    random\w* | shuffl\w* | dice | flip[ ]a[ ]coin | toss[ ]a[ ]coin | coin[ ](?:flip|toss) | surprise[ ]me
"""
_UNSAID = r"""
    continue | go[ ](?:on|ahead) | carry[ ]on | keep[ ]going | proceed | elaborate | (?:tell|show)[ ]me[ ]more
    | (?:one|some|any|two|three|few)[ ]more | more[ ](?:please|examples?|details?|ideas?|options?) | again
    | (?:another|other)[ ](?:one|example|idea|option|joke|story|poem|name|answer|version|way)s?
    | (?:what|who|where|how|anything|something)[ ]else | rewrite | rephrase | reword | regenerate | retry
    | redo | shorten | (?:the|as)[ ](?:above|former|latter) | the[ ]previous
    | you[ ](?:just[ ])?(?:said|wrote)
"""
_SHOWN = r"""
    (?:this|these|that|those|following|below|attached|my|our)[ ]
    (?:sentence|word|phrase|text|passage|paragraph|essay|article|document|file|code|program|function|script
    |query|error|message|email|letter|picture|photo|image|video|song|chart|table|equation|problem
    |question|quiz|riddle|exercise|homework|assignment|resume|cv|data)s?
"""
_DEICTIC = r"""
    it | its | it's | itself | this | that | that's | these | those | they | they're | them | their | theirs
    | he | she | him | his | her | hers | there | here | ones? | so | then | too | also | instead | both
    | either | neither | first | second | third | last | next | yes | no | ok | okay | sure | and | but
    | above | below | earlier | same | such | more | another | others? | else | you | your | what[ ]about
    | how[ ]about | why
"""
_AT_START = r"""
    another | others? | more | else | (?:please[ ])?(?:pick | choose | guess | think[ ]of)
"""

_POINTING = """
    it its it's this that that's these those they they're them their he she him his her there here so one ones
    what what's who who's whose where when why how which much many long old far is are was were am be do does
    did has have had can could will would should may must and but or not no yes ok okay then also too the a an
    of to for in on at with about like mean means work works happen happens happened done made go really
    exactly true possible i we
"""
_NAMES_NOTHING = frozenset(_POINTING.split())
"""A turn of these words alone that points at something does not name it, wherever it stands."""

_TASKS = r"""
    translate | classify | categori[sz]e | label | tag | summari[sz]e | extract | rewrite | rephrase
    | paraphrase | proofread | correct | fix | edit | improve | write | draft | compose | generate | create
    | implement | complete | convert | format | parse | detect | identify | count | sort | calculate | compute
    | evaluate | simplify | solve | answer | reply | respond | analy[sz]e | compare | given | context | text
    | review | input | question
"""
"""What a turn begins with that hands over something to work on."""

_TURNS = 1024
"""Turns that are remembered with what was found of them."""

_MATERIAL = re.compile(
    rf"""
    ^\W*(?:(?:please|kindly|(?:can|could|would)[ ]you|now)[ ])*(?:{_TASKS})\b (?!\?)
    | \w[^\n]*\n\s*\S                                   # lines
    | ["\u201c\u00ab](?:[^"\u201d\u00bb]*\s){{2}}           # a quotation of three words or more
    | \w:\s+\S+\s+\S+\s+\S                                # something after a colon
    | \w\w[.!?]["\u201d]?\s+(?:\S+\s+){{2}}               # a second sentence
    """,
    re.IGNORECASE | re.VERBOSE,
)

_ALWAYS = re.compile(
    rf"\b(?:{_NOW}|{_CHANCE}|{_UNSAID}|{_SHOWN})\b | ^\W*(?:{_AT_START})\b", re.IGNORECASE | re.VERBOSE
)
_IN_FOLLOW_UP = re.compile(rf"\b(?:{_DEICTIC})\b", re.IGNORECASE | re.VERBOSE)


@lru_cache(_TURNS)
def carries_material(turn: str) -> bool:
    """Whether a turn holds what it is to be done with: a passage, a quotation, the rest of a template.

    There every word counts, and neither an embedding nor a probability fitted to questions sees which.
    """
    return _MATERIAL.search(turn) is not None


def matchable(turn: str, follow_up: bool, max_chars: int) -> bool:
    """Whether a user's turn may be answered by the answer to a similar one.

    `follow_up`: there are earlier turns, to which a "that" in any question may point.
    """
    return len(turn) <= max_chars and _matchable(turn, follow_up)


@lru_cache(_TURNS)
def _matchable(turn: str, follow_up: bool) -> bool:
    found = words(turn)
    plain = " ".join(turn.replace("\u2019", "'").split())
    if not found or _ALWAYS.search(plain):
        return False
    return not (follow_up or _NAMES_NOTHING.issuperset(found)) or not _IN_FOLLOW_UP.search(plain)
