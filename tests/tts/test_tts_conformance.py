"""What every voice promises, whatever its protocol: one suite over all providers and their emulators."""

import asyncio
import itertools
import random
from uuid import uuid4

import pytest

from dialog.calls.prices import cost_usd
from dialog.errors import (
    AuthenticationError,
    ConfigurationError,
    DialogError,
    ProviderError,
    RemoteProtocolError,
    StateError,
    UnsupportedFormat,
)
from dialog.message import AudioFormat, Message
from dialog.net import shared
from dialog.net.reconnect import Backoff
from dialog.testing.server import Faults
from dialog.tts import streaming
from dialog.tts.tts import TTS
from tests.tts.ear import Ear
from tests.tts.providers import MS_PER_CHAR, PROVIDERS

SENTENCES = ("Good evening, how can I help you? ", "We are open until ten. ", "Shall I book a table?")
TEXT = "".join(SENTENCES)
LONG = "This sentence takes its time, since it is interrupted. " * 3


@pytest.fixture(params=PROVIDERS, ids=str)
def provider(request):
    return request.param


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch):
    monkeypatch.setattr(streaming, "_RETRY_S", 0.01)


class Stage:
    """Emulators and voices of one test, and their end."""

    def __init__(self, provider):
        self.provider = provider
        self.ears = []
        self.emulators = []

    async def emulate(self, **options):
        emulator = self.provider.emulate(**options)
        self.emulators.append(emulator)
        return await emulator.start()

    def listen(self, emulator, audio_format=None, *, opened=True, **options):
        ear = Ear(self.provider.make(emulator, **options), audio_format)
        self.ears.append(ear)
        if opened:
            ear.tts.open(ear.format)
        return ear

    async def close(self):
        for ear in self.ears:
            ear.tts.dispose()
            await ear.tts.wait_disposed()
            assert not ear.tts._tasks
            assert ear.tts._timer is None
        for emulator in self.emulators:
            await emulator.until(lambda emulator=emulator: not emulator.sockets)
            await emulator.close()
        assert not shared._loops.get(asyncio.get_running_loop())


@pytest.fixture
async def stage(provider):
    stage = Stage(provider)
    yield stage
    await stage.close()


def squash(text):
    return " ".join(text.split())


def heard_all_once(spoken, text):
    """Whether all words were spoken in their order, and nothing twice but the word at which it was cut."""
    said = spoken.split()
    expected = text.split()
    cuts = 0
    if len(said) != len(expected):
        return False
    for word, wanted in zip(said, expected, strict=True):
        if word == wanted:
            continue
        cuts += 1
        if not word.endswith(wanted) or not wanted.startswith(word[: -len(wanted)]):
            return False
    return cuts <= 1


# Speaking.


async def test_a_part_is_spoken_as_it_was_posted(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator), uuid4()
    for sentence in SENTENCES:
        ear.say(sentence, turn, done=False)
    ear.say("", turn)
    await ear.done(turn)
    assert squash(ear.text(turn)) == TEXT
    assert ear.failures == []


async def test_a_part_may_come_with_its_end(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator), uuid4()
    ear.say(TEXT, turn)
    await ear.done(turn)
    assert squash(ear.text(turn)) == TEXT


async def test_text_that_comes_while_it_speaks_is_spoken_after_it(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator), uuid4()
    for sentence in SENTENCES:
        before = len(ear.of(turn))
        ear.say(sentence, turn, done=False)
        await ear.until(lambda before=before: len(ear.of(turn)) > before)
    ear.say("", turn)
    await ear.done(turn)
    assert squash(ear.text(turn)) == TEXT


async def test_the_end_may_come_long_after_the_last_word(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator), uuid4()
    ear.say("That is all. ", turn, done=False)
    await ear.until(lambda: ear.text(turn).split() == ["That", "is", "all."])
    ear.say("", turn)
    await ear.done(turn)
    assert squash(ear.text(turn)) == "That is all."
    assert ear.failures == []


