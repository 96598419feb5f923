"""Who hears the caller start and stop: every mode with every kind of recogniser."""

from __future__ import annotations

from itertools import product

import pytest

from dialog.agent.vadmode import Listening, VADMode, choose_vad
from dialog.errors import ConfigurationError
from dialog.stt.deepgram import DeepgramSTT
from dialog.stt.pocketsphinx import PocketsphinxSTT
from dialog.stt.stt import STTCapabilities

FULL = STTCapabilities(speech_events=True, manual_turns=True)
FIXED = STTCapabilities(speech_events=True)
WORDS_ONLY = STTCapabilities()
BARE = STTCapabilities(endpointing=False, manual_turns=True)

PROVIDER = Listening(local_vad=False, endpointing="provider")
BARGE_IN = Listening(local_vad=True, endpointing="provider")
LOCAL = Listening(local_vad=True, endpointing="local")


@pytest.mark.parametrize(
    ("mode", "stt", "expected"),
    [
        ("auto", FULL, PROVIDER),
        ("auto", FIXED, PROVIDER),
        ("auto", WORDS_ONLY, BARGE_IN),
        ("auto", BARE, LOCAL),
        ("auto", None, PROVIDER),
        ("local", FULL, LOCAL),
        ("local", BARE, LOCAL),
        ("local", None, PROVIDER),
        ("provider", FULL, PROVIDER),
        ("provider", FIXED, PROVIDER),
    ],
)
def test_what_can_be_had_is_taken(mode: VADMode, stt: STTCapabilities | None, expected: Listening) -> None:
    assert choose_vad(mode, stt) == choose_vad(mode, stt, strict=True) == expected


@pytest.mark.parametrize(
    ("mode", "stt", "have_local", "local_vad", "why"),
    [
        ("local", FIXED, True, True, "the provider ends the caller's turns"),
        ("local", WORDS_ONLY, True, True, "the provider ends the caller's turns"),
        ("local", FULL, False, False, "there is no local VAD"),
        ("provider", WORDS_ONLY, True, False, "only words interrupt"),
    ],
)
def test_what_cannot_be_had_falls_back_or_is_refused(
    mode: VADMode, stt: STTCapabilities, have_local: bool, local_vad: bool, why: str
) -> None:
    chosen = choose_vad(mode, stt, have_local=have_local)
    assert (chosen.local_vad, chosen.endpointing) == (local_vad, "provider")
    assert why in chosen.warning
    with pytest.raises(ConfigurationError, match=why):
        choose_vad(mode, stt, have_local=have_local, strict=True)


def test_somebody_must_end_the_turns() -> None:
    with pytest.raises(ConfigurationError, match="does not end utterances: use"):
        choose_vad("provider", BARE)
    for mode in ("auto", "local", "provider"):
        with pytest.raises(ConfigurationError, match="give the agent a local VAD"):
            choose_vad(mode, BARE, have_local=False)


@pytest.mark.parametrize("mode", ["auto", "local", "provider"])
def test_no_choice_is_deaf_or_endless(mode: VADMode) -> None:
    for speech, ends, manual, have, strict in product((False, True), repeat=5):
        stt = STTCapabilities(speech_events=speech, endpointing=ends, manual_turns=manual)
        try:
            chosen = choose_vad(mode, stt, have_local=have, strict=strict)
        except ConfigurationError:
            assert strict or not ends
            continue
        assert not chosen.local_vad or have
        if chosen.endpointing == "local":
            assert chosen.local_vad
            assert manual or not ends
        else:
            assert ends


def test_the_recognisers_say_what_they_can() -> None:
    for stt in (DeepgramSTT, PocketsphinxSTT):
        assert choose_vad("auto", stt.capabilities) == PROVIDER
        assert choose_vad("local", stt.capabilities, strict=True) == LOCAL
