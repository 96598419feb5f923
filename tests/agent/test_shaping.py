"""Cutting a streamed reply into pieces, and the filters that it passes on the way."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog.agent.shaping import (
    Characters,
    Markdown,
    Piece,
    Said,
    SentenceShaper,
    SpokenForms,
    TokenShaper,
    default_filters,
    each_word,
    shaper_for,
)
from dialog.agent.shaping.sentences import sentence_ends
from dialog.errors import UserCodeError

# ruff: noqa: SIM905  # lists of words are easier to read as text

# Whatever the rules look for, in pieces that may meet in any way.
FRAGMENTS = (
    *"a A I we the Dr. No. p.m. U.S. etc. vs. e.g. J. and because h Mar Jan. May one".split(),
    *"www. https:// https://x.io/a?b=1 example.com x@y.com j_d@x.org".split(),
    *"$ $5 $5.50 € 3 7:30 9-5 5% 1/2 2025-01-05 555 123-4567 (555) +1 #5 -5 21st 1990s km 12,345 007".split(),
    *"** * _ __ ` ``` ~~ [ ] ( ) ](x) # - > | |---| \\ . , ; : ! ? ... … — \u2013 ' \" \u3002 \uff01 你好 😀".split(),
    *("\u200d", "\ufe0f", "\x07", "\u00a0", "\t", "\r", " ", "  ", "\n", "\n\n", " ", " ", " "),
)
PLAIN = ("we", "open", "at", "ten", "today", "Mary", "has", "a", "good", "view", "with", "house", "January")
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join)
SPLITS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def split(text: str, sizes: list[int]) -> list[str]:
    parts: list[str] = []
    at = turn = 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        parts.append(text[at : at + size])
        at += size
        turn += 1
    return parts


def pieces_of(shaper, *texts: str) -> list[Piece]:
    return [piece for text in texts for piece in shaper.feed(text)] + list(shaper.flush())


def shape(shaper, *texts: str) -> list[str]:
    return [piece.spoken for piece in pieces_of(shaper, *texts)]


def said(filter_, text: str) -> str:
    return "".join(shape(TokenShaper((filter_,)), text))


def places(pieces: list[Piece]) -> list[tuple[str, int, int]]:
    """Every spoken character with its place in the reply; a rewritten stretch as one."""
    found: list[tuple[str, int, int]] = []
    for piece in pieces:
        at = 0
        runs = piece.runs or ((None,) if piece.spoken else ())
        for run in runs:
            size, start, end, rewritten = (
                (len(piece.spoken), piece.start, piece.end, False)
                if run is None
                else (run.size, run.start, run.end, run.rewritten)
            )
            text = piece.spoken[at : at + size]
            at += size
            if rewritten:
                found.append((text, start, end))
            else:
                found += [(char, start + index, start + index + 1) for index, char in enumerate(text)]
        assert at == len(piece.spoken)
    return found


@settings(max_examples=400)
@given(TEXTS, SPLITS)
def test_sentences_are_the_same_however_the_text_is_split(text, sizes):
    whole = pieces_of(shaper_for("sentences", normalizes=False), text)
    assert pieces_of(shaper_for("sentences", normalizes=False), *split(text, sizes)) == whole


@settings(max_examples=400)
@given(TEXTS, SPLITS)
def test_a_token_voice_is_told_the_same_however_the_text_is_split(text, sizes):
    whole = pieces_of(shaper_for("tokens", normalizes=False), text)
    assert places(pieces_of(shaper_for("tokens", normalizes=False), *split(text, sizes))) == places(whole)


@settings(max_examples=400)
@given(TEXTS, SPLITS, st.sampled_from(["tokens", "sentences"]), st.booleans())
def test_spans_follow_each_other_and_name_the_text_that_is_spoken(text, sizes, voice, normalizes):
    pieces = pieces_of(shaper_for(voice, normalizes=normalizes), *split(text, sizes))
    position = 0
    for piece in pieces:
        assert piece.spoken
        assert piece.start == position
        assert piece.end >= piece.start
        position = piece.end
        at, source = 0, piece.start
        for run in piece.runs:
            assert source <= run.start <= run.end <= piece.end
            source = max(source, run.start if run.rewritten else run.end)
            if not run.rewritten:
                assert piece.spoken[at : at + run.size] == text[run.start : run.end]
            at += run.size
        if not piece.runs:
            assert piece.spoken == text[piece.start : piece.end]
    assert position <= len(text)


@settings(max_examples=300)
@given(TEXTS, SPLITS)
def test_what_is_held_back_is_bounded(text, sizes):
    shaper = shaper_for("tokens", normalizes=False)
    fed = spoken = 0
    for part in split(text + " plain words" * 20, sizes):
        fed += len(part)
        for piece in shaper.feed(part):
            spoken = piece.end
    assert fed - spoken <= 256, "a few filters hold back their bit each"


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(PLAIN), min_size=1, max_size=20),
    st.booleans(),
)
def test_a_plain_word_passes_in_the_call_that_completes_it(words, normalizes):
    shaper = shaper_for("tokens", normalizes=normalizes)
    fed = ""
    out = ""
    for word in words:
        fed += word + " "
        out += "".join(piece.spoken for piece in shaper.feed(word + " "))
        assert out.split() == fed.split()


def test_tokens_pass_as_they_come():
    assert shape(TokenShaper(default_filters()), "We", " open", " at", " ten", ".") == [
        "We",
        " open",
        " at",
        " ten",
        ".",
    ]


@given(st.lists(st.text(alphabet="ab .,!?\n", max_size=12), max_size=20), st.booleans())
def test_without_filters_nothing_is_lost(texts, tokens):
    pieces = pieces_of(TokenShaper() if tokens else SentenceShaper(), *texts)
    whole = "".join(texts)
    spoken = "".join(piece.spoken for piece in pieces)
    assert whole.startswith(spoken)
    assert whole[len(spoken) :].strip() == ""


def test_sentences_are_cut_where_they_end():
    assert shape(SentenceShaper(), "We open at ten. Come ", "by! Or call?") == [
        "We open at ten. ",
        "Come by! ",
        "Or call?",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Miller pays 3.50 at no. 5 today. ",
        "J. R. Smith of the U.S. Army is in. ",
        "It opens at 7:30 p.m. on Monday. ",
        "Write to info@example.com or see www.example.com/a.b today. ",
        "Well... let me see. ",
        "Well\u2026 let me see. ",
        '"Really?" she said. ',
        "It is 1,000.50 dollars at 7:30. ",
        "We sell, e.g. tea, i.e. leaves, vs. coffee. ",
        "On Jan. 5 we open. ",
        "Oranges, apples etc. are in. ",
        "1. Tables for two. ",
        "He lives in St. Louis, approx. two miles off. ",
    ],
)
def test_these_are_one_sentence(text):
    assert shape(SentenceShaper(first_clause_chars=300, first_join_chars=300), text + "Next") == [text, "Next"]


@pytest.mark.parametrize(
    "text",
    [
        "No. | We are closed.",
        "It opens at 7 p.m. | Then it closes.",
        "Well... | Then come.",
        'He said "Yes." | Then he left.',
        "Really?! | Yes.",
        "So do I. | And you?",
        "Oranges, apples etc. | All are in.",
        "(We open at ten.) | Come by.",
        "Hours\n|Monday",
        "\u6211\u4eec\u5341\u70b9\u5f00\u95e8\u3002|\u597d\u5417\uff1f|\u597d\u3002",
        "\u300c\u597d\u3002\u300d|\u3067\u306f\u3002",
    ],
)
def test_these_are_several(text):
    expected = text.replace("| ", "|").split("|")
    assert shape(SentenceShaper(first_clause_chars=300), text.replace("|", "").replace("  ", " ")) == expected


def test_sentence_ends_are_told_without_the_blank_behind_them():
    assert sentence_ends("Yes. Dr. No is in! And") == [4, 18]


def test_only_the_first_piece_may_be_a_clause():
    text = "Well, on Sundays as you may know, we open at ten, and we close at noon. Bye, then."
    assert shape(SentenceShaper(), text) == [
        "Well, on Sundays as you may know, ",
        "we open at ten, and we close at noon. ",
        "Bye, then.",
    ]


def test_a_long_first_sentence_is_cut_before_a_word_that_joins():
    text = "You can bring as many friends as you like to the party because the room is large. Good."
    assert shape(SentenceShaper(), text) == [
        "You can bring as many friends as you like to the party ",
        "because the room is large. ",
        "Good.",
    ]


def test_a_date_is_no_clause():
    assert shape(SentenceShaper(), "The table is for you on January 5, 2025, at ten.")[0].endswith("2025, ")


def test_a_very_long_sentence_is_cut_at_a_space():
    pieces = shape(SentenceShaper(max_chars=50), "word " * 40)
    assert all(len(piece) <= 50 for piece in pieces)
    assert "".join(pieces) == "word " * 40


def test_a_sentence_is_ready_with_the_blank_behind_it():
    shaper = SentenceShaper()
    assert not shaper.feed("We open at ten.")
    assert [piece.spoken for piece in shaper.feed(" ")] == ["We open at ten. "]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("We are **open** *every* day, __really__ and _truly_.", "We are open every day, really and truly."),
        ("Use snake_case and 5 * 3 or 5*3, ~5.", "Use snake_case and 5 * 3 or 5*3, ~5."),
        ("## Hours\n\n- Monday\n* Tuesday\n+ Friday\n  \u2022 Sunday", "Hours\n\nMonday\nTuesday\nFriday\nSunday"),
        ("> It is ~~not~~ so\n---\nEnd", "It is not so\n\nEnd"),
        ("See [our *page*](https://x.com/a_b) now", "See our page now"),
        ("See [1] and [laughter] there", "See [1] and [laughter] there"),
        ("Run `make`:\n```sh\nmake **all**\n```\nDone", "Run make:\nmake **all**\nDone"),
        ("| Day | Open |\n|-----|:---:|\n| Mon | 9-5 |\nEnd", "Day, Open\nMon, 9-5\nEnd"),
        (r"A \*star\* and C:\dir", r"A *star* and C:\dir"),
        ("-5 degrees, #5 and a|b", "-5 degrees, #5 and a|b"),
        ("***both*** un**believ**able", "both unbelievable"),
    ],
)
def test_markdown_is_read_as_text(text, expected):
    assert said(Markdown, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi \U0001f600 there \u2764\ufe0f!", "Hi there !"),
        ("Family \U0001f468\u200d\U0001f469\u200d\U0001f467 and flag \U0001f1e9\U0001f1ea.", "Family and flag ."),
        ("Hi\U0001f600there", "Hi there"),
        ("a\x00b\x1b[c\u200b\ufeff\u00add\ud800e", "ab[cde"),
        ("a \u00a0\t b\r\n  c\u2028d", "a b\nc\nd"),
        ("1\ufe0f\u20e3 first, 20\u00b0", "1 first, 20\u00b0"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
    ],
)
def test_emoji_and_invisible_characters_are_dropped(text, expected):
    assert said(Characters, text) == expected


def test_a_user_filter_of_a_function_sees_whole_words():
    seen: list[str] = []

    def pronounce(word: str) -> str:
        seen.append(word)
        return {"SQL": "sequel"}.get(word, word)

    filters = (*default_filters(), each_word(pronounce))
    source = "We **don't** use SQL, do we?"
    for shaper in (TokenShaper(filters), SentenceShaper(filters)):
        seen.clear()
        pieces = pieces_of(shaper, *source)
        assert "".join(piece.spoken for piece in pieces) == "We don't use sequel, do we?"
        assert seen == ["We", "don't", "use", "SQL", "do", "we"]
        assert ("sequel", source.index("SQL"), source.index("SQL") + 3) in places(pieces)


def test_a_user_filter_that_is_a_class_keeps_the_spans():
    class Shout:
        def feed(self, text):
            return (Said(len(text), text.upper()),)

        def flush(self):
            return ()

    assert pieces_of(TokenShaper((Shout,)), "hi ") == [
        Piece("HI ", 0, 3, False, pieces_of(TokenShaper((Shout,)), "hi ")[0].runs)
    ]
    assert pieces_of(TokenShaper((Shout,)), "hi ")[0].runs[0].rewritten


@pytest.mark.parametrize(
    ("answer", "problem"),
    [(("changed",), "was not given"), ((Said(99, "x"),), "more than it was given"), ((Said(0, "x"),), "no characters")],
)
def test_a_user_filter_that_breaks_the_rules_is_told_how(answer, problem):
    class Broken:
        def feed(self, text):
            return answer

        def flush(self):
            return ()

    with pytest.raises(UserCodeError, match=problem):
        TokenShaper((Broken,)).feed("hello!!")


def test_spoken_forms_are_for_voices_that_do_not_normalise():
    assert "".join(shape(shaper_for("tokens"), "It is $5.")) == "It is $5."
    assert "".join(shape(shaper_for("tokens", normalizes=False), "It is $5.")) == "It is five dollars."
    assert SpokenForms not in default_filters()