async def test_an_empty_part_ends_at_once_and_here(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator), uuid4()
    ear.say("", turn, 1)
    ear.say("  ", turn, 2, done=False)
    ear.say(" ", turn, 2)
    assert [(message.part, message.data, message.done) for message in ear.messages] == [(1, b"", True), (2, b"", True)]
    ear.say(TEXT, turn, 3)
    await ear.done(turn, 3)
    assert squash(ear.text(turn, 3)) == TEXT


async def test_parts_one_after_another(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator), uuid4()
    for part, sentence in enumerate(SENTENCES):
        ear.say(sentence, turn, part)
        await ear.done(turn, part)
        assert squash(ear.text(turn, part)) == sentence.strip()


async def test_parts_that_are_open_at_once_do_not_mix(stage):
    emulator = await stage.emulate()
    ear = stage.listen(emulator)
    turns = [uuid4() for _ in range(8)]
    for number, turn in enumerate(turns):
        ear.say(f"This is turn number {number}. ", turn, number, done=False)
    for number, turn in enumerate(turns):
        ear.say("And so it ends.", turn, number)
    for number, turn in enumerate(turns):
        await ear.done(turn, number)
        assert squash(ear.text(turn, number)) == f"This is turn number {number}. And so it ends."
    assert ear.failures == []
    first = [next(i for i, m in enumerate(ear.messages) if m.uuid == turn) for turn in turns]
    assert first == sorted(first)


async def test_as_many_parts_speak_at_once_as_it_says(stage):
    emulator = await stage.emulate(speed=8)
    ear = stage.listen(emulator)
    slots = ear.tts.capabilities.parallel_parts
    turns = [uuid4() for _ in range(slots + 1)]
    for turn in turns:
        ear.say(SENTENCES[0], turn)
    for turn in turns:
        await ear.done(turn)
    ends = {turn: next(i for i, m in enumerate(ear.messages) if m.uuid == turn and m.done) for turn in turns}
    begins = {turn: next(i for i, m in enumerate(ear.messages) if m.uuid == turn) for turn in turns}
    together = turns[:slots]
    assert max(begins[turn] for turn in together) < min(ends[turn] for turn in together) or slots == 1
    assert begins[turns[-1]] > min(ends[turn] for turn in together)


async def test_words_are_timed_in_ms_of_the_parts_audio(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator), uuid4()
    for sentence in SENTENCES:
        ear.say(sentence, turn, done=False)
    ear.say("", turn)
    await ear.done(turn)
    if not ear.tts.capabilities.timings:
        assert ear.alignments == []
        return
    assert [word.text for word in ear.words(turn)] == TEXT.split()
    at = 0
    for word in ear.words(turn):
        at = TEXT.index(word.text, at)
        assert word.start_ms == pytest.approx(at * MS_PER_CHAR, abs=1)
        at += len(word.text)
        assert word.end_ms == pytest.approx(at * MS_PER_CHAR, abs=1)


async def test_words_are_told_of_when_their_audio_is_here(stage):
    emulator = await stage.emulate(speed=40)
    ear, turn = stage.listen(emulator), uuid4()
    ear.say(TEXT, turn)
    await ear.done(turn)
    here_ms = 0.0
    for event in ear.events:
        if isinstance(event, Message):
            here_ms = event.at_ms + ear.format.ms(len(event.data))
        else:
            assert all(word.end_ms <= here_ms + 31 for word in event.words)


async def test_every_format_it_declares(provider):
    for audio_format in provider.voice.formats:
        stage = Stage(provider)
        emulator = await stage.emulate()
        ear, turn = stage.listen(emulator, audio_format), uuid4()
        ear.say(TEXT, turn)
        await ear.done(turn)
        assert squash(ear.text(turn)) == TEXT
        assert ear.failures == []
        await stage.close()


# Use.


def test_construction_needs_no_loop_and_shows_no_key(provider):
    tts = provider.voice(api_key="key-that-must-not-show")
    assert "key-that-must-not-show" not in repr(tts)
    assert tts.formats == provider.voice.formats
    tts.abort(uuid4())
    tts.dispose()
    tts.dispose()


