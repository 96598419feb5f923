"""Recognisers that stand in for one another: no word is lost, none told twice, and utterances keep their names."""

from __future__ import annotations

import asyncio
import math
from array import array
from typing import ClassVar
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog import RuleAgent
from dialog.audio.g711 import mulaw_encode
from dialog.errors import AuthenticationError, ConfigurationError, ProviderError, StateError, UnsupportedFormat
from dialog.llm.rules import Rule
from dialog.message import MULAW_8K, PCM_8K, PCM_16K, Message, SpeechEdge, Utterance, Word
from dialog.net.reconnect import Backoff
from dialog.stt.deepgram import DeepgramSTT
from dialog.stt.elevenlabs import ElevenLabsSTT
from dialog.stt.fallback import FallbackSTT
from dialog.stt.seam import seam
from dialog.stt.stt import STT, STTCapabilities
from dialog.stt.watchdog import Watchdog
from dialog.testing.deepgram import DeepgramEmulator
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.elevenlabs_stt import ElevenLabsSTTEmulator
from dialog.testing.server import Faults
from dialog.testing.virtual import run_virtual
from dialog.voip.memory import memory_call

FAST = Backoff(first_s=0.01, limit_s=0.05, give_up_s=0.5)
CALL = uuid4()
SILENT = 255
WORD_FRAMES = 8
"""A word is eight frames of its number, 160 ms."""


def speech(ms):
    """Something that rises and falls like a voice."""
    samples = (8000 * abs(math.sin(i / 2000)) * math.sin(i * 0.3) for i in range(8 * ms))
    return mulaw_encode(array("h", map(round, samples)).tobytes())


class Reading(STT):
    """Hears words that are bytes. ``faults``: at which frame of its audio which goes wrong, one for each that is made."""

    capabilities: ClassVar[STTCapabilities] = STTCapabilities(speech_events=True, interim_interval_ms=160, words=True)

    def __init__(self, label: str, faults: list[tuple[str, int]]) -> None:
        super().__init__()
        self.label = label
        self.faults = faults
        self.frames = 0
        self.fault = ("none", 0)
        self.connected = True
        self.beats = 0
        self.from_ms = float("-inf")
        self.words: list[Word] = []
        self.uuid = None
        self.run: list[Message] = []
        self.silent = 0

    @property
    def pulse(self):
        return self.beats if self.connected else None

    def open(self, audio_format) -> None:
        self.fault = self.faults.pop(0) if self.faults else ("none", 0)

    def finalize(self) -> None:
        self.end()

    def discard(self, before_ms) -> None:
        self.from_ms = max(self.from_ms, before_ms)
        self.words = [word for word in self.words if (word.start_ms + word.end_ms) / 2 >= before_ms]

    def post(self, message) -> None:
        self.frames += 1
        kind, after = self.fault
        if kind != "none" and self.frames > after:
            if kind == "die" and self.connected:
                self.connected = False
                self.end()  # what was understood is worth an answer, if nobody else has one
                self.fail(ProviderError(self.label, "is gone", retryable=False), fatal=True)
            elif kind == "raise":
                raise RuntimeError("a bug")
            elif kind == "cut":
                self.connected = False
            return
        self.beats += 1
        code = message.data[0]
        if self.run and code != self.run[0].data[0]:
            self.run = []
        if code == SILENT:
            self.silent += 1
            if self.silent == 15:
                self.end()
            return
        self.silent = 0
        self.run.append(message)
        if len(self.run) == WORD_FRAMES:
            word = Word(text=f"w{code}", start_ms=self.run[0].at_ms, end_ms=message.at_ms + 20)
            self.run = []
            if (word.start_ms + word.end_ms) / 2 >= self.from_ms:
                if not self.words:
                    self.uuid = uuid4()
                    self.emit(STT.VAD, SpeechEdge(state="started", at_ms=word.start_ms))
                self.words.append(word)
                self.emit(STT.INTERIM, self.utterance())

    def utterance(self) -> Utterance:
        text = " ".join(word.text for word in self.words)
        first, last = self.words[0], self.words[-1]
        return Utterance(uuid=self.uuid, data=text, at_ms=first.start_ms, end_ms=last.end_ms, words=tuple(self.words))

    def end(self) -> None:
        if self.words:
            utterance, self.words = self.utterance(), []
            self.emit(STT.VAD, SpeechEdge(state="stopped", at_ms=utterance.end_ms))
            self.emit(STT.MESSAGE, utterance)


