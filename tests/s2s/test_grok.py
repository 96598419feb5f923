"""What is particular about Grok voice."""

from __future__ import annotations

from uuid import uuid4

import pytest
from s2s_providers import PROVIDERS, Talker

from dialog import GrokS2S, Message
from dialog.errors import ConfigurationError
from dialog.testing.grok import GrokEmulator
from dialog.testing.s2s import RealtimeReply

GROK = PROVIDERS[2]


@pytest.fixture
async def open_():
    talkers: list[Talker] = []

    async def make(emulator, **options) -> Talker:
        talker = Talker(GROK, emulator, **options)
        talkers.append(talker)
        talker.s2s.open(talker.spec)
        await talker.ready()
        return talker

    yield make
    for talker in talkers:
        talker.s2s.dispose()
        await talker.s2s.wait_disposed()
        assert talker.emulator.violations == []


async def test_settings_are_at_the_top_of_the_session(open_):
    async with GrokEmulator() as emulator:
        await open_(emulator, voice="rex", language="de")
        sent = next(frame.json()["session"] for frame in emulator.received())
        assert (sent["voice"], sent["turn_detection"]["type"]) == ("rex", "server_vad")
        assert sent["audio"]["input"]["transcription"] == {"model": "grok-transcribe", "language_hint": "de"}
        assert emulator.requests[0].values("model") == ["grok-voice-latest"]


async def test_a_sentence_is_said_word_for_word(open_):
    async with GrokEmulator() as emulator:
        talker = await open_(emulator)
        uuid = uuid4()
        talker.s2s.say(Message(uuid=uuid, data="This call is recorded.", done=True), verbatim=True)
        await talker.replied(uuid)
        assert emulator.forced == ["This call is recorded."]
        assert not any(frame.json()["type"] == "response.create" for frame in emulator.received())


async def test_words_are_told_anew_each_time_and_the_last_ones_count(open_):
    async with GrokEmulator(sentences=["a table for two"]) as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        assert [said.data for said in talker.told("utterance")] == ["a table for two"]
        told = [said.data for said in talker.told("interim")]
        assert told[0] == "a"
        assert {said.uuid for said in talker.told("interim")} == {uuid}


async def test_the_usage_stands_beside_the_response(open_):
    async with GrokEmulator() as emulator:
        talker = await open_(emulator)
        await talker.answer()
        [told] = talker.told("usage")
        assert (told.usage.output_audio_s, told.usage.session_s) == (1.5, 3.0)
        assert told.usage.model == "grok-voice-latest"


async def test_one_that_cannot_be_told_what_was_heard_goes_on_all_the_same(open_):
    async with GrokEmulator(
        truncates=False, replies=lambda _: RealtimeReply(text="word " * 30), chunk_s=0.01
    ) as emulator:
        talker = await open_(emulator)
        uuid = await talker.turn()
        talker.respond(uuid)
        await talker.until(lambda: talker.audio_ms(uuid) > 400)
        talker.cut(uuid, 200)
        again = await talker.turn()
        talker.respond(again)
        assert (await talker.replied(again)).state == "completed"
        assert talker.failures == []


async def test_a_cancel_that_comes_too_late_is_understood_without_a_code(open_):
    async with GrokEmulator(replies=lambda _: RealtimeReply(text="word " * 30), chunk_s=0.01) as emulator:
        talker = await open_(emulator)
        uuid = await talker.turn()
        talker.respond(uuid)
        await talker.until(lambda: talker.told("message"))
        talker.s2s._reply.id = "resp_of_another"  # it has ended there meanwhile
        talker.cut(uuid, 200)
        emulator.sessions[0]._stop("client_cancelled")
        again = await talker.turn()
        talker.respond(again)
        assert (await talker.replied(again)).state == "completed"


def test_settings_out_of_range_are_refused():
    for wrong in ({"speed": 0.3}, {"api_key": ""}):
        with pytest.raises(ConfigurationError):
            GrokS2S(**{"api_key": "k", **wrong})