def test_wrong_arguments_are_named(provider):
    with pytest.raises(ConfigurationError, match="api_key"):
        provider.voice(api_key="")
    with pytest.raises(ConfigurationError, match="base URL"):
        provider.voice(api_key="k", base_url="nowhere")
    with pytest.raises(ConfigurationError, match="timeout_s"):
        provider.voice(api_key="k", timeout_s=0)


async def test_both_kinds_of_base_url_are_taken(stage):
    emulator = await stage.emulate()
    for scheme in ("http", "ws"):
        url = scheme + stage.provider.base_url(emulator).removeprefix("http")
        ear, turn = stage.listen(emulator, base_url=url), uuid4()
        ear.say("Hello there.", turn)
        await ear.done(turn)
        assert squash(ear.text(turn)) == "Hello there."


async def test_headers_and_query_reach_the_provider(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator, headers={"X-Proxy": "one"}, query={"trace": True}), uuid4()
    ear.say("Hello there.", turn)
    await ear.done(turn)
    assert emulator.requests[-1].headers["X-Proxy"] == "one"
    assert emulator.requests[-1].values("trace") == ["true"]


async def test_misuse_is_told(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator, opened=False), uuid4()
    with pytest.raises(StateError):
        ear.say("Too early.", turn)
    with pytest.raises(UnsupportedFormat):
        ear.tts.open(AudioFormat("mulaw", 11025))
    ear.tts.open(ear.format)
    with pytest.raises(StateError):
        ear.tts.open(ear.format)


async def test_a_part_that_has_ended_takes_no_more(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator), uuid4()
    ear.say("It ends here.", turn)
    await ear.done(turn)
    count = len(ear.messages)
    ear.say("Or not?", turn)
    ear.say("", turn)
    ear.tts.abort(turn)
    ear.say("Next.", turn, 1)
    await ear.done(turn, 1)
    assert len(ear.of(turn)) == count


async def test_a_listener_that_raises_hurts_nobody(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator), uuid4()

    def broken(message):
        raise ValueError("listener")

    ear.tts.on(TTS.MESSAGE, broken)
    ear.say("Hello there.", turn)
    await ear.done(turn)
    assert squash(ear.text(turn)) == "Hello there."


# Stopping.

STATES = ("unknown", "empty text", "connecting", "posted", "waiting", "speaking", "still open", "ended")


async def into(state, stage, ear, emulator, turn):
    """Bring part 0 of ``turn`` into a state."""
    if state in ("posted", "waiting", "speaking", "still open", "ended"):
        first = uuid4()
        ear.say("Ready.", first)
        await ear.done(first)
    if state == "waiting":
        for _ in range(ear.tts.capabilities.parallel_parts):
            ear.say(SENTENCES[0], uuid4())
    if state == "empty text":
        ear.say(" ", turn, done=False)
    elif state != "unknown":
        ear.say("Bye. " if state == "ended" else LONG, turn, done=state != "still open")
    if state in ("speaking", "still open"):
        await ear.until(lambda: ear.of(turn))
    if state == "ended":
        await ear.done(turn)


@pytest.mark.parametrize("state", STATES)
async def test_nothing_is_emitted_after_an_abort(stage, state):
    emulator = await stage.emulate(speed=20)
    ear, turn, other = stage.listen(emulator), uuid4(), uuid4()
    await into(state, stage, ear, emulator, turn)
    ear.tts.abort(turn)
    before = len([event for event in ear.events if getattr(event, "uuid", None) == turn])
    ear.tts.abort(turn)
    ear.say("Some more.", turn)
    ear.say(SENTENCES[1], other)
    await ear.done(other)
    # What was on its way for the aborted part has had the time to come.
    ear.say(SENTENCES[2], other, 1)
    await ear.done(other, 1)
    assert squash(ear.text(other)) == SENTENCES[1].strip()
    assert squash(ear.text(other, 1)) == SENTENCES[2]
    if state == "unknown":
        assert not any(message.data for message in ear.of(turn)) or squash(ear.text(turn)) == "Some more."
    else:
        assert len([event for event in ear.events if getattr(event, "uuid", None) == turn]) == before
    assert ear.fatal == []


