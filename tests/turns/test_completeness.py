"""What sounds finished, and what does not."""

from __future__ import annotations

import pytest
from turn_calls import utterance

from dialog.agent.turns.completeness import completeness
from dialog.agent.turns.wording import consists_of, spoken

FINISHED = [
    "Yeah.",
    "yes",
    "No",
    "two",
    "Tuesday",
    "okay,",
    "uh-huh",
    "What?",
    "At seven thirty",
    "on Tuesday",
    "Book a table for two",
    "Yes, it is",
    "That's all I need",
    "what do you want",
    "I know what it is",
    "It is two hundred and five",
    "at 7:30",
    "in 2025",
    "555",
    "room 204",
    "one two three",
    "one two three four",
    "What is it for?",
    "my number is 212 555 0199",
    "my number is oh one seven six three two one four five six",
    "",
]
UNFINISHED = [
    "my number is",
    "My number is.",
    "I would like",
    "I want",
    "a table for two and",
    "A table for two, and.",
    "well, um",
    "um",
    "and",
    "so",
    "I'd like the",
    "let me think",
    "it's the one with,",
    "I was wondering...",
    "I was wondering\u2026",
    "oh seven seven",
    "my number is 555",
    "my number is five five",
    "0176 32",
    "nine double",
    "my card is 4242 4242 4242",
    "five five two",
]


@pytest.mark.parametrize("text", FINISHED)
def test_it_sounds_finished(text):
    assert completeness(utterance(text)) == 1.0


@pytest.mark.parametrize("text", UNFINISHED)
def test_it_sounds_unfinished(text):
    assert completeness(utterance(text)) == 0.0


@pytest.mark.parametrize("text", ["I am looking for", "I think that", "because it's"])
def test_it_is_perhaps_finished_if_the_stt_does_not_punctuate(text):
    assert 0.0 < completeness(utterance(text)) < 0.5
    assert completeness(utterance(text + ".")) == 1.0


def test_of_other_languages_only_the_punctuation_is_judged():
    assert completeness(utterance("was ist das so", language="de")) == 1.0
    assert completeness(utterance("ich h\u00e4tte gern,", language="de-AT")) == 0.0
    assert completeness(utterance("I want", language="en-GB")) == 0.0


def test_words_are_compared_without_case_punctuation_and_hyphens():
    assert spoken("Uh-huh, I\u2019m HERE!") == ("uh", "huh", "i'm", "here")
    assert spoken("?!") == ()


def test_phrases_in_any_order_and_number():
    phrases = ("uh-huh", "okay", "I see", "see you")
    assert consists_of("Okay, okay. I see", phrases)
    assert consists_of("uh huh", phrases)
    assert consists_of("I see you", ("I see", "I", "see you"))
    assert not consists_of("okay but", phrases)
    assert not consists_of("I", phrases)
    assert not consists_of("", phrases)
    assert not consists_of("okay", ())