class Ear:
    """What a recogniser tells."""

    def __init__(self, stt: STT) -> None:
        self.stt = stt
        self.finals, self.interims, self.edges, self.failures, self.takeovers = [], [], [], [], []
        self.woken = asyncio.Event()
        self.at_ms = 0.0
        for event, kept in (
            (STT.MESSAGE, self.finals),
            (STT.INTERIM, self.interims),
            (STT.VAD, self.edges),
            (STT.ERROR, self.failures),
            (FallbackSTT.TAKEOVER, self.takeovers),
        ):
            stt.on(event, lambda payload, kept=kept: (kept.append(payload), self.woken.set()))

    async def until(self, condition, timeout_s=10.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.woken.clear()
                await self.woken.wait()

    async def play(self, data: bytes, pace_s: float = 0.02) -> None:
        for start in range(0, len(data), 160):
            self.stt.post(Message(uuid=CALL, data=data[start : start + 160], at_ms=self.at_ms))
            self.at_ms += 20.0
            await asyncio.sleep(pace_s)

    async def close(self) -> None:
        self.stt.dispose()
        await self.stt.wait_disposed()


def spoken(*utterances: list[int]) -> bytes:
    sound = bytes([SILENT]) * 160 * 10
    for words in utterances:
        for number in words:
            sound += bytes([number]) * 160 * WORD_FRAMES
        sound += bytes([SILENT]) * 160 * 30
    return sound


FAULT = st.tuples(st.sampled_from(["none", "die", "raise", "cut"]), st.integers(0, 120))


@settings(max_examples=100)
@given(
    first=st.lists(FAULT, max_size=4),
    second=st.lists(FAULT, max_size=2),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_every_word_is_told_once_and_in_order(first, second, lengths):
    numbers = iter(range(1, 200))
    utterances = [[next(numbers) for _ in range(length)] for length in lengths]

    async def scenario(_clock) -> None:
        stt = FallbackSTT([Reading("a", first), Reading("b", second), Reading("c", [])], probe_after_s=3.0)
        ear = Ear(stt)
        stt.open(MULAW_8K)
        await ear.play(spoken(*utterances))
        await ear.play(bytes([SILENT]) * 160 * 400)
        assert [final.data for final in ear.finals] == [" ".join(f"w{n}" for n in words) for words in utterances]
        told = [final.uuid for final in ear.finals]
        assert len(set(told)) == len(told)
        assert {interim.uuid for interim in ear.interims} <= set(told)
        assert not any(failure.fatal for failure in ear.failures)
        await ear.close()

    run_virtual(scenario)


def test_one_that_dies_in_mid_utterance_is_followed_under_the_same_uuid():
    async def scenario(_clock) -> None:
        stt = FallbackSTT([Reading("a", [("die", 40)]), Reading("b", [])])
        ear = Ear(stt)
        stt.open(MULAW_8K)
        await ear.play(spoken([1, 2, 3, 4, 5, 6]))
        assert [final.data for final in ear.finals] == ["w1 w2 w3 w4 w5 w6"]
        assert {interim.uuid for interim in ear.interims} == {ear.finals[0].uuid}
        assert [edge.state for edge in ear.edges][0::2] == ["started"] * len(ear.edges[0::2])
        assert [(one.of, one.by) for one in ear.takeovers] == [("Reading 1", "Reading 2")]
        assert str(ear.failures[0].error) == "Reading 1: failed, and Reading 2 takes over: a: is gone"
        assert (len(ear.failures), ear.failures[0].fatal) == (1, False)
        await ear.close()

    run_virtual(scenario)


def test_the_preferred_one_comes_back_in_a_pause_when_it_has_heard_something():
    async def scenario(_clock) -> None:
        stt = FallbackSTT([Reading("a", [("die", 20), ("die", 10)]), Reading("b", [])], probe_after_s=5.0)
        ear = Ear(stt)
        stt.open(MULAW_8K)
        await ear.play(spoken([1, 2, 3]))
        assert stt.active == "Reading 2"
        await ear.play(bytes([SILENT]) * 160 * 800)  # 16 s: tried in vain after 5, and again after 10 more
        assert stt.active == "Reading 2"
        await ear.play(spoken([4, 5, 6]))
        await ear.play(bytes([SILENT]) * 160 * 100)
        assert stt.active == "Reading 1"
        assert (ear.takeovers[-1].by, ear.takeovers[-1].error) == ("Reading 1", None)
        await ear.play(spoken([7, 8]))
        assert [final.data for final in ear.finals] == ["w1 w2 w3", "w4 w5 w6", "w7 w8"]
        assert len(ear.failures) == 1
        await ear.close()

    run_virtual(scenario)


PAUSE = bytes([SILENT]) * 160 * 100


class Member(Reading):
    """One of several calls that are made alike."""

    down: ClassVar[set[str]] = set()

    def __init__(self, label: str) -> None:
        super().__init__(label, [])

    def open(self, audio_format) -> None:
        self.faults = [("die", 0)] if self.label in Member.down else []
        super().open(audio_format)


def calls_of_one_loop(scenario, monkeypatch, **down):
    monkeypatch.setattr(Member, "down", set(down.get("down", "")))

    async def run(_clock) -> None:
        ears: list[Ear] = []

        def call() -> Ear:
            ear = Ear(FallbackSTT([Member("a"), Member("b")], probe_after_s=5.0))
            ears.append(ear)
            ear.stt.open(MULAW_8K)
            return ear

        await scenario(call)
        for ear in ears:
            await ear.close()

    run_virtual(run)


def test_the_next_call_does_not_begin_with_one_that_has_just_failed(monkeypatch):
    async def scenario(call):
        first = call()
        await first.play(spoken([1, 2]))
        assert first.stt.active == "Member 2"
        second = call()
        assert second.stt.active == "Member 2"
        await second.play(spoken([3, 4]))
        assert [final.data for final in second.finals] == ["w3 w4"]
        assert second.failures == second.takeovers == []
        Member.down.clear()
        await second.play(PAUSE * 4)
        await second.play(spoken([5]) + PAUSE)
        assert second.stt.active == "Member 1"
        assert call().stt.active == "Member 1"
        await first.play(spoken([3], [4]) + PAUSE + spoken([5]))
        assert first.stt.active == "Member 1", "it has been found out beside another call"
        assert [final.data for final in first.finals] == ["w1 w2", "w3", "w4", "w5"]

    calls_of_one_loop(scenario, monkeypatch, down="a")


def test_a_silent_caller_keeps_no_other_call_from_finding_out_that_one_works_again(monkeypatch):
    async def scenario(call):
        silent = call()
        await silent.play(spoken([1]))
        Member.down.clear()
        await silent.play(PAUSE * 6)  # it is tried, and nobody speaks
        other = call()
        assert other.stt.active == "Member 2"
        await other.play(PAUSE * 4)
        await other.play(spoken([2]) + PAUSE)
        assert other.stt.active == "Member 1"

    calls_of_one_loop(scenario, monkeypatch, down="a")


def test_a_call_that_ends_while_one_is_tried_leaves_it_to_the_next(monkeypatch):
    async def scenario(call):
        first = call()
        await first.play(spoken([1]))
        Member.down.clear()
        while first.stt._probe is None:
            await first.play(bytes([SILENT]) * 160)
        await first.close()
        second = call()
        assert second.stt.active == "Member 2"
        await second.play(PAUSE)
        await second.play(spoken([2]) + PAUSE)
        assert second.stt.active == "Member 1"

    calls_of_one_loop(scenario, monkeypatch, down="a")


def test_when_all_have_failed_it_is_fatal_once_and_what_was_heard_is_told():
    async def scenario(_clock) -> None:
        stt = FallbackSTT([Reading("a", [("die", 40)]), Reading("b", [("die", 0)])])
        ear = Ear(stt)
        stt.open(MULAW_8K)
        await ear.play(spoken([1, 2, 3, 4, 5, 6]))
        assert [final.data for final in ear.finals] == ["w1 w2 w3"]
        assert [failure.fatal for failure in ear.failures] == [False, False, True]
        assert "all of Reading 1, Reading 2 have failed" in str(ear.failures[-1].error)
        await ear.close()

    run_virtual(scenario)


def test_a_final_that_was_asked_for_comes_also_when_nobody_is_there():
    async def scenario(_clock) -> None:
        stt = FallbackSTT([Reading("a", [("cut", 40)]), Reading("b", [("cut", 0)])])
        ear = Ear(stt)
        stt.open(MULAW_8K)
        await ear.play(spoken([1, 2, 3, 4, 5, 6])[: 160 * 50])
        stt._active.stt.words.clear()
        stt.finalize()
        await asyncio.sleep(0.7)
        assert [final.data for final in ear.finals] == ["w1 w2 w3"]
        await ear.close()

    run_virtual(scenario)


def test_a_discarded_utterance_is_not_heard_again_by_the_next():
    async def scenario(_clock) -> None:
        stt = FallbackSTT([Reading("a", [("die", 60)]), Reading("b", [])])
        ear = Ear(stt)
        stt.open(MULAW_8K)
        sound = spoken([1, 2, 3, 4, 5, 6])
        await ear.play(sound[: 160 * 50])
        stt.discard(ear.at_ms)
        await ear.play(sound[160 * 50 :])
        assert [final.data for final in ear.finals] == ["w6"]
        await ear.close()

    run_virtual(scenario)


def test_where_the_next_one_begins():
    words = tuple(Word(text=f"w{i}", start_ms=1000.0 * i, end_ms=1000.0 * i + 500) for i in range(1, 6))
    said = Utterance(uuid=uuid4(), data="w1 w2 w3 w4 w5", at_ms=1000, end_ms=5500, words=words)
    assert seam(None, 400.0, 0.0) == (None, 400.0)
    assert seam(said, 400.0, 0.0) == (None, 700.0)  # all of it is heard again
    assert seam(said, 900.0, 0.0) == (None, 900.0)  # but not what was told for good
    kept, from_ms = seam(said, 0.0, 2900.0)
    assert (kept.data, from_ms) == ("w1 w2", 2500.0)
    whole = Utterance(uuid=said.uuid, data=said.data, at_ms=1000, end_ms=5500)
    assert seam(whole, 0.0, 2900.0) == (whole, 5500.0)  # no times: it stays as it is


def test_the_watchdog_tells_speech_from_silence():
    def deaf(data: bytes) -> float | None:
        dog = Watchdog(MULAW_8K)
        for start in range(0, len(data), 160):
            now = start / 8000
            dog.hear(Message(uuid=CALL, data=data[start : start + 160], at_ms=start / 8), now)
            if dog.deaf(now):
                return now
        return None

    assert deaf(MULAW_8K.silence(500) + speech(5000)) == pytest.approx(3.5, abs=0.2)
    assert deaf(MULAW_8K.silence(20_000)) is None
    assert deaf(speech(1500) + MULAW_8K.silence(5000)) is None


class Wide(ToldSTT):
    formats = (PCM_16K,)
    capabilities = STTCapabilities(speech_events=False, interim_interval_ms=None)


def test_capabilities_and_formats_are_what_all_have():
    async def scenario(_clock) -> None:
        stt = FallbackSTT([Reading("a", [("die", 0)]), Wide()])
        assert stt.capabilities == STTCapabilities()
        ear = Ear(stt)
        with pytest.raises(StateError, match="before open"):
            stt.post(Message(uuid=CALL, data=b"\xff" * 160))
        with pytest.raises(UnsupportedFormat):
            stt.open(PCM_8K)
        stt.open(MULAW_8K)
        with pytest.raises(StateError, match="twice"):
            stt.open(MULAW_8K)
        await ear.play(speech(400))
        wide = stt._members[1].stt
        assert wide.audio_format == PCM_16K
        assert PCM_16K.ms(len(wide.audio)) == pytest.approx(400, abs=5)
        await ear.close()
        assert wide.disposed

    run_virtual(scenario)


def test_an_empty_chain_is_refused():
    with pytest.raises(ConfigurationError, match="at least one"):
        FallbackSTT([])


TEXT = "one two three four"


async def listen(faults: Faults, after, *, speech_ms: int = 2500, pace_s: float = 0.005) -> Ear:
    """Speak to a service that has faults, and another one that has none."""
    async with (
        DeepgramEmulator(sentences=[TEXT], interim_s=0.2, faults=faults) as bad,
        DeepgramEmulator(sentences=[TEXT], interim_s=0.2) as good,
    ):
        stt = FallbackSTT(
            [
                DeepgramSTT(api_key=bad.api_key, base_url=bad.url, backoff=FAST),
                DeepgramSTT(api_key=good.api_key, base_url=good.url),
            ]
        )
        ear = Ear(stt)
        stt.open(MULAW_8K)
        sound = MULAW_8K.silence(200) + speech(speech_ms) + MULAW_8K.silence(1500)
        await ear.play(sound, pace_s)
        await ear.until(lambda: after(ear))
        await ear.close()
        return ear


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(Faults(refuse=401), id="401"),
        pytest.param(Faults(refuse=429), id="429"),
        pytest.param(Faults(hang=True), id="no answer"),
        pytest.param(Faults(close_after=4, close_code=1008), id="closed for good in mid-utterance"),
        pytest.param(Faults(drop_after=4), id="breaks down each time"),
    ],
)
async def test_another_service_goes_on(faults):
    ear = await listen(faults, lambda ear: ear.finals)
    assert [final.data for final in ear.finals] == [TEXT]
    assert {interim.uuid for interim in ear.interims} == {ear.finals[0].uuid}
    assert [one.by for one in ear.takeovers] == ["DeepgramSTT 2"]
    assert not any(failure.fatal for failure in ear.failures)
    if faults.refuse == 401:
        assert isinstance(ear.takeovers[0].error, AuthenticationError)