async def test_abort_of_one_part_leaves_the_others(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator), uuid4()
    for part in range(4):
        ear.say(SENTENCES[0], turn, part)
    ear.tts.abort(turn, part=1)
    ear.tts.abort(turn, part=2)
    for part in (0, 3):
        await ear.done(turn, part)
        assert squash(ear.text(turn, part)) == SENTENCES[0].strip()
    assert ear.of(turn, 1) == []
    assert ear.of(turn, 2) == []
    assert ear.failures == []


async def test_late_audio_of_an_aborted_part_never_sounds_in_the_next(stage):
    emulator = await stage.emulate(speed=10)
    ear = stage.listen(emulator)
    turns = [uuid4() for _ in range(7)]
    for turn in turns:
        ear.say(LONG, turn)
        await ear.until(lambda turn=turn: ear.of(turn))
        ear.tts.abort(turn)
    last = uuid4()
    ear.say(TEXT, last)
    await ear.done(last, timeout_s=20)
    assert squash(ear.text(last)) == TEXT
    assert not any(message.done for turn in turns for message in ear.of(turn))
    assert ear.failures == []


async def test_a_listener_may_abort_in_the_middle_of_a_message(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator), uuid4()
    stop = lambda message: ear.tts.abort(message.uuid)  # noqa: E731
    ear.tts.on(TTS.MESSAGE, stop)
    ear.say(LONG, turn)
    await ear.until(lambda: ear.messages)
    ear.tts.off(TTS.MESSAGE, stop)
    last = uuid4()
    ear.say(TEXT, last)
    await ear.done(last)
    assert len(ear.of(turn)) == 1
    assert ear.words(turn) == []
    assert squash(ear.text(last)) == TEXT


@pytest.mark.parametrize("state", [*STATES, "unopened", "hanging", "refused", "reconnecting", "stalled"])
async def test_dispose_in_every_state_leaves_nothing(stage, state):
    faults = {
        "hanging": Faults(hang=True),
        "refused": Faults(refuse=401),
        "reconnecting": Faults(drop_after=stage.provider.preface, times=1),
        "stalled": Faults(stall_after=stage.provider.preface),
    }.get(state)
    emulator = await stage.emulate(speed=20, faults=faults)
    ear, turn = stage.listen(emulator, opened=state != "unopened"), uuid4()
    if faults is not None:
        ear.say(TEXT, turn, 1)
        await emulator.until(lambda: emulator.requests)
    if state in ("refused", "reconnecting"):
        await ear.until(lambda: ear.failures)
    if state not in ("unopened", "hanging", "refused", "reconnecting", "stalled"):
        await into(state, stage, ear, emulator, turn)
    count = len(ear.events)
    ear.tts.dispose()
    ear.tts.dispose()
    if state != "unopened":
        ear.say("Too late.", turn, 7)
    ear.tts.abort(turn)
    await ear.tts.wait_disposed()
    assert not ear.tts._tasks
    assert len(ear.events) == count
    await emulator.until(lambda: not emulator.sockets)


# What goes wrong.


@pytest.mark.parametrize("after", range(6))
async def test_a_cut_connection_loses_nothing_unsaid_and_says_nothing_twice(stage, after):
    emulator = await stage.emulate(faults=Faults(drop_after=after, times=1))
    ear, turn, later = stage.listen(emulator), uuid4(), uuid4()
    ear.say(TEXT, turn)
    await ear.done(turn)
    if heard_all_once(ear.text(turn), TEXT):
        assert len(ear.failures) <= 1
    else:
        assert TEXT.startswith(squash(ear.text(turn)))
        assert ear.failures
        assert not ear.tts.capabilities.timings
    ear.say(SENTENCES[0], later)
    await ear.done(later)
    assert squash(ear.text(later)) == SENTENCES[0].strip()
    assert ear.fatal == []


