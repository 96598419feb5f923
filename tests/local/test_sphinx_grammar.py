"""Grammars: patterns with slots as a closed list of sentences."""

from __future__ import annotations

import pytest

from dialog.demo.phrases import GRAMMAR
from dialog.errors import ConfigurationError
from dialog.stt.grammar import Grammar
from dialog.stt.pocketsphinx import check_grammar


def test_slots_are_expanded_in_order():
    grammar = Grammar(("a table for {n} at {t}", "goodbye now"), {"n": ("two", "three"), "t": ("seven thirty",)})
    assert grammar.sentences == ("a table for two at seven thirty", "a table for three at seven thirty", "goodbye now")
    assert grammar.words == frozenset(["a", "table", "for", "two", "three", "at", "seven", "thirty", "goodbye", "now"])
    assert "<n> = two | three ;" in grammar.jsgf()
    assert "public <sentence> = a table for <n> at <t> | goodbye now ;" in grammar.jsgf()


@pytest.mark.parametrize(
    ("patterns", "slots", "message"),
    [
        ((), {}, "at least one"),
        (("Hello there",), {}, "Hello there"),
        (("table for 4",), {}, "table for 4"),
        (("hello  there",), {}, "single spaces"),
        (("a | b",), {}, "lower-case"),
        (("open on {day}",), {}, "{day}"),
        (("open on {day}",), {"day": ("Monday",)}, "Monday"),
        (("{a} {a} {a} {a} {a}",), {"a": ("one", "two", "three", "four", "five", "six")}, "5000"),
    ],
)
def test_a_grammar_that_is_not_well_formed_is_refused(patterns, slots, message):
    with pytest.raises(ConfigurationError, match=message):
        Grammar(patterns, slots)


def test_a_word_without_pronunciation_is_named():
    with pytest.raises(ConfigurationError, match="frumbling"):
        check_grammar(["please stop frumbling"])
    check_grammar(Grammar(("please stop frumbling",), {}, {"frumbling": ("F R AH M B L IH NG",)}))


def test_the_demo_grammar_can_be_recognised():
    assert check_grammar(GRAMMAR) is GRAMMAR
    assert 400 < len(GRAMMAR.sentences) < 700
    assert all(len(sentence.split()) >= 4 for sentence in GRAMMAR.sentences), "short ones collide"
