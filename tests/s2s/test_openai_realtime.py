"""What is particular about OpenAI's realtime models."""

from __future__ import annotations

from uuid import uuid4

import pytest
from s2s_providers import PROVIDERS, Talker, silence

from dialog import Message, SemanticVAD, ServerVAD
from dialog.errors import AuthenticationError, ConfigurationError, ProviderError
from dialog.s2s import realtime_protocol, replying
from dialog.s2s.openai import OpenAIRealtimeS2S
from dialog.testing.openai_realtime import OpenAIRealtimeEmulator
from dialog.testing.s2s import RealtimeReply

OPENAI = PROVIDERS[0]


@pytest.fixture
async def open_():
    talkers: list[Talker] = []

    async def make(emulator, provider=OPENAI, **options) -> Talker:
        talker = Talker(provider, emulator, **options)
        talkers.append(talker)
        talker.s2s.open(talker.spec)
        await talker.ready()
        return talker

    yield make
    for talker in talkers:
        talker.s2s.dispose()
        await talker.s2s.wait_disposed()


def session(emulator, kind="session.update"):
    return next(frame.json()["session"] for frame in emulator.received() if frame.json()["type"] == kind)


async def test_the_session_leaves_decisions_to_us_and_takes_telephone_audio(open_):
    async with OpenAIRealtimeEmulator() as emulator:
        await open_(emulator, language="de", noise_reduction="near_field", voice="cedar", speed=1.2)
        assert emulator.requests[0].values("model") == ["gpt-realtime-2.1"]
        assert "OpenAI-Beta" not in emulator.requests[0].headers
        sent = session(emulator)
        assert sent["type"] == "realtime"
        assert sent["instructions"] == "Be brief."
        assert sent["audio"]["input"] == {
            "format": {"type": "audio/pcmu"},
            "transcription": {"model": "gpt-transcribe", "language": "de"},
            "noise_reduction": {"type": "near_field"},
            "turn_detection": {
                "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500,
                "create_response": False, "interrupt_response": False,
            },
        }  # fmt: skip
        assert sent["audio"]["output"] == {"format": {"type": "audio/pcmu"}, "voice": "cedar", "speed": 1.2}


@pytest.mark.parametrize(
    "detection", [ServerVAD(silence_duration_ms=300, threshold=0.7), SemanticVAD(eagerness="high")]
)
async def test_turn_detection_is_typed(open_, detection):
    async with OpenAIRealtimeEmulator() as emulator:
        talker = await open_(emulator, turn_detection=detection)
        await talker.answer()
        sent = session(emulator)["audio"]["input"]["turn_detection"]
        assert sent["type"] == ("server_vad" if isinstance(detection, ServerVAD) else "semantic_vad")
        assert sent["create_response"] is sent["interrupt_response"] is False
        assert emulator.violations == []


def test_settings_out_of_range_are_refused():
    for wrong in ({"speed": 2.0}, {"noise_reduction": "loud"}, {"api_key": ""}):
        with pytest.raises(ConfigurationError):
            OpenAIRealtimeS2S(**{"api_key": "k", **wrong})


async def test_words_may_come_long_after_the_reply(open_):
    async with OpenAIRealtimeEmulator(transcribe_s=0.1) as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        assert talker.told("utterance") == []
        await talker.until(lambda: talker.told("utterance"))
        assert talker.told("utterance")[0].uuid == uuid
        assert talker.told("interim")[-1].data == "hello"


async def test_words_that_are_told_twice_are_told_once(open_):
    async with OpenAIRealtimeEmulator(tells_twice=True) as emulator:
        talker = await open_(emulator)
        await talker.answer()
        await talker.answer()
        assert len(talker.told("utterance")) == 2


async def test_the_transcription_is_accounted_for_apart(open_):
    async with OpenAIRealtimeEmulator() as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        await talker.until(lambda: len(talker.told("usage")) == 2)
        by_model = {told.usage.model: told for told in talker.told("usage")}
        assert by_model["gpt-transcribe"].usage.input_audio_s == 2
        assert {told.uuid for told in by_model.values()} == {uuid}


async def test_a_reply_that_failed_says_why(open_):
    async with OpenAIRealtimeEmulator(
        replies=lambda _: RealtimeReply(fails="inference_rate_limit_exceeded")
    ) as emulator:
        talker = await open_(emulator)
        uuid = uuid4()
        talker.s2s.respond(uuid)
        assert (await talker.replied(uuid)).state == "failed"
        assert "inference_rate_limit_exceeded" in str(talker.failures[0].error)
        assert not talker.failures[0].fatal