async def test_a_connection_that_breaks_again_and_again_ends_the_part(stage):
    emulator = await stage.emulate(faults=Faults(drop_after=stage.provider.preface))
    ear, turn = stage.listen(emulator), uuid4()
    ear.say(TEXT, turn)
    await ear.done(turn)
    assert ear.audio(turn) == b""
    assert ear.failures


async def test_a_connection_closed_in_good_order_is_nobodys_concern(stage):
    if not stage.provider.socket:
        pytest.skip("a request ends, no connection does")
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator), uuid4()
    ear.say(SENTENCES[0], turn)
    await ear.done(turn)
    await emulator.sockets[0].close(1000)
    await emulator.until(lambda: emulator.connections == 2)
    ear.say(SENTENCES[1], turn, 1)
    await ear.done(turn, 1)
    assert squash(ear.text(turn, 1)) == SENTENCES[1].strip()
    assert ear.failures == []


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_stall_ends_the_part_after_its_time(stage, after):
    after += stage.provider.preface
    emulator = await stage.emulate(faults=Faults(stall_after=after, times=1))
    ear, turn = stage.listen(emulator, timeout_s=0.2), uuid4()
    ear.say(TEXT, turn)
    await ear.done(turn)
    assert TEXT.startswith(squash(ear.text(turn)))
    assert [type(failure.error) for failure in ear.failures] == [ProviderError]
    assert ear.fatal == []
    assert "no sign of life" in str(ear.failures[0].error)


async def test_a_voice_that_stays_mute_fails_for_good(stage):
    emulator = await stage.emulate(faults=Faults(stall_after=stage.provider.preface))
    ear, turn = stage.listen(emulator, timeout_s=0.1), uuid4()
    for part in range(2):
        ear.say(TEXT, turn, part)
        await ear.done(turn, part, timeout_s=6)
    assert len(ear.fatal) == 1


async def test_a_part_that_lives_does_not_time_out(stage):
    emulator = await stage.emulate(speed=6)
    ear, turn = stage.listen(emulator, timeout_s=0.25), uuid4()
    ear.say(TEXT, turn)
    await ear.done(turn)
    assert squash(ear.text(turn)) == TEXT
    assert ear.failures == []


@pytest.mark.parametrize(
    "faults",
    [
        Faults(refuse=429, times=1),
        Faults(refuse=500, times=2),
        Faults(refuse=503, times=1, refuse_headers={"Retry-After": "0"}),
        Faults(drip_s=0.003),
        Faults(drop_after=0, times=2),
    ],
    ids=repr,
)
async def test_every_passing_fault_costs_no_word(stage, faults):
    emulator = await stage.emulate(faults=faults)
    ear, turn = stage.listen(emulator), uuid4()
    for sentence in SENTENCES:
        ear.say(sentence, turn, done=False)
    ear.say("", turn)
    await ear.done(turn)
    assert squash(ear.text(turn)) == TEXT
    assert ear.fatal == []


@pytest.mark.parametrize("garbage", [0, 1, 2])
async def test_garbage_is_told_and_costs_no_word(stage, garbage):
    if not stage.provider.socket:
        pytest.skip("a body of audio may be anything")
    emulator = await stage.emulate(faults=Faults(garbage_after=garbage, unknown=True))
    ear, turn = stage.listen(emulator), uuid4()
    ear.say(TEXT, turn)
    await ear.done(turn)
    assert squash(ear.text(turn)) == TEXT
    assert [type(failure.error) for failure in ear.failures] == [RemoteProtocolError]
    assert ear.fatal == []


ODD = ("[]", "7", "{}", "null", '""', '{"type":"chunk","context_id":5}', '{"audio":"not base64!","contextId":"x"}')
ODD += ('{"type":"Flushed","sequence_id":3}', '{"type":"Cleared"}', '{"type":"done","context_id":"unknown"}')
ODD += ('{"isFinal":true,"contextId":"unknown"}', '{"audio":"////","contextId":"unknown"}', '{"type":"Flushed"}')


async def send_odd(emulator, ear):
    socket = ear.tts._socket
    received = socket.received + len(ODD) + 1
    for message in (*ODD, "the last of them is not JSON"):
        await emulator.sockets[0].send(message)
    async with asyncio.timeout(5.0):
        while socket.received < received:
            await asyncio.sleep(0)


