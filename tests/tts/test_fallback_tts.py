"""Voices that stand in for one another: nothing is lost, nothing said twice, and every part ends once."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import ClassVar
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog import RuleAgent
from dialog.errors import AuthenticationError, ConfigurationError, ProviderError, StateError, UnsupportedFormat
from dialog.llm.rules import Rule
from dialog.message import MULAW_8K, PCM_8K, PCM_16K, PCM_24K, Alignment, Message, Word
from dialog.net.reconnect import Backoff
from dialog.testing.cartesia import CartesiaEmulator
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.server import Faults
from dialog.testing.virtual import run_virtual
from dialog.tts.cartesia import CartesiaTTS
from dialog.tts.coverage import Coverage, SpokenRate
from dialog.tts.fallback import FallbackTTS
from dialog.tts.tts import TTS, TTSCapabilities
from dialog.voip.memory import MemoryLine, memory_call

FAST = Backoff(first_s=0.01, limit_s=0.05, give_up_s=0.5)
CHAR = 80
"""Bytes of audio for a character, which are that character: 10 ms."""
TEXT = "Good evening, this is the front desk. A table for four is free at seven, by the window. Shall I book it?"


class Spelling(TTS):
    """Its audio tells what it says. ``faults`` are used up part by part, over all that are made of it."""

    formats = (MULAW_8K,)
    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(text="tokens", timings=True, parallel_parts=2)

    def __init__(self, label: str, faults: list[tuple[str, int]], *, timings: bool = True) -> None:
        super().__init__()
        self.label = label
        self.faults = faults
        self.timings = timings
        self.texts: dict = {}
        self.gone: set = set()

    def open(self, audio_format) -> None:
        assert audio_format == MULAW_8K
        self.down = False

    def post(self, message) -> None:
        key = (message.uuid, message.part)
        if key not in self.texts:
            fault = self.faults.pop(0) if self.faults else ("none", 0)
            self.texts[key] = ["", False, asyncio.Event()]
            self.spawn(self._speak(key, *fault), "speech")
        text = self.texts[key]
        text[0] += message.data
        text[1] = text[1] or message.done
        text[2].set()

    def abort(self, uuid, *, part=None) -> None:
        self.gone.update(key for key in self.texts if key[0] == uuid and part in (None, key[1]))

    async def _speak(self, key, fault, after) -> None:
        uuid, part = key
        ms, count = 0.0, 0
        text = self.texts[key]
        while True:
            while text[0]:
                end = text[0].find(" ") + 1 or (len(text[0]) if text[1] else 0)
                if not end:
                    break
                if fault != "none" and count >= after:
                    await self._break(key, fault, ms)
                    return
                word, text[0] = text[0][:end], text[0][end:]
                await asyncio.sleep(0.02)
                if key in self.gone:
                    return
                count += 1
                data = b"".join(bytes([ord(char)]) * CHAR for char in word)
                self.emit(TTS.MESSAGE, Message(uuid=uuid, part=part, data=data, at_ms=ms))
                if self.timings and word.strip():
                    told = Word(text=word.strip(), start_ms=ms, end_ms=ms + 10 * len(word.strip()))
                    self.emit(TTS.ALIGNMENT, Alignment(uuid=uuid, part=part, words=(told,)))
                ms += 10 * len(word)
            if text[1] and not text[0]:
                self.emit(TTS.MESSAGE, Message(uuid=uuid, part=part, data=b"", at_ms=ms, done=True))
                return
            text[2].clear()
            await text[2].wait()

    async def _break(self, key, fault, ms) -> None:
        if fault == "stall":
            return
        error = ProviderError(self.label, fault, retryable=fault == "refuse")
        self.fail(error, fatal=fault == "die")
        self.emit(TTS.MESSAGE, Message(uuid=key[0], part=key[1], data=b"", at_ms=ms, done=True))


class Listener:
    """What a voice tells, part by part."""

    def __init__(self, tts: TTS) -> None:
        self.tts = tts
        self.audio, self.ended, self.words = {}, {}, {}
        self.failures, self.takeovers = [], []
        self.woken = asyncio.Event()
        tts.on(TTS.MESSAGE, self.hear)
        tts.on(TTS.ALIGNMENT, self.align)
        tts.on(TTS.ERROR, self.failures.append)
        tts.on(FallbackTTS.TAKEOVER, self.takeovers.append)

    def hear(self, message) -> None:
        key = (message.uuid, message.part)
        before = self.audio.get(key, b"")
        assert key not in self.ended, "audio behind the end"
        assert message.at_ms == pytest.approx(MULAW_8K.ms(len(before)))
        self.audio[key] = before + message.data
        if message.done:
            self.ended[key] = True
        self.woken.set()

    def align(self, alignment) -> None:
        self.words.setdefault((alignment.uuid, alignment.part), []).extend(alignment.words)

    def text(self, key) -> str:
        return "".join(map(chr, self.audio.get(key, b"")[::CHAR]))

    async def until(self, condition, timeout_s=30.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.woken.clear()
                await self.woken.wait()

    async def say(self, *pieces: str, part: int = 0, uuid=None) -> tuple:
        key = (uuid or uuid4(), part)
        for number, piece in enumerate(pieces, 1):
            self.tts.post(Message(uuid=key[0], part=part, data=piece, done=number == len(pieces)))
            await asyncio.sleep(0)
        await self.until(lambda: key in self.ended)
        return key

    async def close(self) -> None:
        self.tts.dispose()
        await self.tts.wait_disposed()


FAULT = st.tuples(st.sampled_from(["none", "refuse", "die", "stall", "drop"]), st.integers(0, 12))


@settings(max_examples=100)
@given(
    first=st.lists(FAULT, max_size=5), second=st.lists(FAULT, max_size=3), cuts=st.lists(st.integers(1, 90), max_size=5)
)
def test_with_timings_every_part_is_said_once_and_ends_once(first, second, cuts):
    edges = sorted({0, len(TEXT), *cuts})
    pieces = [TEXT[a:b] for a, b in pairwise(edges)]

    async def scenario(_clock) -> None:
        tts = FallbackTTS([Spelling("first", first), Spelling("second", second), Spelling("third", [])])
        ear = Listener(tts)
        tts.open(MULAW_8K)
        for _ in range(4):
            key = await ear.say(*pieces)
            assert ear.text(key).split() == TEXT.split()
            assert [word.text for word in ear.words[key]] == TEXT.split()
            starts = [word.start_ms for word in ear.words[key]]
            assert starts == sorted(starts)
        assert not any(failure.fatal for failure in ear.failures)
        await ear.close()

    run_virtual(scenario)


@settings(max_examples=100)
@given(fault=st.sampled_from(["refuse", "die", "stall"]), after=st.integers(0, 21))
def test_without_timings_nothing_is_lost_and_at_most_a_clause_is_said_twice(fault, after):
    async def scenario(_clock) -> None:
        tts = FallbackTTS([Spelling("first", [("none", 0), (fault, after)], timings=False), Spelling("second", [])])
        ear = Listener(tts)
        tts.open(MULAW_8K)
        await ear.say(TEXT)
        key = await ear.say(TEXT)
        said = ear.text(key)
        before = "".join(f"{word} " for word in TEXT.split()[:after])
        assert said.startswith(before)
        rest = said[len(before) :]
        if rest:
            assert TEXT.endswith(rest)
        twice = len(before) + len(rest) - len(TEXT)
        assert -1 <= twice <= 60
        await ear.close()

    run_virtual(scenario)


def test_the_first_clause_whose_end_is_not_covered_is_said_again():
    rate = SpokenRate()
    covered = Coverage("One, two, three. Four is the last.")
    covered.audio_ms = rate.ms_per_char * 24
    assert covered.rest(rate) == "Four is the last."
    covered.audio_ms = rate.ms_per_char * 5
    assert covered.rest(rate) == "two, three. Four is the last."
    covered.audio_ms = 0.0
    assert covered.rest(rate) == covered.text


def test_the_voice_comes_back_after_it_has_said_a_word_to_nobody():
    async def scenario(_clock) -> None:
        faults = [("die", 0), ("die", 0)]  # the part, and the first time that it is tried again
        tts = FallbackTTS([Spelling("first", faults), Spelling("second", [])], probe_after_s=10.0)
        ear = Listener(tts)
        tts.open(MULAW_8K)
        await ear.say(TEXT)
        assert [(one.of, one.by) for one in ear.takeovers] == [("Spelling 1", "Spelling 2")]
        assert isinstance(ear.takeovers[0].error, ProviderError)
        await asyncio.sleep(12)  # tried in vain
        await ear.say(TEXT)
        assert tts.active == "Spelling 2"
        await asyncio.sleep(21)
        await ear.say(TEXT)
        assert tts.active == "Spelling 1"
        assert (ear.takeovers[-1].by, ear.takeovers[-1].error) == ("Spelling 1", None)
        assert len([failure for failure in ear.failures if "takes over" in str(failure.error)]) == 1
        await ear.close()

    run_virtual(scenario)


class Member(Spelling):
    """One of several calls that are made alike."""

    fault: ClassVar[str] = ""

    def __init__(self, label: str) -> None:
        super().__init__(label, [])

    def open(self, audio_format) -> None:
        super().open(audio_format)
        self.faults = [(Member.fault, 0)] * 9 if self.label == "a" and Member.fault else []


def calls_of_one_loop(scenario) -> None:
    async def run(_clock) -> None:
        ears: list[Listener] = []

        def call() -> Listener:
            ears.append(Listener(FallbackTTS([Member("a"), Member("b")], probe_after_s=5.0)))
            ears[-1].tts.open(MULAW_8K)
            return ears[-1]

        await scenario(call)
        for ear in ears:
            await ear.close()

    run_virtual(run)


def test_the_next_call_does_not_begin_with_a_voice_that_has_just_failed(monkeypatch):
    monkeypatch.setattr(Member, "fault", "die")

    async def scenario(call):
        first = call()
        await first.say(TEXT)
        second = call()
        assert second.tts.active == "Member 2"
        key = await second.say(TEXT)
        assert second.text(key) == TEXT
        assert second.failures == []
        await asyncio.sleep(6)  # one of the calls has tried it, in vain
        Member.fault = ""
        await asyncio.sleep(12)
        for ear in (first, second):
            await ear.say(TEXT)
            assert ear.tts.active == "Member 1"
        assert call().tts.active == "Member 1"

    calls_of_one_loop(scenario)


def test_a_call_that_ends_while_a_voice_is_tried_leaves_it_to_the_next(monkeypatch):
    monkeypatch.setattr(Member, "fault", "die")

    async def scenario(call):
        first = call()
        await first.say(TEXT)
        Member.fault = "stall"
        await asyncio.sleep(6)
        assert first.tts._probes
        await first.close()
        Member.fault = ""
        second = call()
        assert second.tts.active == "Member 2"
        await asyncio.sleep(2)
        await second.say(TEXT)
        assert second.tts.active == "Member 1"

    calls_of_one_loop(scenario)


def test_when_all_have_failed_parts_still_end_and_it_is_fatal_once():
    async def scenario(_clock) -> None:
        tts = FallbackTTS([Spelling("first", [("die", 2)]), Spelling("second", [("die", 2)])])
        ear = Listener(tts)
        tts.open(MULAW_8K)
        key = await ear.say(TEXT)
        assert ear.text(key) == "Good evening, this is "
        assert [failure.fatal for failure in ear.failures] == [False, False, True]
        assert "all of Spelling 1, Spelling 2 have failed" in str(ear.failures[-1].error)
        await ear.close()

    run_virtual(scenario)


def test_one_that_refuses_a_part_is_asked_for_the_next_turn_again():
    async def scenario(_clock) -> None:
        tts = FallbackTTS([Spelling("first", [("refuse", 0)]), Spelling("second", [])])
        ear = Listener(tts)
        tts.open(MULAW_8K)
        turn = uuid4()
        await ear.say(TEXT, uuid=turn)
        await ear.say(TEXT, uuid=turn, part=1)
        assert tts.active == "Spelling 2"  # one voice for a turn
        await ear.say(TEXT)
        assert tts.active == "Spelling 1"
        await ear.close()

    run_virtual(scenario)


def test_what_was_aborted_is_said_by_nobody():
    async def scenario(_clock) -> None:
        tts = FallbackTTS([Spelling("first", [("stall", 1)]), Spelling("second", [])])
        ear = Listener(tts)
        tts.open(MULAW_8K)
        turn = uuid4()
        tts.post(Message(uuid=turn, data=TEXT, done=True))
        await ear.until(lambda: ear.audio)
        tts.abort(turn)
        await asyncio.sleep(10)
        assert ear.text((turn, 0)) == "Good "
        assert ear.failures == ear.takeovers == []
        tts.post(Message(uuid=turn, data=TEXT, done=True))
        await asyncio.sleep(1)
        assert ear.text((turn, 0)) == "Good "
        await ear.close()

    run_virtual(scenario)


class Wide(HummingTTS):
    formats = (PCM_24K, PCM_16K)
    capabilities = TTSCapabilities(text="tokens", normalizes=False, parallel_parts=4)

    def open(self, audio_format) -> None:
        assert audio_format == PCM_16K  # the even multiple of the line's rate that is nearest


class Broken(HummingTTS):
    formats = (MULAW_8K,)
    capabilities = TTSCapabilities(parallel_parts=1)

    def post(self, message) -> None:
        raise RuntimeError("a bug")


def test_formats_are_converted_and_capabilities_are_what_all_can_do():
    async def scenario(_clock) -> None:
        tts = FallbackTTS([Broken(), Wide()])
        assert tts.capabilities == TTSCapabilities(text="sentences", normalizes=False, parallel_parts=1)
        assert MULAW_8K in tts.formats
        ear = Listener(tts)
        with pytest.raises(StateError, match="before open"):
            tts.post(Message(uuid=uuid4(), data="x", done=True))
        with pytest.raises(UnsupportedFormat):
            tts.open(PCM_8K)
        tts.open(MULAW_8K)
        with pytest.raises(StateError, match="twice"):
            tts.open(MULAW_8K)
        key = await ear.say("Hello there.")
        wide = tts._voices[1].tts
        assert wide.texts == {key: "Hello there."}
        assert MULAW_8K.ms(len(ear.audio[key])) > 0
        assert "a bug" in str(ear.failures[0].error)
        await ear.close()

    run_virtual(scenario)


def test_wrong_settings_are_named():
    with pytest.raises(ConfigurationError, match="at least one voice"):
        FallbackTTS([])
    with pytest.raises(ConfigurationError, match="timeout_s"):
        FallbackTTS([HummingTTS()], timeout_s=0)


@pytest.mark.parametrize(
    ("faults", "within_s"),
    [
        pytest.param(Faults(refuse=401), 1.0, id="401"),
        pytest.param(Faults(refuse=429), 2.0, id="429"),
        pytest.param(Faults(refuse=500), 2.0, id="500"),
        pytest.param(Faults(hang=True), 2.0, id="no answer"),
        pytest.param(Faults(stall_after=3), 2.0, id="stalls"),
        pytest.param(Faults(drop_after=4), 2.0, id="breaks down each time"),
    ],
)
async def test_another_service_says_what_one_did_not(faults, within_s):
    async with CartesiaEmulator(faults=faults) as bad, CartesiaEmulator() as good:
        tts = FallbackTTS(
            [
                CartesiaTTS(api_key=bad.api_key, base_url=bad.url, backoff=FAST),
                CartesiaTTS(api_key=good.api_key, base_url=good.url),
            ],
            timeout_s=0.6,
        )
        ear = Listener(tts)
        tts.open(MULAW_8K)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        key = await ear.say(TEXT)
        assert loop.time() - begun < within_s + 2.0
        words = [word.text for word in ear.words[key]]
        assert words == TEXT.split()
        assert not any(failure.fatal for failure in ear.failures)
        assert [one.by for one in ear.takeovers] == ["CartesiaTTS 2"]
        if faults.refuse == 401:
            assert isinstance(ear.takeovers[0].error, AuthenticationError)
        await ear.close()


async def test_the_caller_hears_the_answer_in_the_same_turn():
    line = MemoryLine()
    async with CartesiaEmulator(faults=Faults(refuse=500)) as bad, CartesiaEmulator(speed=50.0) as good:
        stt = ToldSTT()
        tts = FallbackTTS(
            [
                CartesiaTTS(api_key=bad.api_key, base_url=bad.url, backoff=FAST),
                CartesiaTTS(api_key=good.api_key, base_url=good.url),
            ]
        )
        agents = []

        class Desk(RuleAgent):
            rules = (Rule(pattern="table", reply="At seven, by the window."),)

        def on_voip(voip) -> None:
            agent = Desk(voip=voip, stt=stt, tts=tts)
            agents.append(agent)
            agent.activate()

        call, _ = memory_call(on_voip, line=line)
        turn = stt.heard("a table please")
        async with asyncio.timeout(20):
            heard = await call.voip.wait_played(turn)
        assert heard.state == "played"
        assert good.audio("At seven, by the window.", number=0)[:800] in bytes(line.heard_audio)
        assert not agents[0].disposed
        call.end("test_over")
        await call.wait_closed()
