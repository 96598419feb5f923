"""Several voices in one call: those that have a connection each, those of a chain, those of kept sentences."""

from __future__ import annotations

import asyncio
from array import array
from itertools import pairwise
from uuid import uuid4

import pytest
from msgspec.structs import replace

from dialog.errors import ConfigurationError, LimitError, ProviderError
from dialog.message import MULAW_8K, Message
from dialog.testing.doubles import HummingTTS
from dialog.testing.virtual import run_virtual
from dialog.tts.cache import CachedTTS
from dialog.tts.elevenlabs import DEFAULT_VOICE, ElevenLabsTTS
from dialog.tts.espeak import EspeakTTS
from dialog.tts.fallback import FallbackTTS
from dialog.tts.phrases import PhraseCache
from dialog.tts.tts import TTS
from tests.tts.ear import Ear
from tests.tts.providers import PROVIDERS

[ELEVENLABS] = [provider for provider in PROVIDERS if provider.name == "elevenlabs"]


async def over(ear: Ear) -> None:
    ear.tts.dispose()
    await ear.tts.wait_disposed()


async def test_a_voice_that_is_wanted_again_needs_no_other_connection_and_the_number_of_them_is_bounded():
    async with ELEVENLABS.emulate() as emulator:
        ear, turn = Ear(ELEVENLABS.make(emulator)), uuid4()
        ear.tts.open(ear.format)
        for part, voice in enumerate([f"voice-{number}" for number in range(8)] * 2):
            ear.say("Hello.", turn, part, voice=voice)
            await ear.done(turn, part)
        assert len(emulator.requests) == 9
        for number in range(8):  # all of them are busy
            ear.say("Hello", turn, 20 + number, voice=f"voice-{number}", done=False)
        with pytest.raises(LimitError, match="8 voices"):
            ear.say("Hello.", turn, 30, voice="one-too-many")
        ear.tts.abort(turn, part=20)
        ear.say("Hello.", turn, 31, voice="another")
        await ear.done(turn, 31)
        assert ear.text(turn, 31).strip() == "Hello."
        await emulator.until(lambda: len([s for s in emulator.sockets if not s.closed]) <= 9)
        await over(ear)
        assert ear.failures == []


async def test_a_voice_that_did_not_exist_is_asked_for_again_the_next_time():
    async with ELEVENLABS.emulate(voices=[DEFAULT_VOICE]) as emulator:
        ear, turn = Ear(ELEVENLABS.make(emulator)), uuid4()
        ear.tts.open(ear.format)
        ear.say("Hello.", turn, 0, voice="wolf")
        await ear.done(turn, 0)
        ear.say("Too late.", turn, 0, voice="wolf")
        emulator.voices = frozenset({DEFAULT_VOICE, "wolf"})
        ear.say("Good evening.", turn, 1, voice="wolf")
        await ear.done(turn, 1)
        assert (ear.text(turn, 0), ear.text(turn, 1).strip()) == ("", "Good evening.")
        assert ear.fatal == []
        await over(ear)


async def test_nothing_is_left_of_voices_that_were_speaking():
    async with ELEVENLABS.emulate(speed=1) as emulator:
        ear, turn = Ear(ELEVENLABS.make(emulator)), uuid4()
        ear.tts.open(ear.format)
        ear.say("A long sentence, and nobody hears its end.", turn, 0, voice="wolf")
        await ear.until(lambda: ear.messages)
        told = len(ear.messages)
        await over(ear)
        await emulator.until(lambda: not emulator.sockets)
        ear.say("Nobody.", turn, 1, voice="sheep")
        assert len(ear.messages) == told


# In a chain.


class Failing(HummingTTS):
    """Fails in the parts that it is asked for, as long as it is told to."""

    failing = False

    def __init__(self, *, retryable: bool = True) -> None:
        super().__init__()
        self.retryable = retryable

    def post(self, message):
        if type(self).failing:
            self.voices[message.uuid, message.part] = message.voice
            self.fail(ProviderError("voice", "no", retryable=self.retryable))
            self.emit(TTS.MESSAGE, Message(uuid=message.uuid, part=message.part, data=b"", done=True))
        else:
            super().post(message)


class First(Failing):
    failing = True


class Second(HummingTTS):
    pass


