"""Fixed sentences: made ready in quiet moments, kept for other calls, played without the voice."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Self
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog import AgentSettings, RuleAgent
from dialog.errors import ConfigurationError, ProviderError, StateError
from dialog.message import MULAW_8K, PCM_8K, Message, Word
from dialog.net.reconnect import Backoff
from dialog.testing.cartesia import CartesiaEmulator
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.server import Faults
from dialog.testing.virtual import run_virtual
from dialog.tts.azure import AzureTTS
from dialog.tts.cache import CachedTTS
from dialog.tts.cartesia import CartesiaTTS
from dialog.tts.deepgram import DeepgramTTS
from dialog.tts.elevenlabs import ElevenLabsTTS
from dialog.tts.espeak import EspeakTTS
from dialog.tts.openai import OpenAITTS
from dialog.tts.phrases import Phrase, PhraseCache, phrase_key
from dialog.tts.tts import TTS
from dialog.voip.memory import MemoryLine, memory_call

SORRY = "I'm sorry, something went wrong."
BYE = "Goodbye."


class Voice:
    """A cached voice over a humming one, and all that it said."""

    def __init__(self, *phrases: str, cache: PhraseCache | None = None, key: str = "hum", **hum) -> None:
        self.hum = HummingTTS(**hum)
        self.hum.voice_key = key
        self.tts = CachedTTS(self.hum, phrases, cache=cache)
        self.messages, self.alignments, self.failures = [], [], []
        self.tts.on(TTS.MESSAGE, self.messages.append)
        self.tts.on(TTS.ALIGNMENT, self.alignments.append)
        self.tts.on(TTS.ERROR, self.failures.append)

    async def __aenter__(self) -> Self:
        self.tts.open(MULAW_8K)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.tts.dispose()
        await self.tts.wait_disposed()

    def say(self, *texts: str, uuid: UUID | None = None, done: bool = True) -> UUID:
        uuid = uuid or uuid4()
        for number, text in enumerate(texts, 1):
            self.tts.post(Message(uuid=uuid, data=text, done=done and number == len(texts)))
        return uuid

    def audio(self, uuid: UUID) -> bytes:
        return b"".join(message.data for message in self.messages if message.uuid == uuid)

    def words(self, uuid: UUID) -> list[tuple[str, float, float]]:
        spoken = [word for a in self.alignments if a.uuid == uuid for word in a.words]
        return [(word.text, word.start_ms, word.end_ms) for word in spoken]

    def ended(self, uuid: UUID) -> bool:
        mine = [message for message in self.messages if message.uuid == uuid]
        position = 0.0
        for message in mine:
            assert message.at_ms == pytest.approx(position)
            position += MULAW_8K.ms(len(message.data))
        assert not any(message.done for message in mine[:-1])
        return bool(mine) and mine[-1].done

    @property
    def spoken(self) -> list[str]:
        """What the voice behind it was asked for."""
        return list(self.hum.texts.values())


def hummed(text: str, at_ms: float = 0.0) -> list[tuple[str, float, float]]:
    words, position = [], 0
    for word in text.split():
        position = text.index(word, position)
        start, position = position, position + len(word)
        words.append((word, at_ms + start * 50.0, at_ms + position * 50.0))
    return words


def test_what_was_made_ready_is_played_without_the_voice() -> None:
    async def scenario(clock) -> None:
        async with Voice(SORRY, BYE) as voice:
            assert await voice.tts.prepared()
            assert voice.spoken == [SORRY, BYE]
            assert voice.messages == []  # nobody heard it
            assert (voice.tts.ready(f" {SORRY}"), voice.tts.ready("Hello.")) == (True, False)
            uuid = voice.say(SORRY)
            assert voice.ended(uuid)
            assert MULAW_8K.ms(len(voice.audio(uuid))) == 50 * len(SORRY)
            assert voice.words(uuid) == hummed(SORRY)
            assert len(voice.spoken) == 2

    run_virtual(scenario)


def test_what_follows_is_spoken_by_the_voice_in_the_same_part() -> None:
    async def scenario(clock) -> None:
        async with Voice(BYE) as voice:
            await voice.tts.prepared()
            uuid = voice.say("Good", "bye. ", "See you soon.")
            assert voice.ended(uuid)
            assert voice.words(uuid) == [*hummed(BYE), *hummed(" See you soon.", 50.0 * len(BYE))]
            assert voice.spoken == [BYE, " See you soon."]

    run_virtual(scenario)


@pytest.mark.parametrize(
    "texts",
    [("Goodbyes", "."), ("Good", " morning."), ("Well. Goodbye.",), ("", " ", "Hello.")],
    ids=["longer word", "turns out otherwise", "not at its start", "blanks"],
)
def test_other_text_goes_to_the_voice_as_it_is(texts) -> None:
    async def scenario(clock) -> None:
        async with Voice("Goodbye", BYE) as voice:
            await voice.tts.prepared()
            uuid = voice.say(*texts)
            assert voice.ended(uuid)
            assert voice.hum.texts[uuid, 0] == "".join(texts)

    run_virtual(scenario)


@settings(max_examples=150)
@given(
    text=st.lists(st.sampled_from(["Hello.", "Hi there!", "Hi", "Bye.", "Well,"]), max_size=5).map(" ".join),
    cuts=st.lists(st.integers(0, 40), max_size=4),
)
def test_however_the_text_is_cut_it_is_spoken_once_and_in_order(text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]

    async def scenario(clock) -> None:
        async with Voice("Hello.", "Hi there!", "Hi") as voice:
            await voice.tts.prepared()
            uuid = voice.say(*pieces)
            assert voice.ended(uuid)
            spoken = [word for word, _, _ in voice.words(uuid)]
            # A piece ends where the humming voice believes that a word ends.
            assert "".join(spoken) == text.replace(" ", "")
            starts = [start for _, start, _ in voice.words(uuid)]
            assert starts == sorted(starts)

    run_virtual(scenario)


def test_sentences_are_made_ready_when_nothing_is_said() -> None:
    async def scenario(clock) -> None:
        async with Voice(SORRY, hold=True) as voice:
            uuid = voice.say("One", done=False)
            await clock.sleep(5)
            assert voice.spoken == ["One"]
            voice.say(" two.", uuid=uuid)
            voice.hum.release()
            assert voice.ended(uuid)
            await clock.sleep(0.4)
            assert SORRY not in voice.spoken
            await clock.sleep(0.2)
            assert voice.tts.ready(SORRY)

    run_virtual(scenario)


def test_what_is_said_goes_before_what_is_made_ready() -> None:
    async def scenario(clock) -> None:
        async with Voice(SORRY, hold=True) as voice:
            await clock.sleep(1)
            assert voice.spoken == [SORRY]
            uuid = voice.say("Hello.")
            assert len(voice.hum.aborted) == 1
            voice.hum.release()
            assert voice.ended(uuid)
            assert await voice.tts.prepared()
            assert voice.spoken == [SORRY, "Hello.", SORRY]

    run_virtual(scenario)


def test_a_sentence_that_is_said_before_it_is_ready_is_kept() -> None:
    async def scenario(clock) -> None:
        async with Voice(SORRY) as voice:
            first = voice.say(SORRY[:10], SORRY[10:], "")
            second = voice.say(SORRY)
            assert (voice.ended(first), voice.ended(second)) == (True, True)
            assert voice.audio(first) == voice.audio(second)
            assert voice.spoken == [SORRY]
            assert await voice.tts.prepared()

    run_virtual(scenario)


def test_only_the_whole_sentence_is_kept() -> None:
    async def scenario(clock) -> None:
        async with Voice("Hello. How are you?", "Hello.") as voice:
            voice.say("Hello. How", " is it?")
            uuid = voice.say("Hello. How")
            assert voice.tts.ready("Hello. How are you?") is voice.tts.ready("Hello.") is False
            assert voice.ended(uuid)

    run_virtual(scenario)


def test_other_calls_have_it_at_once() -> None:
    async def scenario(clock) -> None:
        cache = PhraseCache()
        async with Voice(SORRY, cache=cache) as one:
            await one.tts.prepared()
        async with Voice(SORRY, cache=cache) as two, Voice(SORRY, cache=cache, key="other") as other:
            assert two.tts.ready(SORRY)
            assert not other.tts.ready(SORRY)
            two.say(SORRY)
            assert two.spoken == []
        async with Voice(SORRY, cache=cache, key="") as unknown:  # nothing tells how it sounds
            assert not unknown.tts.ready(SORRY)

    run_virtual(scenario)


def test_two_calls_do_not_make_the_same_sentence_ready() -> None:
    async def scenario(clock) -> None:
        cache = PhraseCache()
        async with Voice(SORRY, cache=cache, hold=True) as one, Voice(SORRY, cache=cache) as two:
            await clock.sleep(3)
            assert (one.spoken, two.spoken) == ([SORRY], [])
            one.hum.release()
            assert await two.tts.prepared()
            assert two.spoken == []
        async with Voice(BYE, cache=cache, hold=True) as one, Voice(BYE, cache=cache) as two:
            await clock.sleep(3)
            one.tts.dispose()  # in the middle of it
            assert await two.tts.prepared()
            assert two.spoken == [BYE]

    run_virtual(scenario)


def test_an_aborted_part_says_nothing_more() -> None:
    async def scenario(clock) -> None:
        async with Voice(BYE, SORRY) as voice:
            await voice.tts.prepared()
            waiting = voice.say("I'm sorry, ", done=False)  # may become the apology
            spoken = voice.say(BYE, " And", done=False)
            before = len(voice.messages)
            voice.tts.abort(waiting)
            voice.tts.abort(spoken, part=0)
            voice.tts.abort(uuid4())
            voice.say("something went wrong.", uuid=waiting)
            voice.say(" more.", uuid=spoken)
            assert len(voice.messages) == before
            assert (spoken, 0) in voice.hum.aborted
            assert waiting not in [uuid for uuid, _ in voice.hum.aborted]

    run_virtual(scenario)


def test_whoever_hears_a_sentence_may_abort_it() -> None:
    async def scenario(clock) -> None:
        async with Voice(BYE) as voice:
            await voice.tts.prepared()
            voice.tts.on(TTS.MESSAGE, lambda message: voice.tts.abort(message.uuid))
            uuid = voice.say(f"{BYE} And more.")
            assert len([message for message in voice.messages if message.uuid == uuid]) == 1
            assert voice.spoken == [BYE]

    run_virtual(scenario)


def test_a_voice_that_fails_is_not_asked_for_ever() -> None:
    class Mute(HummingTTS):
        def post(self, message: Message[str]) -> None:
            self.texts[message.uuid, message.part] = message.data
            self.fail(ProviderError("hum", "is hoarse", retryable=True))
            self.emit(TTS.MESSAGE, Message(uuid=message.uuid, part=message.part, data=b"\x01", done=True))

    async def scenario(clock) -> None:
        async with Voice() as voice:
            assert await voice.tts.prepared()  # there is nothing to do
        mute = Mute()
        tts = CachedTTS(mute, [SORRY, BYE])
        failures = []
        tts.on(TTS.ERROR, failures.append)
        tts.open(MULAW_8K)
        assert not await tts.prepared()
        assert len(mute.texts) == len(failures) == 3
        assert not tts.ready(SORRY)  # what came with an error is not kept
        tts.dispose()
        await tts.wait_disposed()

    run_virtual(scenario)


async def test_text_before_open_is_an_error_and_so_is_a_second_open() -> None:
    voice = Voice(SORRY)
    with pytest.raises(StateError):
        voice.say("Hello.")
    async with voice:
        with pytest.raises(StateError):
            voice.tts.open(MULAW_8K)
    assert await voice.tts.prepared() is False
    voice.say("Hello.")  # after the end nothing happens
    assert voice.messages == []


async def test_the_failure_of_everything_can_be_told(tmp_path: Path) -> None:
    """Over Cartesia's protocol: ready on disk, then the service is gone, and the sentence is heard all the same."""
    async with CartesiaEmulator(ms_per_char=10) as cartesia:

        def make(cache: PhraseCache) -> CachedTTS:
            quick = Backoff(first_s=0.01, limit_s=0.02, give_up_s=0.1)
            voice = CartesiaTTS(api_key=cartesia.api_key, base_url=cartesia.url, backoff=quick)
            return CachedTTS(voice, [SORRY], cache=cache)

        first = make(PhraseCache(directory=tmp_path / "phrases"))
        first.open(MULAW_8K)
        async with asyncio.timeout(5):
            assert await first.prepared()
        first.dispose()
        await first.wait_disposed()
        (file,) = (tmp_path / "phrases").iterdir()
        assert cartesia.api_key.encode() not in file.read_bytes()
        cartesia.faults = Faults(refuse=503)
        second = make(PhraseCache(directory=tmp_path / "phrases"))
        down, messages, words = asyncio.Event(), [], []
        second.on(TTS.ERROR, lambda failure: failure.fatal and down.set())
        second.on(TTS.MESSAGE, messages.append)
        second.on(TTS.ALIGNMENT, lambda alignment: words.extend(word.text for word in alignment.words))
        second.open(MULAW_8K)
        second.post(Message(uuid=uuid4(), data="Hello there.", done=True))  # the voice gives up on a real request
        async with asyncio.timeout(5):
            await down.wait()
        assert second.ready(SORRY)
        messages.clear()
        second.post(Message(uuid=uuid4(), data=SORRY, done=True))
        assert MULAW_8K.ms(sum(len(message.data) for message in messages)) == 10 * len(SORRY)
        assert messages[-1].done
        assert words == SORRY.split()
        second.dispose()
        await second.wait_disposed()


