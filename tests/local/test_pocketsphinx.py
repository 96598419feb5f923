"""The offline recogniser: utterances, edges, and the process behind it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from uuid import uuid4

import pytest

from dialog.audio.g711 import mulaw_decode, mulaw_encode
from dialog.errors import ConfigurationError, ProviderError, StateError
from dialog.message import MULAW_8K, PCM_8K, PCM_16K, AudioFormat, Message
from dialog.participant import Participant
from dialog.stt._sphinx_process import RecogniserProcess
from dialog.stt.pocketsphinx import UNCLEAR, PocketsphinxSTT
from dialog.stt.stt import STT
from dialog.tts.espeak import speak

PHRASES = (
    "what are your opening hours on sunday",
    "goodbye and thank you for your help",
    "do you have vegetarian food",
    "i want to talk to a human please",
)
CALL = uuid4()


def spoken(text, voice="en-us+m3"):
    return mulaw_encode(speak(text, voice=voice))


class Phone:
    """Feeds audio to a recogniser in frames of 20 ms and collects what it emits."""

    def __init__(self, stt, audio_format=MULAW_8K, start_ms=0.0):
        self.stt, self.format, self.now_ms = stt, audio_format, start_ms
        self.messages, self.interims, self.edges, self.failures = [], [], [], []
        self._changed = asyncio.Event()
        for event, kept in (
            (STT.MESSAGE, self.messages),
            (STT.INTERIM, self.interims),
            (STT.VAD, self.edges),
            (Participant.ERROR, self.failures),
        ):
            stt.on(event, lambda value, kept=kept: (kept.append(value), self._changed.set()))

    def say(self, mulaw):
        audio = mulaw if self.format.encoding == "mulaw" else mulaw_decode(mulaw)
        if self.format.sample_rate == 16000:
            from dialog.audio.convert import Converter

            converter = Converter(PCM_8K, PCM_16K)
            audio = converter.process(audio) + converter.flush()
        size = self.format.size(20)
        for start in range(0, len(audio), size):
            piece = audio[start : start + size]
            self.stt.post(Message(uuid=CALL, data=piece, at_ms=self.now_ms))
            self.now_ms += self.format.ms(len(piece))

    def silence(self, ms=700):
        self.say(MULAW_8K.silence(ms))

    async def until(self, condition):
        async with asyncio.timeout(15):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
async def stt():
    made = PocketsphinxSTT(PHRASES)
    made.open(MULAW_8K)
    yield made
    made.dispose()
    await made.wait_disposed(5)


async def quiet():
    """Wait until the process has nothing to do: jobs are done in their order."""
    process = RecogniserProcess.acquire()
    try:
        async with asyncio.timeout(15):
            await process.hear(PocketsphinxSTT(PHRASES)._grammar, MULAW_8K, MULAW_8K.silence(100))
    finally:
        process.release()
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.parametrize("audio_format", [MULAW_8K, PCM_8K, PCM_16K], ids=str)
async def test_a_sentence_becomes_a_message_with_words_on_the_calls_clock(audio_format):
    stt = PocketsphinxSTT(PHRASES)
    stt.open(audio_format)
    phone = Phone(stt, audio_format, start_ms=60_000.0)
    audio = spoken(PHRASES[0])
    phone.silence(1000)
    begun = phone.now_ms
    phone.say(audio)
    phone.silence()
    await phone.until(lambda: phone.messages)
    (message,) = phone.messages
    assert message.data == PHRASES[0]
    assert message.confidence > 0.5
    assert [word.text for word in message.words] == PHRASES[0].split()
    starts = [word.start_ms for word in message.words]
    assert starts == sorted(starts)
    assert begun - 150 < starts[0] < begun + 400
    assert message.words[-1].end_ms < begun + MULAW_8K.ms(len(audio)) + 200
    assert [edge.state for edge in phone.edges] == ["started", "stopped"]
    assert phone.edges[0].at_ms == pytest.approx(begun, abs=150)
    assert (message.at_ms, message.end_ms) == (phone.edges[0].at_ms, phone.edges[1].at_ms)
    stt.dispose()
    await stt.wait_disposed(5)


async def test_something_else_is_unclear_and_never_a_sentence(stt):
    phone = Phone(stt)
    for text in ("my car has broken down on the motorway", "the doctor said i should rest"):
        phone.silence()
        phone.say(spoken(text))
        phone.silence()
    await phone.until(lambda: len(phone.messages) == 2)
    assert [(message.data, message.confidence, message.words) for message in phone.messages] == [(UNCLEAR, 0.0, ())] * 2


async def test_the_beginning_of_a_sentence_is_not_the_sentence(stt):
    phone = Phone(stt)
    phone.silence()
    phone.say(spoken("i want to talk to a"))
    phone.silence()
    await phone.until(lambda: phone.messages)
    assert [message.data for message in phone.messages] == [UNCLEAR]


async def test_a_cough_is_no_utterance(stt):
    phone, noise = Phone(stt), random.Random(5)
    cough = b"".join(int(noise.gauss(0, 3000)).to_bytes(2, "little", signed=True) for _ in range(8 * 250))
    phone.silence()
    phone.say(mulaw_encode(cough))
    phone.silence()
    assert [edge.state for edge in phone.edges] == ["started", "stopped"]
    phone.say(spoken(PHRASES[2]))
    phone.silence()
    await phone.until(lambda: phone.messages)
    assert [message.data for message in phone.messages] == [PHRASES[2]]


async def test_an_interim_tells_that_words_are_said_before_the_utterance_ends(stt):
    phone, audio = Phone(stt), spoken(PHRASES[0])
    phone.silence()
    phone.say(audio[: MULAW_8K.size(1300)])
    await phone.until(lambda: phone.interims)
    assert not phone.messages
    phone.say(audio[MULAW_8K.size(1300) :])
    phone.silence()
    await phone.until(lambda: phone.messages)
    assert phone.interims[0].uuid == phone.messages[0].uuid
    assert phone.messages[0].data == PHRASES[0]
    assert all(i.data == UNCLEAR or PHRASES[0].startswith(i.data) for i in phone.interims)


async def test_finalize_gives_what_was_said_so_far(stt):
    phone = Phone(stt)
    phone.silence()
    phone.say(spoken(PHRASES[1]))
    assert not phone.messages
    stt.finalize()
    stt.finalize()
    await phone.until(lambda: phone.messages)
    assert phone.messages[0].data == PHRASES[1]


async def test_what_was_discarded_is_forgotten(stt):
    phone = Phone(stt)
    phone.silence()
    phone.say(spoken(PHRASES[1]))
    phone.silence()
    stt.discard(phone.now_ms)
    phone.say(spoken(PHRASES[2]))
    phone.silence()
    await phone.until(lambda: phone.messages)
    await quiet()
    assert [message.data for message in phone.messages] == [PHRASES[2]]


async def test_discarding_in_mid_sentence_leaves_the_rest(stt):
    phone = Phone(stt)
    phone.silence()
    phone.say(spoken("my car has broken down") + spoken(PHRASES[0], "en-us"))
    stt.discard(700 + MULAW_8K.ms(len(spoken("my car has broken down"))) - 200)
    phone.silence()
    await phone.until(lambda: phone.messages)
    assert [message.data for message in phone.messages] == [PHRASES[0]]


async def test_discarding_takes_the_words_of_an_utterance_that_is_being_recognised(stt):
    phone = Phone(stt)
    phone.silence()
    begun = phone.now_ms
    audio = spoken(PHRASES[0])
    phone.say(audio)
    phone.silence()
    middle = begun + MULAW_8K.ms(len(audio)) / 2
    stt.discard(middle)  # it has ended, and its text has not come yet
    assert not phone.messages
    await phone.until(lambda: phone.messages)
    words = phone.messages[0].data.split()
    assert 0 < len(words) < len(PHRASES[0].split())
    assert words == PHRASES[0].split()[-len(words) :]
    assert phone.messages[0].at_ms == middle


@pytest.mark.parametrize("started", [True, False])
async def test_an_interim_of_what_was_discarded_does_not_come(stt, started):
    phone = Phone(stt)
    phone.silence()
    phone.say(spoken(PHRASES[0])[: 8 * 1300])  # long enough for an interim, which is on its way
    if started:
        await asyncio.sleep(0)
    stt.discard(phone.now_ms)
    await asyncio.sleep(0)
    await quiet()
    assert phone.interims == []


async def test_other_phrases_can_be_set_during_the_call(stt):
    phone = Phone(stt)
    stt.set_phrases(["please connect me to the manager"])
    for text in ("please connect me to the manager", PHRASES[0]):
        phone.silence()
        phone.say(spoken(text))
        phone.silence()
    await phone.until(lambda: len(phone.messages) == 2)
    assert [message.data for message in phone.messages] == ["please connect me to the manager", UNCLEAR]
    with pytest.raises(ConfigurationError):
        stt.set_phrases(["Not well formed!"])


async def test_an_unknown_word_is_a_fatal_error_that_names_it():
    stt = PocketsphinxSTT(["please stop frumbling"])
    phone = Phone(stt)
    stt.open(MULAW_8K)
    await phone.until(lambda: phone.failures)
    assert phone.failures[0].fatal
    assert "frumbling" in str(phone.failures[0].error)
    stt.dispose()
    await stt.wait_disposed(5)


async def test_calls_share_one_process_that_ends_with_the_last():
    first, second = PocketsphinxSTT(PHRASES), PocketsphinxSTT(PHRASES[:2])
    phones = [Phone(first), Phone(second)]
    for stt, phone in zip((first, second), phones, strict=True):
        stt.open(MULAW_8K)
        phone.silence()
        phone.say(spoken(PHRASES[0]))
        phone.silence()
    for phone in phones:
        await phone.until(lambda phone=phone: phone.messages)
        assert phone.messages[0].data == PHRASES[0]
    process = first._process
    assert process is second._process
    pid = process.pid
    first.dispose()
    await first.wait_disposed(5)
    os.kill(pid, 0)
    second.dispose()
    await second.wait_disposed(5)
    with pytest.raises(ProcessLookupError):  # ended, and collected: no zombie
        os.kill(pid, 0)


async def test_a_dead_process_is_started_again_and_the_utterance_not_lost(stt):
    phone = Phone(stt)
    await quiet()
    process = stt._process
    first = process.pid
    os.kill(first, signal.SIGKILL)
    phone.silence()
    phone.say(spoken(PHRASES[0]))
    phone.silence()
    await phone.until(lambda: phone.messages)
    assert phone.messages[0].data == PHRASES[0]
    assert process.pid != first
    assert process.starts == 2
    assert not phone.failures


async def test_a_process_that_dies_of_an_utterance_twice_costs_that_utterance_only(stt):
    process = stt._process
    await quiet()
    grammar = stt._grammar
    # A job that the worker cannot read ends it, as a crash of the engine would.
    poison = process.hear(grammar, AudioFormat("opus", 8000), b"\0" * 100)
    with pytest.raises(ProviderError, match="twice"):
        await poison
    phone = Phone(stt)
    phone.silence()
    phone.say(spoken(PHRASES[2]))
    phone.silence()
    await phone.until(lambda: phone.messages)
    assert phone.messages[0].data == PHRASES[2]
    assert process.starts == 3


@pytest.mark.parametrize("state", ["new", "open", "ready", "speaking", "decoding"])
async def test_it_can_be_disposed_of_in_every_state(state):
    stt = PocketsphinxSTT(PHRASES)
    phone = Phone(stt)
    if state != "new":
        stt.open(MULAW_8K)
    if state in ("ready", "speaking", "decoding"):
        await quiet()
    if state in ("speaking", "decoding"):
        phone.silence()
        phone.say(spoken(PHRASES[0]))
    if state == "decoding":
        phone.silence()
        await asyncio.sleep(0)
    pid = stt._process.pid if stt._process is not None else None
    stt.dispose()
    stt.dispose()
    stt.finalize()
    await stt.wait_disposed(5)
    assert not phone.messages
    if pid is not None:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_misuse_is_refused():
    with pytest.raises(ConfigurationError, match="hang_ms"):
        PocketsphinxSTT(PHRASES, hang_ms=10)
    stt = PocketsphinxSTT(PHRASES)
    with pytest.raises(StateError):
        stt.post(Message(uuid=CALL, data=b"\xff" * 160))
    with pytest.raises(ConfigurationError):
        stt.open(AudioFormat("s16le", 48000))
    stt.dispose()
    with pytest.raises(StateError):
        stt.open(MULAW_8K)
