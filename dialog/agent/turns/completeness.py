"""Does it sound finished? Judged by the text alone, for English.

The rules look for what a sentence does not end with: a conjunction, an article, "my number is", a filler,
a comma, a number that is read out in groups. Whatever shows none of these is finished, so that a short
answer ("Yeah", "two", "on Tuesday") never waits. Of other languages only the punctuation is judged.
"""

from __future__ import annotations

import re

from dialog.agent.turns.wording import spoken
from dialog.message import Utterance

__all__ = ["completeness"]

FINISHED = 1.0
PERHAPS = 0.4
UNFINISHED = 0.0

_ALWAYS = frozenset(
    [
        "and",
        "but",
        "or",
        "because",
        "although",
        "unless",
        "whereas",
        "the",
        "a",
        "an",
        "my",
        "your",
        "our",
        "their",
        "um",
        "umm",
        "uh",
        "uhh",
        "uhm",
        "er",
        "erm",
    ]
)
"""No sentence ends with these, even if the STT set a full stop."""
_ALONE = _ALWAYS | frozenset(["so", "well", "if", "it's", "i'm", "i", "that's", "like"])
"""Single words that are no answer."""
_PERHAPS = frozenset(
    [
        "to",
        "of",
        "for",
        "with",
        "at",
        "in",
        "on",
        "from",
        "by",
        "about",
        "than",
        "as",
        "if",
        "when",
        "while",
        "that",
        "which",
        "so",
        "his",
        "her",
        "it's",
        "i'm",
        "that's",
        "there's",
        "we're",
        "they're",
        "i'd",
        "i'll",
    ]
)
"""Sentences seldom end with these, and an STT that punctuates would have set a full stop."""
_BE = {"is", "are", "was", "were"}
_SHORT_ANSWER = {"it", "he", "she", "they", "we", "you", "there", "that", "this", "i", "who", "what", "how", "where"}
"""Before a final "is" or "are" these make an answer ("yes, it is"); "my number is" waits for the number."""
_ENDINGS = (
    ("i", "want"),
    ("i", "need"),
    ("would", "like"),
    ("i'd", "like"),
    ("we'd", "like"),
    ("let", "me", "see"),
    ("let", "me", "think"),
    ("let", "me", "check"),
    ("let", "me", "look"),
    ("such", "as"),
)
_LAST = {ending[-1] for ending in _ENDINGS}
_WHAT = {"what", "all", "how", "whatever"}
"""Before such an ending these make a sentence of it: "that's all I need"."""

_GOES_ON = ",;:-\u2013\u2014\u2026"
_COUNTING = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""Somebody who counts tries the line, and reads nothing out."""
_DIGITS = {"zero", "oh", "o", *_COUNTING}
_MULTIPLE = {"double", "triple"}
_NUMBER = re.compile(r"[+(]*\d[\d()-]*")
_READ_OUT = {"number", "phone", "mobile", "cell", "card", "account", "code", "reference", "digits"}
"""Somebody who says one of these is going to read out a number."""
_PHONE_DIGITS = 10
_CARD_DIGITS = 15


def completeness(utterance: Utterance) -> float:
    """The probability from 0 to 1 that the caller has nothing to add to ``utterance``."""
    text = utterance.data.strip()
    words = spoken(text)
    if not words:
        return FINISHED
    end = text[-1]
    english = utterance.language is None or utterance.language.lower().startswith("en")
    if english and len(words) == 1:
        return UNFINISHED if words[0] in _ALONE and end not in "?!" else FINISHED
    if end in _GOES_ON or text.endswith(".."):
        return UNFINISHED
    if not english or end in "?!":
        return FINISHED
    if words[-1] in _ALWAYS or _waits_for_more(words) or _in_groups(text):
        return UNFINISHED
    return PERHAPS if end != "." and words[-1] in _PERHAPS else FINISHED


def _waits_for_more(words: tuple[str, ...]) -> bool:
    if words[-1] in _BE:
        return words[-2] not in _SHORT_ANSWER
    for ending in _ENDINGS if words[-1] in _LAST else ():
        if words[-len(ending) :] == ending:
            return not _WHAT & set(words[: -len(ending)])
    return False


def _in_groups(text: str) -> bool:
    """Whether it ends within a number that is read out digit by digit or group by group."""
    tokens = text.split()
    if not _is_read_out(_bare(tokens[-1])):
        return False  # most do not, and somebody waits for an answer
    tokens = [_bare(token) for token in tokens]
    count = groups = 0
    singles: list[str] = []
    leading = False
    for token in reversed(tokens):
        if _NUMBER.fullmatch(token):
            digits = sum(character.isdigit() for character in token)
            leading = token[0] in "0+("
        elif token in _DIGITS:
            digits = 1
            leading = token in ("oh", "o", "zero")
        elif token in _MULTIPLE:
            digits = 1
            leading = False
        else:
            break
        count += digits
        groups += digits > 1
        if digits == 1:
            singles.insert(0, token)
    if not count:
        return False
    if tokens[-1] in _MULTIPLE:
        return True
    told = bool(_READ_OUT & set(tokens)) or leading
    spelled = len(singles) >= 3 and tuple(singles) != _COUNTING[: len(singles)]
    if count < (2 if told else 3) or not (told or groups > 1 or spelled):
        return False
    return count < (_CARD_DIGITS if "card" in tokens else _PHONE_DIGITS)


def _is_read_out(token: str) -> bool:
    """Whether it may be a part of a number."""
    return token in _DIGITS or token in _MULTIPLE or _NUMBER.fullmatch(token) is not None


def _bare(token: str) -> str:
    return token.strip(".,;:").lower()