async def test_odd_messages_hurt_nobody(stage):
    if not stage.provider.socket:
        pytest.skip("a body of audio may be anything")
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator), uuid4()
    await emulator.until(lambda: emulator.sockets)
    await send_odd(emulator, ear)
    ear.say(TEXT, turn)
    await ear.done(turn)
    assert squash(ear.text(turn)) == TEXT
    assert ear.fatal == []
    await send_odd(emulator, ear)
    ear.say("Still here.", turn, 1)
    await ear.done(turn, 1)
    assert squash(ear.text(turn, 1)) == "Still here."
    told = [str(failure.error) for failure in ear.failures]
    assert len(told) == len(set(told))  # each once, also of those that came twice
    assert any("not JSON" in text for text in told)


async def test_a_wrong_key_is_one_fatal_error_and_ends_every_part(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator, api_key="wrong-secret"), uuid4()
    for part in range(3):
        ear.say(TEXT, turn, part)
    for part in range(3):
        await ear.done(turn, part)
    [failure] = ear.failures
    assert failure.fatal
    assert isinstance(failure.error, AuthenticationError)
    assert "wrong-secret" not in str(failure.error)
    ear.say("Nobody hears ", turn, 3, done=False)
    ear.say("this.", turn, 3)
    await ear.done(turn, 3)
    assert not any(message.data for message in ear.messages)
    assert len(ear.failures) == 1
    posts = [request for request in emulator.requests if request.method != "HEAD"]
    assert len(posts) <= stage.provider.voice.capabilities.parallel_parts


@pytest.mark.parametrize("status", [400, 404, 429, 500])
async def test_a_refusal_that_lasts_is_fatal_and_ends_every_part(stage, status):
    emulator = await stage.emulate(faults=Faults(refuse=status))
    short = {"backoff": Backoff(first_s=0.01, limit_s=0.02, give_up_s=0.1)} if stage.provider.socket else {}
    ear, turn = stage.listen(emulator, **short), uuid4()
    for part in range(3):
        ear.say(TEXT, turn, part)
    for part in range(3):
        await ear.done(turn, part)
    assert ear.fatal
    assert str(status) in str(ear.fatal[0].error)
    assert all(isinstance(failure.error, ProviderError) for failure in ear.failures)
    assert not any(message.data for message in ear.messages)


async def test_a_voice_that_does_not_exist_is_a_named_error(stage):
    emulating, speaking = stage.provider.wrong_voice
    emulator = await stage.emulate(**emulating)
    ear, turn = stage.listen(emulator, **speaking), uuid4()
    for part in range(2):
        ear.say(TEXT, turn, part)
        await ear.done(turn, part)
    assert ear.fatal
    assert isinstance(ear.fatal[0].error, ProviderError)
    assert not ear.fatal[0].error.retryable
    assert not any(message.data for message in ear.messages)


async def test_an_empty_account_is_a_named_error(stage):
    emulator = await stage.emulate(**stage.provider.quota)
    ear, turn = stage.listen(emulator), uuid4()
    for part in range(2):
        ear.say(TEXT, turn, part)
        await ear.done(turn, part)
    assert ear.fatal
    assert isinstance(ear.fatal[0].error, ProviderError)
    assert not ear.fatal[0].error.retryable


