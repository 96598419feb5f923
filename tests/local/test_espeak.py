"""The offline voice."""

from __future__ import annotations

import asyncio
import itertools
import threading
from uuid import uuid4

import pytest

from dialog.errors import ConfigurationError, LimitError, StateError
from dialog.message import AudioFormat, Message
from dialog.participant import Participant
from dialog.tts import espeak as module
from dialog.tts.espeak import EspeakTTS, speak
from dialog.tts.tts import TTS

FORMAT = AudioFormat("s16le", 22050)


class Ear:
    """Collects what a voice emits."""

    def __init__(self, tts):
        self.messages, self.alignments, self.failures = [], [], []
        self._changed = asyncio.Event()
        tts.on(TTS.MESSAGE, self._message)
        tts.on(TTS.ALIGNMENT, self.alignments.append)
        tts.on(Participant.ERROR, self.failures.append)

    def _message(self, message):
        self.messages.append(message)
        self._changed.set()

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def done(self, count=1):
        await self.until(lambda: sum(m.done for m in self.messages) >= count)

    def audio(self, uuid, part=0):
        return b"".join(m.data for m in self.messages if (m.uuid, m.part) == (uuid, part))


@pytest.fixture
async def voice():
    tts = EspeakTTS("en-us+m3")
    tts.open(FORMAT)
    yield tts
    tts.dispose()
    await tts.wait_disposed()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("espeak")]


async def test_a_part_is_spoken_in_order_and_ends_once(voice):
    ear, turn = Ear(voice), uuid4()
    voice.post(Message(uuid=turn, data="We are open until ten."))
    voice.post(Message(uuid=turn, data="On Sunday we close at nine.", done=True))
    await ear.done()
    at_ms = 0.0
    for message in ear.messages:
        assert message.at_ms == pytest.approx(at_ms, abs=0.01)
        at_ms += FORMAT.ms(len(message.data))
    assert [message.done for message in ear.messages] == [False] * (len(ear.messages) - 1) + [True]
    assert 2500 < at_ms < 6000
    assert len(ear.messages[0].data) <= FORMAT.size(61), "it streams"


async def test_word_times_go_on_over_the_pieces_of_a_part(voice):
    ear, turn = Ear(voice), uuid4()
    voice.post(Message(uuid=turn, data="We are open until 10 pm."))
    voice.post(Message(uuid=turn, data="On Sunday we close at nine.", done=True))
    await ear.done()
    words = [word for alignment in ear.alignments for word in alignment.words]
    expected = ["We", "are", "open", "until", "10", "pm", "On", "Sunday", "we", "close", "at", "nine"]
    assert [word.text for word in words] == expected
    assert all(a.end_ms <= b.start_ms + 0.01 and a.start_ms <= a.end_ms for a, b in itertools.pairwise(words))
    assert words[6].start_ms - words[5].start_ms > 250, "sentences are apart"
    assert words[-1].end_ms <= FORMAT.ms(len(ear.audio(turn))) + 0.01


async def test_parts_do_not_mix_however_their_text_arrives(voice):
    ear, first, second = Ear(voice), uuid4(), uuid4()
    voice.post(Message(uuid=first, data="This is the first."))
    voice.post(Message(uuid=second, part=1, data="This is the second.", done=True))
    voice.post(Message(uuid=first, data="And it goes on.", done=True))
    await ear.done(2)
    order = list(dict.fromkeys((m.uuid, m.part) for m in ear.messages))
    assert order == [(first, 0), (second, 1)]
    turns = [m.uuid for m in ear.messages]
    assert turns == sorted(turns, key=[first, second].index)


async def test_an_empty_part_is_answered_at_once(voice):
    ear, turn = Ear(voice), uuid4()
    voice.post(Message(uuid=turn, data=" ", done=True))
    assert [(m.data, m.at_ms, m.done) for m in ear.messages] == [(b"", 0.0, True)]


