"""What a participant that can be made anew tells of what it is made of."""

from __future__ import annotations

import pytest

from dialog.net.reconnect import Backoff
from dialog.stt.deepgram import DeepgramSTT
from dialog.stt.elevenlabs import ElevenLabsSTT
from dialog.stt.tee import TeeSTT
from dialog.tts.cache import CachedTTS
from dialog.tts.cartesia import CartesiaTTS
from dialog.tts.phrases import PhraseCache


def test_those_of_the_same_arguments_fail_together():
    def make(**changes):
        return DeepgramSTT(
            **{"api_key": "k", "keyterms": ["a", "b"], "backoff": Backoff(), "options": {"x": 1}} | changes
        )

    assert make().identity == make().identity
    assert hash(make().identity) == hash(make().identity)
    for change in ({"api_key": "l"}, {"keyterms": ["a"]}, {"backoff": Backoff(limit_s=9.0)}, {"options": {"x": 2}}):
        assert make(**change).identity != make().identity
    assert ElevenLabsSTT(api_key="k").identity != DeepgramSTT(api_key="k").identity
    assert "secret" not in repr(make(api_key="secret").identity)


def test_what_is_made_of_unknown_objects_stands_alone():
    assert DeepgramSTT(api_key="k", keyterms=iter(["a"])).identity is None


def test_a_wrapper_fails_with_what_it_wraps():
    voice = CartesiaTTS(api_key="k")
    assert CachedTTS(voice, ["Hello."], cache=PhraseCache()).identity == voice.identity
    ear = DeepgramSTT(api_key="k")
    assert TeeSTT(ear, ElevenLabsSTT(api_key="k")).identity == ear.identity


def test_one_is_made_anew_with_changes():
    other = CartesiaTTS(api_key="k", voice="a").renewed(voice="b")
    assert other._request["voice"] == {"mode": "id", "id": "b"}
    with pytest.raises(TypeError):
        CartesiaTTS(api_key="k").renewed(nothing=1)
