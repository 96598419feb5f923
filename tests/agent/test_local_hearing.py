"""What hears the caller beside the STT, on a line: a local VAD, a filter, a model that hears the end of a turn."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest
from test_agent_on_a_line import Talk, heard_ms, on_a_call

from dialog.agent.settings import AgentSettings
from dialog.agent.turns.settings import Endpointing, TurnSettings
from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.calls.events import CallerSpoke, PausedForCaller, ResumedAfterPause, Warned
from dialog.errors import UserCodeError
from dialog.message import MULAW_8K
from dialog.stt.stt import STTCapabilities
from dialog.testing.doubles import ToldSTT
from dialog.testing.virtual import run_virtual

VOICE = mulaw_encode(sine(300, 600, level_dbfs=-18.0))


async def quiet_line(talk) -> None:
    """The caller is there and silent, as at the start of every call."""
    talk.line.pump()
    await talk.clock.sleep(0.5)


class Deaf(ToldSTT):
    """Tells words when it is asked for them, but not when somebody speaks."""

    capabilities: ClassVar[STTCapabilities] = STTCapabilities(interim_interval_ms=1000, manual_turns=True)

    says = ""
    """What it makes of what it is asked for next."""

    def finalize(self) -> None:
        super().finalize()
        if self.says:
            said, self.says = self.says, ""
            self.heard(said)


def test_a_voice_pauses_the_agent_although_the_stt_does_not_tell_of_it():
    async def scenario(talk):
        await quiet_line(talk)
        talk.stt.heard("tell me all about it")
        await talk.clock.sleep(0.5)
        talk.line.say(mulaw_encode(sine(300, 600, level_dbfs=-6.0)))  # the test's voice hums at full scale
        await talk.clock.sleep(0.3)
        assert talk(PausedForCaller)
        await talk.quiet()
        assert talk(ResumedAfterPause), "no words came"
        # From the start of the word that was cut: that much was heard twice, and nothing is left out.
        assert 0 <= heard_ms(talk) - len("You said: tell me all about it ") * 50 <= 400

    on_a_call(scenario, stt=Deaf())


def test_the_agent_does_not_take_its_own_echo_for_the_caller():
    async def scenario(talk):
        await quiet_line(talk)
        talk.stt.heard("tell me all about it")
        await talk.clock.sleep(0.3)
        talk.line.say(mulaw_encode(sine(300, 600, level_dbfs=-40.0)))
        await talk.quiet()
        assert not talk(PausedForCaller)

    on_a_call(scenario, stt=Deaf())


def test_silence_ends_the_turn_where_it_is_heard_here():
    async def scenario(talk):
        await quiet_line(talk)
        assert talk.stt.manual_turns
        talk.line.say(VOICE)
        talk.stt.hears("what are your opening hours")
        talk.stt.says = "what are your opening hours"
        await talk.clock.sleep(0.8)
        assert talk.stt.finalized == 0, "the caller has only just stopped"
        await talk.clock.sleep(0.5)
        assert talk.stt.finalized == 1
        await talk.quiet()
        assert talk.spoken()[-1][1] == "You said: what are your opening hours"

    on_a_call(scenario, stt=Deaf(), settings=AgentSettings(vad="local"))


def test_what_cannot_be_had_is_told_or_refused():
    async def scenario(talk):
        (warned,) = talk(Warned)
        assert warned.code == "vad_fallback"

    on_a_call(scenario, settings=AgentSettings(vad="local"))

    async def run(clock):
        with pytest.raises(UserCodeError, match="vad='local'"):
            Talk(clock, settings=AgentSettings(vad="local", vad_strict=True))

    run_virtual(run)


def test_a_filter_hears_the_caller_first():
    class Mute:
        def __init__(self, audio_format) -> None:
            self.audio_format = audio_format

        def process(self, data: bytes) -> bytes:
            return self.audio_format.silence(self.audio_format.ms(len(data)))

    async def scenario(talk):
        await quiet_line(talk)
        talk.line.say(VOICE)
        await talk.clock.sleep(1)
        assert set(talk.stt.audio) == {0xFF}
        assert not talk(CallerSpoke)

    on_a_call(scenario, stt=Deaf(), audio_filter=Mute)


def test_the_caller_is_not_heard_while_a_part_sounds_that_asks_for_it():
    async def scenario(talk):
        await quiet_line(talk)
        talk.agent.dispatch_message("This call is recorded.", mute_caller=True)
        await talk.clock.sleep(0.3)
        talk.line.say(VOICE)
        await talk.clock.sleep(0.4)
        assert set(talk.stt.audio[-800:]) == {0xFF}
        assert not talk(PausedForCaller)
        await talk.quiet()
        talk.line.say(VOICE)
        await talk.clock.sleep(0.4)
        assert set(talk.stt.audio[-800:]) != {0xFF}
        assert MULAW_8K.ms(len(talk.stt.audio)) > 1500, "silence took the place of what was not to be heard"

    on_a_call(scenario, stt=Deaf())


class Model:
    """Judges as it is told."""

    def __init__(self, probability: float, takes_s: float = 0.1) -> None:
        self.probability = probability
        self.takes_s = takes_s
        self.heard: list[bytes] = []

    async def finished(self, audio: bytes, audio_format) -> float:
        self.heard.append(audio)
        await asyncio.sleep(self.takes_s)
        return self.probability


PATIENT = AgentSettings(vad="local", turns=TurnSettings(endpointing=Endpointing(wait_s=0.4, unfinished_s=2.0)))


@pytest.mark.parametrize(("model", "waits_s"), [(Model(1.0), 0.4), (Model(0.0), 2.0), (Model(0.0, takes_s=9.0), 0.4)])
def test_a_model_that_hears_the_caller_decides_how_long_is_waited(model, waits_s):
    async def scenario(talk):
        await quiet_line(talk)
        talk.line.say(VOICE)
        talk.stt.hears("a table for two")
        begun = talk.clock.now()
        while not talk.stt.finalized:
            await talk.clock.sleep(0.02)
        assert talk.clock.now() - begun == pytest.approx(0.6 + waits_s, abs=0.15)
        await talk.clock.sleep(1)
        (heard,) = model.heard
        assert 600 <= MULAW_8K.ms(len(heard)) < 2000
        assert bool(talk.errors) == (model.takes_s > 1), "too slow: told, and the words decide"

    on_a_call(scenario, stt=Deaf(), settings=PATIENT, turn_model=model)