def test_the_caller_hears_why_when_the_voice_is_gone() -> None:
    async def scenario(clock) -> None:
        hum = HummingTTS()
        tts = CachedTTS(hum, [AgentSettings().failure])

        def on_voip(voip) -> None:
            RuleAgent(voip=voip, stt=ToldSTT(), tts=tts).activate()

        call, line = memory_call(on_voip, clock=clock, line=MemoryLine(clock=clock))
        assert await tts.prepared()
        hum.fail(ProviderError("hum", "is gone", retryable=False), fatal=True)
        await call.wait_closed()
        heard = b"".join(heard.data for heard in line.sent)
        assert MULAW_8K.ms(len(heard)) == 50 * len(AgentSettings().failure)
        assert call.voip.end.reason == "agent_hangup"

    run_virtual(scenario)


# What is kept


def phrase(size: int) -> Phrase:
    return Phrase(audio=bytes(size), audio_format=MULAW_8K, words=(Word(text="x", start_ms=0, end_ms=1),))


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    cache = PhraseCache(limit_bytes=100)
    for key in "abc":
        cache.put(key, phrase(30))
    assert cache.get("a") is not None
    cache.put("d", phrase(30))
    assert [key for key in "abcd" if cache.get(key)] == ["a", "c", "d"]
    cache.put("c", phrase(40))
    assert (len(cache), cache.bytes) == (3, 100)
    cache.put("e", phrase(101))
    assert (len(cache), cache.bytes) == (0, 0)
    with pytest.raises(ConfigurationError):
        PhraseCache(limit_bytes=0)


