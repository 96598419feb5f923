"""How well the front desk is understood, over mu-law at 8 kHz, in voices that it does not speak with.

The callers are formant voices, as everywhere in these tests; no figure here is about people.
"""

from __future__ import annotations

import random
import statistics
import time

import pytest

from dialog.audio.g711 import mulaw_encode
from dialog.demo.front_desk import NOT_UNDERSTOOD, VOICE, FrontDesk
from dialog.demo.phrases import GRAMMAR
from dialog.demo.script import DEMO_SCRIPT
from dialog.llm.llm import Entry, LLMRequest, ToolSpec
from dialog.llm.rules import RuleLLM
from dialog.message import MULAW_8K
from dialog.stt._sphinx_decoder import recogniser
from dialog.stt.pocketsphinx import UNCLEAR
from dialog.tts.espeak import speak

VOICES = (("en-us", 165), ("en-us+m1", 175), ("en-us+m3", 150), ("en-us+f2", 165), ("en-us-nyc", 160))
EACH = 2
"""Voices that say each sentence."""

OUTSIDE = """\
the weather is very nice today
my car has broken down on the motorway
i forgot my password again
how old is the president of france
the internet connection is very slow
can you sing me a happy birthday song
my order number is four two seven nine
please send me the invoice by email
i have lost my black umbrella
the train to london was late this morning
do you sell red shoes in my size
what is the capital of australia
i bought a new computer yesterday
turn on the light in the kitchen
my sister lives in canada
we went swimming in the lake
tell me a funny joke about cats
the doctor said i should rest
is my passport ready for collection
i would like to buy a train ticket
what are you doing on monday
can i have a bicycle for two people
do you have a swimming pool
i want to talk to a""".splitlines()
"""Nothing that the front desk knows; the last four begin as if it were."""

TOOLS = tuple(ToolSpec(name=tool, description="", parameters="{}") for tool in vars(FrontDesk))


def inside():
    """Every sentence without slots, and some of each kind with them, as far as the demo does not say them."""
    chosen, demo = [], {step.say for step in DEMO_SCRIPT}
    for number, pattern in enumerate(GRAMMAR.patterns):
        sentences = [s for s in type(GRAMMAR)((pattern,), GRAMMAR.slots).sentences if s not in demo]
        random.Random(number).shuffle(sentences)
        chosen += sentences[:8]
    return chosen


def intent(text):
    llm = RuleLLM(FrontDesk.rules, fallback=FrontDesk.fallback)
    said, calls = llm.answer(LLMRequest(items=(Entry(role="user", text=text),), tools=TOOLS))
    return said, [(call.name, call.arguments) for call in calls]


def word_errors(said, heard):
    row = list(range(len(heard) + 1))
    for line, one in enumerate(said, 1):
        diagonal, row[0] = row[0], line
        for column, other in enumerate(heard, 1):
            diagonal, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, diagonal + (one != other))
    return row[-1]


def listen(sentences):
    """What is understood of each sentence, in ``EACH`` of the voices in turn: (voice, sentence, text, ms)."""
    judge, results = recogniser(GRAMMAR), []
    for number, sentence in enumerate(sentences):
        for step in range(EACH):
            voice, rate = VOICES[(number + step * 2) % len(VOICES)]
            # What the recogniser gets: 300 ms before the voice and 200 ms after it.
            audio = (
                MULAW_8K.silence(300) + mulaw_encode(speak(sentence, voice=voice, rate=rate)) + MULAW_8K.silence(200)
            )
            start = time.perf_counter()
            heard = judge.hear(audio, MULAW_8K)
            took_ms = (time.perf_counter() - start) * 1000
            results.append((voice, sentence, heard.text or (UNCLEAR if heard.speech else ""), took_ms))
    return results


@pytest.mark.alone
@pytest.mark.timeout(180)
def test_the_grammar_is_understood_in_foreign_voices(capsys):
    sentences = inside()
    assert len(sentences) >= 50
    assert VOICE not in dict(VOICES)
    results = listen(sentences)
    errors = sum(word_errors(said.split(), [] if text == UNCLEAR else text.split()) for _, said, text, _ in results)
    words = sum(len(said.split()) for _, said, _, _ in results)
    wrong = [(voice, said, text) for voice, said, text, _ in results if intent(said) != intent(text)]
    misheard = [row for row in wrong if row[2] not in (UNCLEAR, "")]
    with capsys.disabled():
        took = [ms for *_, ms in results]
        print(f"\n\nfront desk: {len(sentences)} sentences of the grammar, {len(results)} utterances")
        for voice, _ in VOICES:
            of = [row for row in results if row[0] == voice]
            print(f"  {voice:10} {sum(said == text for _, said, text, _ in of)}/{len(of)} sentences right")
        print(f"  word error rate {errors / words:.1%}, intent accuracy {1 - len(wrong) / len(results):.1%}")
        print(f"  not understood {len(wrong) - len(misheard)}, taken for another intent {len(misheard)}")
        print(f"  decoding {statistics.median(took):.0f} ms (median), {max(took):.0f} ms at most")
        for row in wrong:
            print("   ", *row, sep=" | ")
    assert errors / words <= 0.03
    assert len(wrong) / len(results) <= 0.05
    assert len(misheard) / len(results) <= 0.03


@pytest.mark.timeout(180)
def test_what_is_outside_the_grammar_is_not_answered(capsys):
    assert len(OUTSIDE) >= 20
    assert not set(OUTSIDE) & set(GRAMMAR.sentences)
    results = listen(OUTSIDE)
    answered = [(voice, said, text) for voice, said, text, _ in results if text not in (UNCLEAR, "")]
    told = [row for row in results if row[2] == UNCLEAR]
    assert intent(UNCLEAR) == (NOT_UNDERSTOOD, [])
    with capsys.disabled():
        print(f"\n\nfront desk: {len(OUTSIDE)} sentences outside the grammar, {len(results)} utterances")
        print(f"  'did not understand' {len(told) / len(results):.1%}, answered {len(answered) / len(results):.1%}")
        for row in answered:
            print("   ", *row, sep=" | ")
    assert len(told) / len(results) >= 0.94
    assert len(answered) / len(results) <= 0.05