async def test_no_error_tells_what_was_to_be_said(stage, caplog):
    caplog.set_level("DEBUG", "dialog")
    emulator = await stage.emulate(faults=Faults(drop_after=3, garbage_after=1, times=1))
    ear, turn = stage.listen(emulator, timeout_s=0.3), uuid4()
    ear.say("Your code is sesame.", turn)
    await ear.done(turn)
    told = itertools.chain(caplog.messages, (str(failure.error) for failure in ear.failures))
    assert not [line for line in told if "sesame" in line]
    assert all(isinstance(failure.error, DialogError) for failure in ear.failures)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_in_whatever_order(stage, seed):
    """Parts come, are aborted, and connections break: each part that was not aborted ends once, and is not mixed up."""
    chance = random.Random(seed)
    emulator = await stage.emulate(speed=chance.choice([60, 200, 1000]))
    patient = {"backoff": Backoff(first_s=0.01, limit_s=0.05)} if stage.provider.socket else {}
    ear = stage.listen(emulator, **patient)
    open_, texts, aborted = [], {}, {}
    cuts = 0
    for number in range(60):
        action = chance.choice(["begin", "go on", "go on", "end", "abort", "breathe", "breathe", "cut"])
        if action == "begin" and len(open_) < 6:
            turn = uuid4()
            open_.append(turn)
            texts[turn] = ""
        elif action in ("go on", "end") and open_:
            turn = chance.choice(open_)
            text = chance.choice(["", " ", f"Sentence {number}. ", f"A longer sentence, which is number {number}. "])
            texts[turn] += text
            ear.say(text, turn, done=action == "end")
            if action == "end":
                open_.remove(turn)
        elif action == "abort" and texts and chance.random() < 0.5:
            turn = chance.choice([turn for turn in texts if turn not in aborted] or [uuid4()])
            ear.tts.abort(turn)
            aborted[turn] = len([event for event in ear.events if getattr(event, "uuid", None) == turn])
            if turn in open_:
                open_.remove(turn)
        elif action == "breathe":
            await asyncio.sleep(chance.choice([0, 0, 0.002, 0.02]))
        elif action == "cut" and chance.random() < 0.2 and emulator.sockets:
            emulator.sockets[0].drop()
            cuts += 1
    for turn in open_:
        ear.say("", turn)
    for turn, text in texts.items():
        if turn in aborted:
            continue
        await ear.done(turn, timeout_s=20)
        if not cuts:
            assert squash(ear.text(turn)) == squash(text)
    for turn, count in aborted.items():
        assert len([event for event in ear.events if getattr(event, "uuid", None) == turn]) == count
    assert not ear.tts._parts
    assert ear.fatal == []
    if not cuts:
        assert ear.failures == []
    last = uuid4()
    ear.say("All is well.", last)
    await ear.done(last)
    assert squash(ear.text(last)) == "All is well."


async def test_audio_that_comes_when_a_context_is_over_is_dropped_and_named_once(stage):
    if not stage.provider.audio_field:
        pytest.skip("its audio belongs to a request, or has no name")
    emulator = await stage.emulate()
    ear, turn, other = stage.listen(emulator), uuid4(), uuid4()
    ear.say(SENTENCES[0], turn)
    await ear.done(turn)
    sent = [frame for frame in emulator.frames if frame.sent and isinstance(frame.data, str)]
    late = next(frame.data for frame in sent if frame.json().get(stage.provider.audio_field))
    for _ in range(3):
        await emulator.sockets[0].send(late)
    ear.say(SENTENCES[1], other)
    await ear.done(other)
    assert squash(ear.text(other)) == SENTENCES[1].strip()
    assert squash(ear.text(turn)) == SENTENCES[0].strip()
    [failure] = ear.failures
    assert isinstance(failure.error, RemoteProtocolError)
    assert not failure.fatal
    assert "is over" in str(failure.error)


# What it costs.


def usage_of(ear):
    told = []
    ear.tts.on(TTS.USAGE, told.append)
    return told


async def test_what_a_part_used_is_told_once_with_its_end(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator), uuid4()
    told = usage_of(ear)
    for sentence in SENTENCES:
        ear.say(sentence, turn, done=False)
    ear.say("", turn)
    await ear.done(turn)
    [used] = told
    assert used.uuid == turn
    assert used.usage.characters == len(TEXT)
    assert used.usage.output_audio_s == pytest.approx(ear.format.ms(len(ear.audio(turn))) / 1000.0, abs=0.001)
    assert used.usage.input_audio_s == used.usage.output_tokens == 0
    assert cost_usd(used.usage)
    ear.say("", uuid4())  # nothing to say
    ear.tts.dispose()
    assert len(told) == 1


