"""What ears and voices used is told by whoever stands before them, also what they tell as they are disposed of."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest

from dialog.errors import ProviderError
from dialog.message import MULAW_8K, Message
from dialog.participant import Participant
from dialog.s2s.cascade import CascadeS2S
from dialog.s2s.s2s import S2S, SessionSpec
from dialog.stt.fallback import FallbackSTT
from dialog.stt.stt import STT
from dialog.stt.tee import Comparison, TeeSTT
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.tts.cache import CachedTTS
from dialog.tts.fallback import FallbackTTS
from dialog.tts.tts import TTS
from dialog.usage import ReplyUsage, Usage


class Ear(ToldSTT):
    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model

    def dispose(self) -> None:
        if not self.disposed:
            self.emit(STT.USAGE, ReplyUsage(usage=Usage(model=self.model, input_audio_s=1.0)))
        super().dispose()


class Voice(HummingTTS):
    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model

    def dispose(self) -> None:
        if not self.disposed:
            self.emit(TTS.USAGE, ReplyUsage(usage=Usage(model=self.model, characters=1)))
        super().dispose()


def used_by(participant: Participant) -> list[str]:
    models: list[str] = []
    participant.on(STT.USAGE, lambda told: models.append(told.usage.model))
    return models


@pytest.mark.parametrize(
    "make", [lambda: FallbackSTT([Ear("a"), Ear("b")]), lambda: TeeSTT(Ear("a"), Ear("b"))], ids=["fallback", "tee"]
)
async def test_who_stands_before_a_recogniser_tells_what_it_used(make: Callable[[], STT]) -> None:
    stt = make()
    models = used_by(stt)
    stt.open(MULAW_8K)
    stt.post(Message(uuid=uuid4(), data=MULAW_8K.silence(20)))
    stt.dispose()
    stt.dispose()
    assert models == ["a"]
    await stt.wait_disposed()


async def test_a_member_that_failed_was_used_as_well() -> None:
    first = Ear("a")
    stt = FallbackSTT([first, Ear("b")])
    models = used_by(stt)
    stt.open(MULAW_8K)
    first.fail(ProviderError("a", "is gone", retryable=False), fatal=True)
    assert models == ["a"]
    stt.dispose()
    assert models == ["a", "b"]
    await stt.wait_disposed()


async def test_what_is_compared_with_tells_it_to_whoever_compares() -> None:
    stt = TeeSTT(Ear("a"), Ear("b"))
    compared: list[Comparison] = []
    stt.on(TeeSTT.COMPARISON, compared.append)
    stt.open(MULAW_8K)
    stt.dispose()
    assert [told.usage and told.usage.model for told in compared] == ["b"]
    await stt.wait_disposed()


@pytest.mark.parametrize(
    "make",
    [lambda: FallbackTTS([Voice("a"), Voice("b")]), lambda: CachedTTS(Voice("a"), ["Good day."])],
    ids=["fallback", "cache"],
)
async def test_who_stands_before_a_voice_tells_what_it_used(make: Callable[[], TTS]) -> None:
    tts = make()
    models = used_by(tts)
    tts.open(MULAW_8K)
    tts.post(Message(uuid=uuid4(), data="Good evening. "))
    tts.dispose()
    tts.dispose()
    assert models == ["a"]
    await tts.wait_disposed()


async def test_a_model_made_of_parts_tells_what_they_used() -> None:
    model = CascadeS2S(stt=Ear("ear"), tts=Voice("voice"))
    models: list[str] = []
    model.on(S2S.USAGE, lambda told: models.append(told.usage.model))
    model.open(SessionSpec(input_format=MULAW_8K, output_format=MULAW_8K))
    model.dispose()
    assert models == ["ear", "voice"]
    await model.wait_disposed()
