"""A model that is made of parts, by itself."""

from __future__ import annotations

from uuid import uuid4

from dialog.message import Message
from dialog.s2s.cascade import CascadeS2S
from dialog.s2s.s2s import S2S, Replied, SessionSpec
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.virtual import run_virtual


def test_a_sentence_that_the_voice_never_ends_has_failed_and_the_next_one_is_said():
    async def run(clock):
        voice = HummingTTS(hold=True)
        model = CascadeS2S(stt=ToldSTT(), tts=voice)
        replied, failures = [], []
        model.on(S2S.REPLIED, replied.append)
        model.on(S2S.ERROR, failures.append)
        model.open(SessionSpec())
        silent, next_ = uuid4(), uuid4()
        model.say(Message(uuid=silent, data="Good evening.", done=True), verbatim=True)
        await clock.sleep(60)
        assert replied == [Replied(uuid=silent, state="failed", part=0)]
        assert [(failure.fatal, failure.retryable) for failure in failures] == [(False, True)]
        voice.hold = False
        model.say(Message(uuid=next_, data="Good evening.", done=True), verbatim=True)
        await clock.sleep(1)
        assert replied[1:] == [Replied(uuid=next_, state="completed", part=0)]
        model.dispose()
        await model.wait_disposed()

    run_virtual(run)