def chained(first, second, **options):
    """Say a part as the wolf, with a chain whose first voice fails; who was asked to be whom."""

    async def scenario(clock):
        tts = FallbackTTS([first, second], **options)
        tts.open(MULAW_8K)
        ended = asyncio.Event()
        tts.on(TTS.MESSAGE, lambda message: ended.set() if message.done else None)
        turn = uuid4()
        tts.post(Message(uuid=turn, data="Good evening. ", voice="wolf"))
        tts.post(Message(uuid=turn, data="Who is there?", done=True, voice="wolf"))
        async with asyncio.timeout(10):
            await ended.wait()
        active = tts.active
        tts.post(Message(uuid=uuid4(), data="And now?", done=True))
        after = tts.active
        tts.dispose()
        await tts.wait_disposed()
        return list(first.voices.values()), list(second.voices.values()), active, after

    return run_virtual(scenario)


def test_a_chain_knows_what_each_of_its_voices_calls_a_speaker():
    asked = chained(First(), Second(), voices={"wolf": ("wolf-1", "wolf-2")})
    assert asked[:2] == (["wolf-1", ""], ["wolf-2", ""])


def test_a_speaker_that_has_no_other_name_is_the_first_voices_own_and_its_likes():
    assert chained(First(), Second())[:2] == (["wolf", ""], ["", ""])
    likes = First(), First()
    likes[1].post = lambda message: HummingTTS.post(likes[1], message)  # type: ignore[method-assign]
    assert chained(*likes)[:2] == (["wolf", ""], ["wolf", ""])


@pytest.mark.parametrize("retryable", [True, False])
def test_a_name_that_was_refused_is_not_held_against_the_voice(retryable):
    class Once(First):
        def post(self, message):
            type(self).failing = bool(message.voice)
            super().post(message)

    first = Once(retryable=retryable)
    _, _, active, after = chained(first, Second())
    assert active == "Second"
    assert after == "Once"  # one failure alone is forgiven in any case


def test_a_chain_needs_a_name_for_each_of_its_voices_and_can_do_what_its_first_can():
    with pytest.raises(ConfigurationError, match="2 names"):
        FallbackTTS([First(), Second()], voices={"wolf": ("wolf-1",)})

    class Alone(HummingTTS):
        capabilities = replace(HummingTTS.capabilities, voices=False)

    assert FallbackTTS([First(), Alone()]).capabilities.voices
    assert not FallbackTTS([Alone(), First()]).capabilities.voices


# Kept sentences.


def test_kept_sentences_are_those_of_one_voice():
    async def scenario(clock):
        cache = PhraseCache()
        said = []
        for _ in range(2):
            hum = HummingTTS()
            hum.voice_key = "hum"
            tts = CachedTTS(hum, ["Goodbye."], cache=cache)
            tts.open(MULAW_8K)
            ended = []
            tts.on(TTS.MESSAGE, lambda message, ended=ended: ended.append(message) if message.done else None)
            await tts.prepared()
            for voice in ("", "wolf", "wolf", "sheep"):
                tts.post(Message(uuid=uuid4(), data="Goodbye.", done=True, voice=voice))
                await clock.sleep(0.01)
            assert len(ended) == 4
            said.append(list(hum.voices.values()))
            tts.dispose()
            await tts.wait_disposed()
        return said

    first, second = run_virtual(scenario)
    assert first == ["", "wolf", "sheep"]
    assert second == []


def crossings(samples):
    return sum((a < 0) != (b < 0) for a, b in pairwise(samples))


async def test_the_offline_voice_speaks_as_others_and_refuses_those_that_it_does_not_know():
    ear, turn = Ear(EspeakTTS()), uuid4()
    ear.tts.open(ear.format)
    for part, voice in enumerate(("", "en-us+f3", "")):
        ear.say("Good evening.", turn, part, voice=voice)
        await ear.done(turn, part)
    # It never says a sentence twice alike, but the other voice is brighter.
    own, other, again = (crossings(array("h", ear.audio(turn, part))) for part in range(3))
    assert again == pytest.approx(own, rel=0.08)
    assert other > 1.2 * own
    with pytest.raises(ConfigurationError, match="no voice 'xx'"):
        ear.say("Good evening.", turn, 3, voice="xx")
    await over(ear)


def test_every_connection_for_a_voice_is_made_of_the_same_arguments():
    tts = ElevenLabsTTS(api_key="k", model="m", options={"voice_settings": {"speed": 1.1}})
    other = tts.renewed(voice="wolf")
    assert (other._path, other._query, other._opening) == (
        "/v1/text-to-speech/wolf/multi-stream-input",
        tts._query,
        tts._opening,
    )