async def test_one_that_goes_deaf_is_asked_then_connected_anew_then_replaced():
    ear = await listen(Faults(stall_after=1), lambda ear: ear.finals, speech_ms=3500, pace_s=0.02)
    assert [final.data for final in ear.finals] == [TEXT]
    told = [str(failure.error) for failure in ear.failures]
    assert ["anew" in text for text in told] == [True, False]
    assert "DeepgramSTT 2 takes over: there is speech, and nothing comes" in told[1]


async def test_one_that_goes_deaf_once_stays():
    ear = await listen(Faults(stall_after=1, times=1), lambda ear: ear.finals, speech_ms=3500, pace_s=0.02)
    assert [final.data for final in ear.finals] == [TEXT]
    assert ear.takeovers == []
    assert ["anew" in str(failure.error) for failure in ear.failures] == [True]


async def test_the_caller_is_answered_in_the_same_turn():
    async with (
        DeepgramEmulator(faults=Faults(refuse=500)) as bad,
        ElevenLabsSTTEmulator(sentences=["a table please"]) as good,
    ):
        stt = FallbackSTT(
            [
                DeepgramSTT(api_key=bad.api_key, base_url=bad.url),
                ElevenLabsSTT(api_key=good.api_key, base_url=good.url),
            ]
        )
        tts = HummingTTS()

        class Desk(RuleAgent):
            rules = (Rule(pattern="table", reply="At seven."),)

        def on_voip(voip) -> None:
            Desk(voip=voip, stt=stt, tts=tts).activate()

        call, line = memory_call(on_voip)
        finals = []
        stt.on(STT.MESSAGE, finals.append)
        async with asyncio.timeout(30):
            line.say(MULAW_8K.silence(100) + speech(1500) + MULAW_8K.silence(3000))
            while not finals:
                await asyncio.sleep(0.02)
            heard = await call.voip.wait_played(finals[0].uuid)
        assert heard.state == "played"
        assert "At seven." in tts.texts.values()
        call.end("test_over")
        await call.wait_closed()