async def test_the_disk_outlives_the_process_and_is_not_trusted(tmp_path: Path, caplog) -> None:
    kept = phrase(8)
    await PhraseCache(directory=tmp_path).store("k", kept)
    assert await PhraseCache(directory=tmp_path).load("k") == kept
    assert await PhraseCache(directory=tmp_path).load("other") is None
    (tmp_path / "k.phrase").write_bytes(b"garbage")
    assert await PhraseCache(directory=tmp_path).load("k") is None
    assert "is made again" in caplog.text
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    cache = PhraseCache(directory=blocked)
    await cache.store("k", kept)
    assert cache.get("k") == kept
    assert "in memory only" in caplog.text


def test_all_that_the_sound_depends_on_is_in_the_key() -> None:
    keys = {
        phrase_key(*what)
        for what in [("v", MULAW_8K, "a"), ("w", MULAW_8K, "a"), ("v", PCM_8K, "a"), ("v", MULAW_8K, "b")]
    }
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (CartesiaTTS, [{}, {"voice": "v"}, {"model": "m"}, {"language": "de"}, {"options": {"speed": 2}}]),
        (ElevenLabsTTS, [{}, {"voice": "v"}, {"model": "m"}, {"language": "de"}, {"options": {"x": 2}}]),
        (OpenAITTS, [{}, {"voice": "v"}, {"model": "m"}, {"options": {"x": 2}}]),
        (DeepgramTTS, [{}, {"model": "m"}, {"options": {"x": 2}}]),
        (
            AzureTTS,
            [
                {},
                {"voice": "v"},
                {"language": "de-DE"},
                {"sentence_pause_ms": 0},
                {"options": {"prosody": {"rate": "+5%"}}},
            ],
        ),
    ],
)
def test_every_voice_says_what_its_sound_depends_on(cls, settings) -> None:
    settings = [*settings, {"base_url": "http://127.0.0.1:9"}]
    keys = {cls(api_key="sec-ret", **options).voice_key for options in settings}
    assert len(keys) == len(settings)
    assert not any("sec-ret" in key for key in keys)
    assert cls(api_key="one").voice_key == cls(api_key="two").voice_key


def test_so_does_the_local_one() -> None:
    pytest.importorskip("espeakng_loader")
    assert EspeakTTS().voice_key == EspeakTTS().voice_key
    assert len({EspeakTTS().voice_key, EspeakTTS(rate=200).voice_key, EspeakTTS("de").voice_key}) == 3