async def test_what_was_asked_for_is_used_also_if_nobody_hears_it_to_its_end(stage):
    emulator = await stage.emulate(speed=20)
    ear, turn, other = stage.listen(emulator), uuid4(), uuid4()
    told = usage_of(ear)
    ear.say(LONG, turn)
    await ear.until(lambda: ear.of(turn))
    ear.tts.abort(turn)
    ear.tts.abort(turn)
    assert [used.usage.characters for used in told] == [len(LONG)]
    ear.say(LONG, other)
    await ear.until(lambda: ear.of(other))
    ear.tts.dispose()
    ear.tts.dispose()
    assert [used.usage.characters for used in told] == [len(LONG)] * 2


async def test_text_that_was_refused_is_not_used(stage):
    emulator = await stage.emulate(faults=Faults(refuse=401))
    ear, turn = stage.listen(emulator), uuid4()
    told = usage_of(ear)
    ear.say(TEXT, turn)
    await ear.done(turn)
    assert told == []


async def test_other_voices_tell_what_they_used_as_well(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator), uuid4()
    told = usage_of(ear)
    ear.say(TEXT, turn, voice=stage.provider.other_voice)
    await ear.done(turn)
    assert [(used.uuid, used.usage.characters) for used in told] == [(turn, len(TEXT))]


# Several voices.


async def test_each_part_is_spoken_by_the_voice_that_it_names(stage):
    emulator = await stage.emulate()
    other = stage.provider.other_voice
    ear, turn = stage.listen(emulator), uuid4()
    assert ear.tts.capabilities.voices
    for part, voice in enumerate(("", other, "", other)):
        ear.say(SENTENCES[part % 3], turn, part, voice=voice, done=False)
        ear.say("And no more.", turn, part, voice=voice)
        await ear.done(turn, part)
        assert squash(ear.text(turn, part)) == squash(SENTENCES[part % 3] + "And no more.")
    asked = [voice for voice, _ in itertools.groupby(stage.provider.asked(emulator))]
    assert asked[1::2] == [other, other]
    assert asked[0] == asked[2] != other
    assert ear.failures == []


async def test_voices_may_speak_at_the_same_time_and_do_not_mix(stage):
    emulator = await stage.emulate()
    ear, turn = stage.listen(emulator), uuid4()
    for part in range(4):
        ear.say(SENTENCES[part % 3], turn, part, voice=stage.provider.other_voice if part % 2 else "")
    for part in range(4):
        await ear.done(turn, part)
        assert squash(ear.text(turn, part)) == squash(SENTENCES[part % 3])


async def test_a_part_in_another_voice_can_be_aborted(stage):
    emulator = await stage.emulate(speed=1)
    ear, turn = stage.listen(emulator), uuid4()
    ear.say(LONG, turn, voice=stage.provider.other_voice)
    await ear.until(lambda: ear.messages)
    ear.tts.abort(turn)
    ear.say("More of it.", turn, voice=stage.provider.other_voice)
    told = len(ear.messages)
    emulator.speed = 100
    ear.say(SENTENCES[0], turn, 1, voice=stage.provider.other_voice)
    await ear.done(turn, 1)
    assert all(message.part == 1 for message in ear.messages[told:])
    assert squash(ear.text(turn, 1)) == squash(SENTENCES[0])


async def test_a_wrong_name_of_a_voice_costs_its_parts_and_not_the_call(stage):
    emulator = await stage.emulate(**stage.provider.only_own)
    wrong = stage.provider.other_voice if stage.provider.only_own else "nobody"
    ear, turn = stage.listen(emulator), uuid4()
    ear.say(SENTENCES[0], turn, 0)
    await ear.done(turn, 0)
    for part in (1, 2):
        ear.say(SENTENCES[0], turn, part, voice=wrong)
        await ear.done(turn, part)
        assert not ear.audio(turn, part)
    assert ear.failures
    assert ear.fatal == []
    ear.say(SENTENCES[1], turn, 5)
    await ear.done(turn, 5)
    assert squash(ear.text(turn, 5)) == squash(SENTENCES[1])
