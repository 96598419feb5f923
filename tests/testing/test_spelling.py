"""A voice that spells, ears that read: what one says the other hears, as far as it sounded."""

from __future__ import annotations

from uuid import uuid4

import pytest

from dialog.errors import ConfigurationError, StateError
from dialog.message import MULAW_8K, Message
from dialog.stt.stt import STT
from dialog.testing import ReadingSTT, SpellingTTS
from dialog.testing.scenario_sound import noise, spell
from dialog.testing.talk import turn_times
from dialog.tts.tts import TTS

FRAME = 160


class Voice:
    def __init__(self, **options) -> None:
        self.tts = SpellingTTS(**options)
        self.audio = b""
        self.words: list = []
        self.done: list = []
        self.tts.on(TTS.MESSAGE, self.take)
        self.tts.on(TTS.ALIGNMENT, lambda alignment: self.words.extend(alignment.words))
        self.tts.open(MULAW_8K)

    def take(self, message) -> None:
        assert message.at_ms == pytest.approx(MULAW_8K.ms(len(self.audio)))
        self.audio += message.data
        self.done.append(message.done)

    def say(self, *texts: str, uuid=None, part=0) -> bytes:
        uuid = uuid or uuid4()
        for text in texts:
            self.tts.post(Message(uuid=uuid, part=part, data=text))
        self.tts.post(Message(uuid=uuid, part=part, data="", done=True))
        return self.audio


class Ears:
    def __init__(self, **options) -> None:
        self.stt = ReadingSTT(**options)
        self.finals: list = []
        self.interims: list = []
        self.edges: list = []
        self.stt.on(STT.MESSAGE, self.finals.append)
        self.stt.on(STT.INTERIM, self.interims.append)
        self.stt.on(STT.VAD, self.edges.append)
        self.stt.open(MULAW_8K)
        self.at_ms = 0.0

    def hear(self, audio: bytes, *, silence_ms: float = 1000.0) -> None:
        audio += MULAW_8K.silence(silence_ms)
        for start in range(0, len(audio), FRAME):
            data = audio[start : start + FRAME]
            self.stt.post(Message(uuid=uuid4(), data=data, at_ms=self.at_ms))
            self.at_ms += MULAW_8K.ms(len(data))

    @property
    def texts(self) -> list[str]:
        return [utterance.data for utterance in self.finals]


def test_what_is_said_token_by_token_is_heard_word_by_word():
    voice, ears = Voice(), Ears()
    audio = voice.say("Hello the", "re, how", " are you?")
    assert MULAW_8K.ms(len(audio)) == pytest.approx(len("Hello there, how are you?") * 60, abs=1)
    assert voice.done == [False, False, False, True]
    ears.hear(audio)
    assert ears.texts == ["Hello there, how are you?"]
    (final,) = ears.finals
    assert {utterance.uuid for utterance in ears.interims} == {final.uuid}
    assert all("Hello there, how are you?".startswith(utterance.data) for utterance in ears.interims)
    assert len(ears.interims) >= 2
    assert [edge.state for edge in ears.edges] == ["started", "stopped"]
    assert ears.edges[0].at_ms == pytest.approx(0, abs=20)
    assert ears.edges[1].at_ms == pytest.approx(MULAW_8K.ms(len(audio)), abs=40)


def test_times_of_words_agree_on_both_sides():
    voice, ears = Voice(ms_per_char=40), Ears()
    ears.hear(voice.say("one two three four"))
    told = [(word.text, word.start_ms) for word in voice.words]
    heard = [(word.text, word.start_ms) for word in ears.finals[0].words]
    assert [text for text, _ in told] == [text for text, _ in heard]
    assert [at for _, at in told] == pytest.approx([at for _, at in heard], abs=10)


def test_a_word_that_was_cut_is_heard_as_far_as_it_sounded():
    voice, ears = Voice(), Ears()
    ears.hear(voice.say("wonderful weather")[: MULAW_8K.size(13 * 60)])
    assert ears.texts == ["wonderful wea"]


def test_brackets_are_said_and_no_pauses():
    voice, ears = Voice(), Ears()
    ears.hear(voice.say("it is [2.0] o'clock"))
    assert ears.texts == ["it is (2.0] o'clock"]


def test_a_pause_ends_an_utterance_and_a_longer_patience_does_not():
    audio = spell("first part [0.6] second part", lane=1, ms_per_char=60)
    quick, patient = Ears(), Ears(endpointing_ms=900)
    quick.hear(audio)
    patient.hear(audio)
    assert quick.texts == ["first part", "second part"]
    assert patient.texts == ["first part second part"]


def test_a_noise_is_a_voice_without_words():
    ears = Ears()
    ears.hear(noise(200))
    assert [edge.state for edge in ears.edges] == ["started", "stopped"]
    assert ears.texts == []


def test_what_was_heard_can_be_asked_for_and_forgotten():
    ears = Ears()
    ears.hear(spell("hello there", lane=1, ms_per_char=60), silence_ms=0)
    ears.stt.finalize()
    assert ears.texts == ["hello there"]
    ears.hear(spell("forget this", lane=2, ms_per_char=60), silence_ms=0)
    ears.stt.discard(ears.at_ms)
    ears.hear(b"")
    ears.stt.finalize()
    assert ears.texts == ["hello there"]


def test_an_aborted_part_says_no_more():
    voice = Voice()
    turn = uuid4()
    voice.tts.post(Message(uuid=turn, part=0, data="first "))
    voice.tts.post(Message(uuid=turn, part=1, data="second "))
    voice.audio, before = b"", voice.audio
    voice.tts.abort(turn, part=0)
    voice.tts.post(Message(uuid=turn, part=0, data="more", done=True))
    assert voice.audio == b""
    assert before
    voice.tts.abort(uuid4())


def test_they_are_opened_once_and_before_anything_else():
    for made in (SpellingTTS(), ReadingSTT()):
        with pytest.raises(StateError, match="before open"):
            made.post(Message(uuid=uuid4(), data=b"" if isinstance(made, STT) else ""))
        made.open(MULAW_8K)
        with pytest.raises(StateError, match="twice"):
            made.open(MULAW_8K)
        made.dispose()


def test_what_could_not_be_read_is_refused():
    with pytest.raises(ConfigurationError, match="ms_per_char"):
        SpellingTTS(ms_per_char=2)
    with pytest.raises(ConfigurationError, match="endpointing_ms"):
        ReadingSTT(endpointing_ms=50)


def track(*spans: tuple[float, float], length: float = 20.0) -> bytes:
    data = bytearray(MULAW_8K.silence(length * 1000))
    for begin, end in spans:
        data[int(begin * 8000) : int(end * 8000)] = b"\x00" * int((end - begin) * 8000)
    return bytes(data)


@pytest.mark.parametrize(
    ("caller", "agent", "waits", "longest"),
    [
        ([(1, 2)], [(3, 4)], [1000], 1.0),
        ([(1, 2), (2.5, 3)], [(4, 5)], [1000], 1.0),
        ([(1, 2), (5, 6)], [(7, 8)], [5000], 5.0),
        ([(1, 2)], [(0, 3), (4, 5)], [], 0.0),
        ([(1, 2), (12, 13)], [(3, 4)], [1000], 7.0),
        ([], [(1, 2)], [], 0.0),
        ([], [], [], 0.0),
    ],
)
def test_how_long_a_caller_waits(caller, agent, waits, longest):
    assert turn_times(track(*caller), track(*agent)) == (tuple(map(float, waits)), longest)
