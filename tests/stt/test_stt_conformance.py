"""What every recogniser over a socket does, whatever its service is like."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from stt_providers import CALL, PROVIDERS, SENTENCES, Ear, Provider, silence, speech

from dialog.agent.speakers import Speakers
from dialog.calls.prices import cost_usd
from dialog.errors import (
    AuthenticationError,
    ConfigurationError,
    ProviderError,
    RemoteProtocolError,
    StateError,
    UnsupportedFormat,
)
from dialog.message import MULAW_8K, AudioFormat, Message
from dialog.net import shared
from dialog.net.reconnect import Backoff
from dialog.stt.stt import STT
from dialog.testing.server import Faults
from dialog.usage import Usage

pytestmark = pytest.mark.parametrize("provider", PROVIDERS, ids=str)


@pytest.fixture
async def listen(provider: Provider):
    """Make recognisers that listen, and see that nothing of them is left."""
    ears: list[Ear] = []

    async def make(emulator: Any, *, wait: bool = True, **options: Any) -> Ear:
        ear = Ear(provider, emulator, **options)
        ears.append(ear)
        ear.stt.open(MULAW_8K)
        if wait:
            await ear.connected()
        return ear

    yield make
    for ear in ears:
        ear.stt.dispose()
        await ear.stt.wait_disposed()
        assert not ear.stt._tasks
        assert ear.emulator.violations == []
    assert not shared._loops.get(asyncio.get_running_loop())


# What is told, and in which order.


async def test_events_come_in_their_order_and_share_one_uuid(provider, listen):
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        await ear.hear(silence(400))
        await ear.utter(0)
        names = [name for name, _ in ear.events]
        [final] = ear.told("message")
        interims = ear.told("interim")
        assert final.data == SENTENCES[0]
        assert interims
        assert {utterance.uuid for utterance in [*interims, *ear.told("eager")]} == {final.uuid}
        assert all(final.data.startswith(interim.data) for interim in interims)
        assert len({interim.data for interim in interims}) == len(interims)  # none is told twice
        assert [edge.state for edge in ear.told("vad")] == ["started", "stopped"]
        assert names[0] == "vad"
        assert names[-2:] == ["vad", "message"]
        assert ear.failures == []


async def test_times_are_on_the_calls_clock(provider, listen):
    if not provider.knows_times:
        pytest.skip("does not know when an utterance was said")
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        ear.at_ms = 60_000.0
        await ear.hear(silence(500))
        await ear.utter(0, 1500)
        [final] = ear.told("message")
        # A service that tells no times is believed to have told the words when they were said.
        assert 60_400 <= final.at_ms <= 61_000
        assert 61_500 <= final.end_ms <= 62_300
        assert bool(final.words) <= provider.factory.capabilities.words or final.words
        assert ear.stt.safe_ms >= final.at_ms


async def test_utterances_follow_each_other_with_uuids_of_their_own(provider, listen):
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        for sentence in (0, 1, 2, 0):
            await ear.utter(sentence)
        assert ear.finals == [SENTENCES[i] for i in (0, 1, 2, 0)]
        assert len({final.uuid for final in ear.told("message")}) == 4
        assert [edge.state for edge in ear.told("vad")] == ["started", "stopped"] * 4


async def test_silence_and_noises_say_nothing(provider, listen):
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        emulator.hears = lambda _: ""
        await ear.hear(silence(2000) + speech(0, 200) + silence(1500))
        assert ear.finals == []
        assert ear.told("interim") == ear.told("eager") == []
        assert ear.failures == []


async def test_early_ends_are_told_and_withdrawn_where_the_service_knows_them(provider, listen):
    if not provider.factory.capabilities.eager or provider.manual:
        pytest.skip("tells no early ends")
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        emulator.hears = lambda _: "my number is | five five five"
        await ear.hear(speech(0, 1000) + silence(300) + speech(0, 1000) + silence(900))
        await ear.until(lambda: ear.finals)
        names = [name for name, _ in ear.events if name in ("eager", "eager_withdrawn", "message")]
        assert names == ["eager", "eager_withdrawn", "eager", "message"]
        first, second = ear.told("eager")
        assert first.data == "my number is"
        assert second.data == ear.finals[0] == "my number is five five five"
        assert ear.told("eager_withdrawn") == [first.uuid]
        assert second.uuid == ear.told("message")[0].uuid


async def test_speakers_are_named_from_zero_where_they_are_told_apart(provider, listen):
    if provider.tells_speakers is None:
        pytest.skip("does not tell speakers apart")
    async with provider.emulator() as emulator:
        emulator.who = lambda word: int(word in ("for", "two", "by"))
        ear = await listen(emulator, **provider.tells_speakers)
        for sentence in (0, 1, 2):
            await ear.utter(sentence)
        both, first, mixed = ear.told("message")
        assert (both.speaker, both.speakers) == (None, ("0", "1"))
        assert [word.speaker for word in both.words] == ["0", "0", "1", "1"]
        assert (first.speaker, first.speakers) == ("0", ("0",))
        assert mixed.speakers == ("1", "0")
        assert Speakers().text([both]) == "[speaker 0] a table [speaker 1] for two"


# Formats and settings.


async def test_every_format_that_is_promised_is_taken(provider):
    for audio_format in provider.factory.formats:
        async with provider.emulator() as emulator:
            ear = Ear(provider, emulator)
            ear.stt.open(audio_format)
            await ear.connected()
            ear.stt.post(Message(uuid=CALL, data=audio_format.silence(20)))
            await emulator.until(lambda emulator=emulator: emulator.received())
            assert emulator.violations == []
            ear.stt.dispose()
            await ear.stt.wait_disposed()
    with pytest.raises(UnsupportedFormat, match=provider.factory.provider):
        provider.factory(api_key="k").open(AudioFormat("mulaw", 44_100))


def test_the_telephone_needs_no_conversion(provider):
    assert provider.factory.formats[0] == MULAW_8K


def test_wrong_use_is_named(provider):
    with pytest.raises(ConfigurationError, match="api_key"):
        provider.factory(api_key="")
    with pytest.raises(ConfigurationError):
        provider.factory(api_key="k", base_url="no.url")
    stt = provider.factory(api_key="secret-key")
    assert "secret-key" not in repr(stt)
    with pytest.raises(StateError):
        stt.post(Message(uuid=CALL, data=b"\xff"))


async def test_headers_options_and_query_are_passed_on(provider):
    async with provider.emulator() as emulator:
        ear = Ear(
            provider,
            emulator,
            headers={"X-Proxy": "1"},
            options={"brand_new": "yes"},
            query={"route": "eu"},
        )
        ear.stt.open(MULAW_8K)
        await ear.connected()
        request = emulator.requests[0]
        assert request.headers["X-Proxy"] == "1"
        assert request.values("route") == ["eu"]
        if "brand_new" not in str(request.query):
            await emulator.until(lambda: any("brand_new" in frame.data for frame in emulator.received(str)))
        ear.stt.dispose()
        await ear.stt.wait_disposed()


# Finalizing and discarding.


async def test_finalize_brings_the_words_within_its_bound(provider, listen):
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        await ear.hear(speech(0, 1600))
        if provider.words_while_speaking:
            await ear.until(lambda: ear.told("interim")[-1:] and ear.told("interim")[-1].data == SENTENCES[0])
        ear.stt.finalize()
        await ear.until(lambda: ear.finals, timeout_s=0.8)
        assert ear.finals == [SENTENCES[0]]
        assert ear.told("message")[0].uuid == ear.told("interim")[0].uuid
        # What the service says to it later is said already.
        await ear.hear(silence(1500))
        if not provider.ends_alone:
            ear.stt.finalize()
            await ear.hear(silence(100))
        await ear.utter(1)
        assert ear.finals == SENTENCES[:2]


async def test_finalize_is_harmless_in_every_state(provider):
    async with provider.emulator() as emulator:
        ear = Ear(provider, emulator, timeout_s=0.05)
        ear.stt.finalize()  # not open
        ear.stt.open(MULAW_8K)
        ear.stt.finalize()  # not connected
        await ear.connected()
        ear.stt.finalize()  # nothing said
        ear.stt.finalize()
        await ear.hear(silence(100))
        await ear.utter(0)
        emulator.faults = Faults(refuse=401)
        emulator.sockets[0].drop()
        await ear.until(lambda: any(failure.fatal for failure in ear.failures))
        ear.stt.finalize()  # given up
        ear.stt.dispose()
        ear.stt.finalize()  # disposed of
        await ear.stt.wait_disposed()
        assert ear.finals == [SENTENCES[0]]


async def test_finalize_while_there_is_no_connection_brings_what_was_heard(provider, listen):
    if not provider.words_while_speaking:
        pytest.skip("tells no words while they are said")
    async with provider.emulator() as emulator:
        ear = await listen(emulator, timeout_s=0.1)
        await ear.hear(speech(0, 1600))
        await ear.until(lambda: ear.told("interim") and ear.told("interim")[-1].data == SENTENCES[0])
        emulator.faults = Faults(hang=True)
        emulator.sockets[0].drop()
        await ear.until(lambda: ear.failures)
        ear.stt.finalize()
        await ear.until(lambda: ear.finals, timeout_s=1.0)
        assert ear.finals == [SENTENCES[0]]


async def test_a_connection_that_breaks_when_it_was_asked_is_followed_by_one_that_is_asked_again(provider, listen):
    async with provider.emulator() as emulator:
        ear = await listen(emulator, timeout_s=0.05)
        await ear.hear(silence(300) + speech(0, 1200) + silence(200))
        emulator.sockets[-1].drop()
        ear.stt.finalize()  # nobody knows yet
        await ear.until(lambda: ear.finals)
        await ear.connected(2)
        await ear.hear(silence(900))
        await ear.utter(1)
        await ear.settled()
        assert ear.finals == SENTENCES[:2]


async def test_discard_forgets_what_was_said(provider, listen):
    if provider.manual and not provider.words_while_speaking:
        pytest.skip("tells nothing before it is asked")
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        await ear.hear(speech(0, 1200))
        if provider.words_while_speaking:
            await ear.until(lambda: ear.told("interim"))
        ear.stt.discard(ear.at_ms + 100)
        await ear.hear(silence(1500))
        if not provider.ends_alone:
            ear.stt.finalize()
            await ear.hear(silence(200))
        await ear.until(lambda: ear.told("vad")[-1].state == "stopped")
        await ear.utter(1)
        assert ear.finals == [SENTENCES[1]]


async def test_discard_withdraws_an_early_end(provider, listen):
    if not provider.factory.capabilities.eager or provider.manual:
        pytest.skip("tells no early ends")
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        await ear.hear(speech(0, 1500) + silence(300))
        await ear.until(lambda: ear.told("eager"))
        ear.stt.discard(ear.at_ms + 100)
        assert ear.told("eager_withdrawn") == [ear.told("eager")[0].uuid]


# Connections that come and go.


async def test_audio_before_the_connection_is_heard(provider, listen):
    async with provider.emulator() as emulator:
        ear = await listen(emulator, wait=False)
        ear.say(speech(0, 1200) + silence(provider.silence_ms))
        if not provider.ends_alone:
            ear.stt.finalize()  # asked for before there is anybody to ask
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]
        if provider.factory.capabilities.words:  # it is history by now, and pauses nobody
            assert ear.told("vad") == []


@pytest.mark.parametrize("at_ms", [50, 400, 1000, 1450, 1600, 2000, 2600, 3100])
async def test_a_cut_line_loses_nothing_and_doubles_nothing(provider, listen, at_ms):
    """The line is cut once, at several places of two utterances."""
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        audio = silence(200) + speech(0, 1200) + silence(1000)
        if not provider.ends_alone:
            at_ms = min(at_ms, 1300)
        again = speech(1, 1200) + silence(1000)
        script = audio + again if provider.ends_alone else audio
        await ear.hear(script[: at_ms * 8])
        emulator.sockets[0].drop()
        await ear.hear(script[at_ms * 8 :])
        await ear.connected(2)
        await ear.settled()
        if not provider.ends_alone:
            ear.stt.finalize()
            await ear.until(lambda: ear.finals)
            await ear.hear(again)
            ear.stt.finalize()
        await ear.until(lambda: len(ear.finals) >= 2)
        await ear.hear(silence(1000))
        assert ear.finals == SENTENCES[:2]
        assert len({final.uuid for final in ear.told("message")}) == 2
        assert [failure.fatal for failure in ear.failures] == [False]


async def test_the_uuid_of_an_utterance_outlives_its_connection(provider, listen):
    if not provider.words_while_speaking:
        pytest.skip("tells no words while they are said")
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        await ear.hear(speech(0, 1200))
        await ear.until(lambda: ear.told("interim"))
        uuid = ear.told("interim")[0].uuid
        emulator.sockets[0].drop()
        await ear.connected(2)
        await ear.hear(speech(0, 200) + silence(provider.silence_ms))
        if not provider.ends_alone:
            ear.stt.finalize()
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]
        assert ear.told("message")[0].uuid == uuid
        assert [edge.state for edge in ear.told("vad")] == ["started", "stopped"]


async def test_an_early_end_does_not_outlive_its_connection(provider, listen):
    if not provider.factory.capabilities.eager or provider.manual:
        pytest.skip("tells no early ends")
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        await ear.hear(speech(0, 1500) + silence(300))
        await ear.until(lambda: ear.told("eager"))
        emulator.sockets[0].drop()
        await ear.until(lambda: ear.told("eager_withdrawn"))
        await ear.connected(2)
        await ear.hear(silence(900))
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]


async def test_the_end_of_a_session_is_unheard(provider, listen):
    if provider.manual and not provider.words_while_speaking:
        pytest.skip("tells nothing before it is asked")
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        ear.stt._limit_session(0.01)  # the service tells, or its adapter knows
        await ear.connected(2)
        await ear.utter(0)
        await ear.hear(speech(1, 600))
        await ear.until(lambda: len(ear.told("vad")) == 3)
        ear.stt._renew_if_quiet()  # somebody speaks
        assert emulator.connections == 2
        await ear.hear(speech(1, 600) + silence(provider.silence_ms))
        if not provider.ends_alone:
            ear.stt.finalize()
        await ear.connected(3)
        await ear.utter(2)
        assert ear.finals == SENTENCES
        assert ear.failures == []


async def test_a_session_that_ends_in_mid_utterance_loses_nothing(provider, listen):
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        await ear.hear(speech(0, 900))
        ear.stt._renew()
        await ear.hear(speech(0, 300))
        await ear.connected(2)
        await ear.settled()
        await ear.hear(silence(provider.silence_ms))
        if not provider.ends_alone:
            ear.stt.finalize()
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]
        assert ear.failures == []


# Faults.


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_one_fatal_error_that_says_so(provider, listen, status):
    async with provider.emulator(faults=Faults(refuse=status)) as emulator:
        ear = await listen(emulator, wait=False)
        ear.say(speech(0, 100))
        await ear.until(lambda: ear.failures)
        [failure] = ear.failures
        assert failure.fatal
        assert isinstance(failure.error, AuthenticationError)
        assert provider.factory.provider in str(failure.error)
        assert str(status) in str(failure.error)
        assert emulator.api_key not in str(failure.error)
        ear.say(speech(0, 100))
        ear.stt.finalize()
        assert len(emulator.requests) == 1


async def test_a_wrong_key_is_refused(provider, listen):
    async with provider.emulator() as emulator:
        ear = await listen(emulator, wait=False, api_key="wrong-key")
        await ear.until(lambda: ear.failures)
        [failure] = ear.failures
        assert failure.fatal
        assert isinstance(failure.error, AuthenticationError)
        assert "wrong-key" not in str(failure.error)


async def test_a_request_that_can_never_work_is_made_once(provider, listen):
    async with provider.emulator(faults=Faults(refuse=400)) as emulator:
        ear = await listen(emulator, wait=False)
        await ear.until(lambda: ear.failures)
        [failure] = ear.failures
        assert failure.fatal
        assert not failure.retryable
        assert len(emulator.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_passing_refusal_costs_no_word(provider, listen, status):
    async with provider.emulator(faults=Faults(refuse=status, times=2)) as emulator:
        ear = await listen(emulator, wait=False)
        await ear.connected()
        await ear.utter(0)
        assert ear.finals == [SENTENCES[0]]
        [failure] = ear.failures  # two refusals, one report
        assert not failure.fatal
        assert str(status) in str(failure.error)


@pytest.mark.parametrize("status", [429, 500])
async def test_a_lasting_refusal_ends_in_one_fatal_error(provider, listen, status):
    async with provider.emulator(faults=Faults(refuse=status)) as emulator:
        ear = await listen(emulator, wait=False, backoff=Backoff(first_s=0.01, limit_s=0.02, give_up_s=0.1))
        await ear.until(lambda: any(failure.fatal for failure in ear.failures))
        assert [failure.fatal for failure in ear.failures] == [False, True]
        assert isinstance(ear.failures[-1].error, ProviderError)
        assert len(emulator.requests) > 2


async def test_words_that_were_understood_before_the_end_still_count(provider, listen):
    if not provider.words_while_speaking:
        pytest.skip("tells no words while they are said")
    async with provider.emulator() as emulator:
        ear = await listen(emulator, backoff=Backoff(first_s=0.01, limit_s=0.02, give_up_s=0.05))
        await ear.hear(speech(0, 1600))
        await ear.until(lambda: ear.told("interim") and ear.told("interim")[-1].data == SENTENCES[0])
        emulator.faults = Faults(refuse=503)
        emulator.sockets[0].drop()
        await ear.until(lambda: any(failure.fatal for failure in ear.failures))
        assert ear.finals == [SENTENCES[0]]
        assert [edge.state for edge in ear.told("vad")] == ["started", "stopped"]


@pytest.mark.parametrize(
    "faults",
    [
        Faults(drop_after=2, times=1),
        Faults(drop_after_bytes=6000, times=1),
        Faults(close_after=2, close_code=1011, times=1),
        Faults(close_after=2, close_code=1000, times=1),
        Faults(unknown=True),
        Faults(drip_s=0.005),
        Faults(garbage_after=1),
    ],
    ids=repr,
)
async def test_a_passing_fault_costs_no_word(provider, listen, faults):
    async with provider.emulator(faults=replace(faults)) as emulator:
        ear = await listen(emulator, wait=False)
        await ear.connected()
        await ear.hear(speech(0, 1200) + silence(provider.silence_ms))
        if not provider.ends_alone and not provider.words_while_speaking:
            ear.stt.finalize()  # it says nothing before
        await ear.connected(2 if faults.times is not None else 1)
        await ear.settled()
        if not provider.ends_alone and provider.words_while_speaking:
            ear.stt.finalize()
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]
        assert not any(failure.fatal for failure in ear.failures)
        if faults.garbage_after is not None:
            assert [type(failure.error) for failure in ear.failures] == [RemoteProtocolError]
        if faults.unknown or faults.close_code == 1000:
            assert ear.failures == []


async def test_a_service_that_falls_silent_is_left_without_waiting_for_it(provider, listen):
    if not provider.words_while_speaking:
        pytest.skip("tells no words while they are said")
    async with provider.emulator(faults=Faults(stall_after=4)) as emulator:
        ear = await listen(emulator, timeout_s=0.1)
        ear.say(speech(0, 3000))
        await ear.until(lambda: ear.told("interim"))
        ear.stt.finalize()
        await ear.until(lambda: ear.finals, timeout_s=1.0)
        assert SENTENCES[0].startswith(ear.finals[0])


@pytest.mark.parametrize("frame", ["", "null", "[1,2]", "{}", '"text"', "7", '{"type":7}', '{"type":"x","words":3}'])
async def test_odd_frames_hurt_nobody(provider, listen, frame):
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        await ear.hear(silence(100))
        for _ in range(3):
            await emulator.sockets[0].send(frame)
        await ear.utter(0)
        assert ear.finals == [SENTENCES[0]]
        assert not any(failure.fatal for failure in ear.failures)
        assert len(ear.failures) <= 1


async def test_messages_that_are_told_twice_are_heard_once(provider, listen):
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        receive = emulator.sockets[0].send

        async def twice(message: Any) -> None:
            await receive(message)
            await receive(message)

        emulator.sockets[0].send = twice
        await ear.utter(0)
        await ear.utter(1)
        await ear.settled()
        assert ear.finals == SENTENCES[:2]
        [failure] = ear.failures  # two utterances, one report
        assert not failure.fatal
        assert isinstance(failure.error, RemoteProtocolError)
        assert "twice" in str(failure.error)


# The echo of our own voice.


async def test_our_own_echo_is_dropped_and_a_barge_in_is_kept(provider, listen):
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        await ear.hear(silence(100))
        ear.own.sounds(True, ear.at_ms)
        for words in ("Shall I book a", "table,", "for two?"):
            ear.own.heard(words, ear.at_ms)
            await ear.hear(speech(0, 1200)[: 8 * 400])
        ear.own.sounds(False, ear.at_ms)
        await ear.hear(silence(provider.silence_ms))
        if not provider.ends_alone:
            ear.stt.finalize()
            await ear.hear(silence(100))
        assert ear.finals == []
        assert ear.told("interim") == ear.told("eager") == []
        ear.own.sounds(True, ear.at_ms)
        ear.own.heard("Shall I book a table for two?", ear.at_ms)
        await ear.utter(1)  # while we speak, but these words are not ours
        ear.own.sounds(False, ear.at_ms)
        await ear.hear(silence(1000))
        await ear.utter(0)  # our words, long after us
        assert ear.finals == [SENTENCES[1], SENTENCES[0]]


async def test_words_that_we_have_not_said_yet_or_said_long_ago_are_the_callers(provider, listen):
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        await ear.hear(silence(100))
        ear.own.sounds(True, ear.at_ms)
        ear.own.heard("at seven please", ear.at_ms)
        await ear.hear(silence(3000))
        await ear.utter(0)
        await ear.hear(silence(1000))
        ear.own.sounds(True, ear.at_ms)
        ear.own.heard("Shall I book a table for two?", ear.at_ms)
        await ear.utter(1)
        assert ear.finals == [SENTENCES[0], SENTENCES[1]]


# What it costs.


async def test_all_audio_that_was_sent_is_told_as_used_once(provider, listen):
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        used: list[Usage] = []
        ear.stt.on(STT.USAGE, lambda told: used.append(told.usage))
        await ear.utter(0)
        await asyncio.sleep(0)
        assert used  # right behind the utterance, and not only in the end
        await ear.hear(silence(300))
        emulator.sockets[0].drop()
        await ear.connected(2)
        await ear.hear(speech(1, 500))
        ear.stt.dispose()
        ear.stt.dispose()
        await ear.stt.wait_disposed()
        heard_s = sum(ear.heard_ms(connection) for connection in range(emulator.connections)) / 1000.0
        assert heard_s > 1.9
        assert sum(usage.input_audio_s for usage in used) == pytest.approx(heard_s, abs=0.05)
        assert {usage.model for usage in used} == {ear.stt._model}
        assert all(cost_usd(usage) for usage in used)
        assert all(usage.characters == usage.input_tokens == 0 for usage in used)


# The end.


async def test_it_can_be_disposed_of_in_every_state(provider):
    async def disposed(ear: Ear) -> None:
        ear.stt.dispose()
        ear.stt.dispose()
        ear.stt.post(Message(uuid=CALL, data=silence(20)))
        ear.stt.finalize()
        ear.stt.discard(0.0)
        await ear.stt.wait_disposed()
        told = len(ear.events)
        assert not ear.stt._tasks
        with pytest.raises(StateError):
            ear.stt.open(MULAW_8K)
        assert len(ear.events) == told

    async with provider.emulator() as emulator:
        await disposed(Ear(provider, emulator))  # never opened
        ear = Ear(provider, emulator)
        ear.stt.open(MULAW_8K)
        await disposed(ear)  # before the connection
        for audio in (b"", silence(300), speech(0, 900), speech(0, 900) + silence(300)):
            ear = Ear(provider, emulator)
            ear.stt.open(MULAW_8K)
            await ear.connected(emulator.connections + 1)
            ear.say(audio)
            await disposed(ear)
        ear = Ear(provider, emulator)
        ear.stt.open(MULAW_8K)
        await ear.connected(emulator.connections + 1)
        await emulator.until(lambda: emulator.sockets)
        await ear.hear(speech(0, 900))
        ear.stt.finalize()
        await disposed(ear)  # while it finalizes
        emulator.faults = Faults(hang=True)
        ear = Ear(provider, emulator)
        requests = len(emulator.requests)
        ear.stt.open(MULAW_8K)
        await emulator.until(lambda: len(emulator.requests) > requests)
        await disposed(ear)  # in the handshake
        emulator.faults = Faults(refuse=401)
        ear = Ear(provider, emulator)
        ear.stt.open(MULAW_8K)
        await ear.until(lambda: ear.failures)
        await disposed(ear)  # given up
    assert not shared._loops.get(asyncio.get_running_loop())


async def test_opening_twice_is_refused(provider, listen):
    async with provider.emulator() as emulator:
        ear = await listen(emulator)
        with pytest.raises(StateError):
            ear.stt.open(MULAW_8K)