async def test_nothing_is_emitted_after_an_abort_and_others_go_on(voice):
    ear, gone, kept = Ear(voice), uuid4(), uuid4()
    voice.post(Message(uuid=gone, data="A long sentence that is going to be cut short. " * 20))
    await ear.until(lambda: ear.messages)
    voice.abort(gone)
    heard = len(ear.audio(gone))
    voice.post(Message(uuid=gone, data="Too late.", done=True))
    voice.post(Message(uuid=kept, data="This one stays.", done=True))
    voice.abort(uuid4())
    await ear.done()
    assert len(ear.audio(gone)) == heard
    assert not [m for m in ear.messages if m.uuid == gone and m.done]
    assert len(ear.audio(kept)) > FORMAT.size(500)


async def test_one_part_of_a_turn_can_be_aborted(voice):
    ear, turn = Ear(voice), uuid4()
    voice.post(Message(uuid=turn, part=0, data="The first part.", done=True))
    voice.post(Message(uuid=turn, part=1, data="The second part.", done=True))
    voice.post(Message(uuid=turn, part=2, data="The third part.", done=True))
    voice.abort(turn, part=1)
    await ear.done(2)
    assert {m.part for m in ear.messages} == {0, 2}


async def test_text_beyond_the_bound_is_dropped_with_an_error(voice, monkeypatch):
    monkeypatch.setattr(module, "_LIMIT", 100)
    ear, turn = Ear(voice), uuid4()
    voice.post(Message(uuid=turn, data="x" * 200, done=True))
    await ear.done()
    assert isinstance(ear.failures[0].error, LimitError)
    assert ear.audio(turn) == b""


@pytest.mark.parametrize("state", ["new", "open", "speaking", "done"])
async def test_it_can_be_disposed_of_in_every_state(state):
    tts = EspeakTTS()
    ear, turn = Ear(tts), uuid4()
    if state != "new":
        tts.open(FORMAT)
    if state == "speaking":
        tts.post(Message(uuid=turn, data="A long sentence that nobody will hear. " * 50, done=True))
        await ear.until(lambda: ear.messages)
    elif state == "done":
        tts.post(Message(uuid=turn, data="Short.", done=True))
        await ear.done()
    count = len(ear.messages)
    tts.dispose()
    tts.dispose()
    tts.post(Message(uuid=turn, data="ignored"))
    await tts.wait_disposed()
    assert len(ear.messages) == count
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("espeak")]


async def test_two_voices_share_one_thread_which_ends_with_the_last():
    first, second = EspeakTTS("en-us"), EspeakTTS("en-gb-x-rp", rate=120)
    ears = [Ear(first), Ear(second)]
    turn = uuid4()
    for tts in (first, second):
        tts.open(FORMAT)
        tts.post(Message(uuid=turn, data="Good evening to all of you.", done=True))
    for ear in ears:
        await ear.done()
    assert len(ears[1].audio(turn)) > 1.15 * len(ears[0].audio(turn)), "each with its own settings"
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("espeak")]) == 1
    first.dispose()
    await first.wait_disposed()
    second.post(Message(uuid=uuid4(), data="Still here.", done=True))
    await ears[1].done(2)
    second.dispose()
    await second.wait_disposed()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("espeak")]


async def test_misuse_is_refused():
    with pytest.raises(ConfigurationError, match="en-gb-x-rp"):
        EspeakTTS("en-gb")
    with pytest.raises(ConfigurationError, match="variant"):
        EspeakTTS("en-us+nobody")
    with pytest.raises(ConfigurationError, match="rate"):
        EspeakTTS(rate=1)
    tts = EspeakTTS()
    with pytest.raises(StateError):
        tts.post(Message(uuid=uuid4(), data="hello"))
    with pytest.raises(ConfigurationError):
        tts.open(AudioFormat("mulaw", 8000))
    tts.dispose()


def test_speak_works_from_many_threads_at_once():
    lengths, errors = {}, []

    def work(number):
        try:
            for _ in range(5):
                lengths.setdefault(number % 2, set()).add(len(speak("one two three", rate=120 + 120 * (number % 2))))
        except Exception as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert max(lengths[1]) < min(lengths[0]), "no thread spoke with another's settings"
    assert all(max(sizes) - min(sizes) < 0.05 * max(sizes) for sizes in lengths.values())