async def test_a_reply_that_nobody_asked_for_is_waited_for_and_not_heard(open_):
    async with OpenAIRealtimeEmulator(replies=lambda _: RealtimeReply(text="word " * 20), chunk_s=0.01) as emulator:
        talker = await open_(emulator)
        emulator.sessions[0]._respond({})  # another client of the session, say
        await emulator.until(lambda: any("response.created" in str(frame.data) for frame in emulator.frames))
        uuid = uuid4()
        talker.s2s.respond(uuid)
        await talker.replied(uuid)
        assert talker.words(uuid) == "word " * 20
        assert {message.uuid for message in talker.told("message")} == {uuid}
        assert talker.failures == []


async def test_a_service_that_does_not_end_a_reply_is_left(open_, monkeypatch):
    monkeypatch.setattr(replying, "_STOPPING_S", 0.02)
    monkeypatch.setattr(realtime_protocol, "_BUSY_S", 0.02)
    async with OpenAIRealtimeEmulator(stalling=1) as emulator:
        talker = await open_(emulator)
        stuck, uuid = uuid4(), uuid4()
        talker.s2s.respond(stuck)
        await emulator.until(lambda: emulator.stalling == 0)
        monkeypatch.setattr(emulator.sessions[0], "_stop", lambda _: None)
        talker.cut(stuck, 0)
        talker.s2s.respond(uuid)
        await talker.replied(uuid)
        assert talker.s2s.session == 2
        assert talker.words(uuid) == "Hello."


async def test_an_error_in_the_middle_of_a_reply_costs_nothing(open_):
    async with OpenAIRealtimeEmulator(replies=lambda _: RealtimeReply(text="word " * 20), chunk_s=0.01) as emulator:
        talker = await open_(emulator)
        uuid = uuid4()
        talker.s2s.respond(uuid)
        await talker.until(lambda: talker.told("message"))
        await emulator.tell("something_odd")
        await emulator.tell("something_odd")
        assert (await talker.replied(uuid)).state == "completed"
        assert [str(failure.error) for failure in talker.failures] == ["openai: reports something_odd: something_odd"]


async def test_a_session_that_hits_its_longest_duration_is_renewed_in_peace(open_):
    async with OpenAIRealtimeEmulator() as emulator:
        talker = await open_(emulator)
        await emulator.expire()
        await talker.ready(2)
        await talker.answer()
        assert talker.failures == []


async def test_a_model_that_there_is_not_and_a_key_that_is_withdrawn_are_fatal(open_):
    async with OpenAIRealtimeEmulator() as emulator:
        talker = Talker(OPENAI, emulator, model="gpt-5")
        talker.s2s.open(talker.spec)
        await talker.until(lambda: any(failure.fatal for failure in talker.failures))
        assert isinstance(talker.failures[-1].error, ProviderError)
        talker.s2s.dispose()
        talker = await open_(emulator)
        await emulator.tell("invalid_api_key")
        await talker.until(lambda: talker.failures)
        assert isinstance(talker.failures[-1].error, AuthenticationError)
        assert talker.failures[-1].fatal


async def test_speech_keeps_its_time_when_audio_before_it_was_dropped(open_):
    async with OpenAIRealtimeEmulator() as emulator:
        talker = await open_(emulator)
        talker.say(silence(400))
        # The service read too slowly for these 200 ms: they never reach it.
        lost = Message(uuid=uuid4(), data=silence(200), at_ms=talker.at_ms)
        talker.s2s._ring.append(lost)
        talker.s2s._sent.time.add(talker.at_ms, 200)
        talker.s2s._dropped(talker.s2s._sent.encode(lost.data))
        talker.at_ms += 200
        await talker.turn(1000)
        start, stop = talker.told("vad")
        assert start.at_ms == pytest.approx(1000, abs=120)
        assert stop.at_ms == pytest.approx(2000, abs=120)


async def test_a_commit_of_nothing_is_forgotten(open_):
    async with OpenAIRealtimeEmulator() as emulator:
        talker = await open_(emulator, PROVIDERS[1])
        talker.s2s.begin(0.0)
        talker.s2s.commit(uuid4())
        uuid = await talker.answer()
        assert talker.words(uuid) == "You said: hello"
        assert talker.failures == []
