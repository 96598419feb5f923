"""What is particular about Gemini Live."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace as with_fields
from s2s_providers import GEMINI, Talker, silence, speech

from dialog import ActivityDetection, Message, create_s2s
from dialog.errors import AuthenticationError, ConfigurationError, ProviderError, RemoteProtocolError
from dialog.llm.llm import Entry
from dialog.s2s import gemini_protocol
from dialog.s2s.gemini import GeminiLiveS2S
from dialog.testing.gemini import GeminiLiveEmulator
from dialog.testing.model import ToolUse
from dialog.testing.s2s import RealtimeReply

STORY = "Once upon a time there was a table by the window, and nobody sat at it for a very long time."


def story(_: Any) -> RealtimeReply:
    return RealtimeReply(text=STORY)


def books(items: Any) -> RealtimeReply:
    if any(item.kind == "function_call_output" for item in items):
        return RealtimeReply(text="It is booked.")
    return RealtimeReply(text="Let me see.", tools=(ToolUse("book_table", {"people": 2}),))


@pytest.fixture
async def open_():
    talkers: list[Talker] = []

    async def make(emulator, *, manual: bool = False, violations: bool = False, **options) -> Talker:
        talker = Talker(GEMINI, emulator, **options)
        talker.spec = with_fields(talker.spec, vad="local" if manual else "provider")
        talker.may_violate = violations
        talkers.append(talker)
        talker.s2s.open(talker.spec)
        await talker.ready()
        return talker

    yield make
    for talker in talkers:
        talker.s2s.dispose()
        await talker.s2s.wait_disposed()
        assert talker.may_violate or talker.emulator.violations == []


def sent(emulator, kind: str) -> list[Any]:
    return [frame.json()[kind] for frame in emulator.received() if kind in frame.json()]


async def resumable(talker: Talker) -> None:
    """Wait for a handle."""
    async with asyncio.timeout(5.0):
        while not talker.s2s._handle:
            await asyncio.sleep(0.002)


# Settings.


async def test_the_session_leaves_interruptions_to_us_and_lasts(open_):
    async with GeminiLiveEmulator() as emulator:
        await open_(emulator)
        request = emulator.requests[0]
        assert request.path == "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
        assert request.headers["x-goog-api-key"] == emulator.api_key
        assert request.query == ()
        [setup] = sent(emulator, "setup")
        [tool] = setup.pop("tools")[0]["functionDeclarations"]
        assert (tool["name"], tool["behavior"]) == ("book_table", "BLOCKING")
        assert tool["parametersJsonSchema"]["required"] == ["people"]
        voice = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}}
        assert setup == {
            "model": "models/gemini-3.8-live",
            "generationConfig": {"responseModalities": ["AUDIO"], "speechConfig": voice},
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "inputAudioTranscription": {},
            "outputAudioTranscription": {},
            "realtimeInputConfig": {
                "automaticActivityDetection": {"silenceDurationMs": 500},
                "activityHandling": "NO_INTERRUPTION",
            },
            "sessionResumption": {},
            "contextWindowCompression": {"slidingWindow": {}},
        }


async def test_activity_detection_is_typed(open_):
    detection = ActivityDetection(
        start_sensitivity="low", end_sensitivity="high", prefix_padding_ms=40, silence_duration_ms=300
    )
    async with GeminiLiveEmulator() as emulator:
        talker = await open_(emulator, activity_detection=detection, interruption="theirs")
        await talker.answer()
        assert sent(emulator, "setup")[0]["realtimeInputConfig"] == {
            "automaticActivityDetection": {
                "startOfSpeechSensitivity": "START_SENSITIVITY_LOW",
                "endOfSpeechSensitivity": "END_SENSITIVITY_HIGH",
                "prefixPaddingMs": 40,
                "silenceDurationMs": 300,
            },
            "activityHandling": "START_OF_ACTIVITY_INTERRUPTS",
        }


def test_settings_that_there_are_not_are_refused():
    for make in (
        lambda: GeminiLiveS2S(api_key="k", interruption="nobody's"),
        lambda: ActivityDetection(start_sensitivity="medium"),
        lambda: ActivityDetection(silence_duration_ms=-1),
        lambda: ActivityDetection(prefix_padding_ms=20_000),
    ):
        with pytest.raises(ConfigurationError):
            make()


def test_what_it_can_do_depends_on_who_interrupts():
    ours, theirs = (create_s2s("gemini", api_key="k", interruption=who) for who in ("ours", "theirs"))
    assert (ours.capabilities.interruption, ours.capabilities.flush_signal) == ("ours", False)
    assert (theirs.capabilities.interruption, theirs.capabilities.flush_signal) == ("theirs", True)
    assert theirs.renewed().capabilities.interruption == "theirs"
    assert not ours.capabilities.verbatim
    assert not ours.capabilities.truncate


# Replies and interruptions.


async def test_a_cut_is_ours_alone(open_):
    async with GeminiLiveEmulator(replies=story, chunk_s=0.01) as emulator:
        talker = await open_(emulator)
        uuid = await talker.turn()
        await talker.until(lambda: talker.told("message"))
        before = len(emulator.received())
        talker.cut(uuid, 120)
        await emulator.until(lambda: emulator.snapshots)
        assert len(emulator.received()) == before
        assert emulator.conversation[-1] == ("assistant", STORY)


async def test_what_was_asked_for_after_a_cut_does_not_wait_for_the_rest(open_):
    async with GeminiLiveEmulator(replies=story, chunk_s=0.5) as emulator:
        talker = await open_(emulator)
        uuid = await talker.turn()
        await talker.until(lambda: talker.told("message"))
        talker.cut(uuid, 120)
        emulator.replies, emulator.chunk_s = None, 0.0
        again = uuid4()
        talker.s2s.add(Entry(role="user", text="(pressed 1)"))
        talker.s2s.respond(again)
        await talker.replied(again)
        assert talker.words(again) == "You said: (pressed 1)"
        assert len(talker.ends(again)) == 1
        assert any("interrupted" in str(frame.data) for frame in emulator.frames if frame.sent)


async def test_a_reply_is_heard_although_the_one_before_never_ended(open_, monkeypatch):
    monkeypatch.setattr(gemini_protocol, "_STOPS_S", 0.0)
    async with GeminiLiveEmulator(chunk_s=0.02) as emulator:
        talker = await open_(emulator)
        talker.s2s._unwanted = True  # something was cut, of which the service says nothing more
        uuid = uuid4()
        talker.s2s.respond(uuid)
        assert (await talker.replied(uuid)).state == "completed"
        assert talker.words(uuid) == "Hello."


@pytest.mark.parametrize("playback_s", [0.0, 30.0], ids=["while it is made", "while it is played"])
async def test_the_service_interrupts_and_says_so(open_, playback_s):
    chunk_s = 0.0 if playback_s else 0.05
    async with GeminiLiveEmulator(replies=story, chunk_s=chunk_s, playback_s=playback_s) as emulator:
        talker = await open_(emulator, interruption="theirs")
        uuid = await talker.turn()
        if playback_s:
            await talker.replied(uuid)
        else:
            await talker.until(lambda: talker.told("message"))
        emulator.replies, emulator.playback_s = None, 0.0
        again = await talker.turn()
        assert talker.told("flush") == [uuid]
        assert [end.state for end in talker.ends(uuid)] == ["completed" if playback_s else "cancelled"]
        assert (await talker.replied(again)).state == "completed"
        assert talker.words(again) == "You said: hello"


async def test_an_utterance_that_is_not_answered_is_told_all_the_same(open_):
    async with GeminiLiveEmulator(sentences=["never mind", "hello"], ignores=1) as emulator:
        talker = await open_(emulator)
        uuid = await talker.turn()
        assert (await talker.replied(uuid)).state == "completed"
        assert talker.audio_ms(uuid) == 0
        await talker.until(lambda: talker.told("utterance"))
        assert [(said.uuid, said.data) for said in talker.told("utterance")] == [(uuid, "never mind")]
        again = await talker.answer()
        assert talker.words(again) == "You said: hello"


async def test_words_that_come_after_the_reply_began_belong_to_what_it_answers(open_):
    async with GeminiLiveEmulator(sentences=["a table for two"], transcribe_s=0.05, chunk_s=0.01) as emulator:
        talker = await open_(emulator)
        uuid = await talker.turn()
        assert talker.told("interim") == []
        await talker.until(lambda: talker.told("utterance"))
        assert [(said.uuid, said.data) for said in talker.told("utterance")] == [(uuid, "a table for two")]


async def test_an_utterance_over_a_reply_is_answered_after_it(open_):
    async with GeminiLiveEmulator(sentences=["one", "two"], chunk_s=0.1) as emulator:
        talker = await open_(emulator)
        first = await talker.turn()
        second = await talker.turn()
        await talker.replied(second)
        assert [end.uuid for end in talker.told("replied")] == [first, second]
        assert talker.words(second) == "You said: two"
        assert talker.told("flush") == []


async def test_thoughts_count_as_what_came_out(open_):
    async with GeminiLiveEmulator() as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        [told] = talker.told("usage")
        assert (told.uuid, told.usage.model) == (uuid, "gemini-3.8-live")
        assert told.usage.output_tokens == told.usage.output_audio_tokens + 7
        assert "The caller wants" not in talker.words(uuid)


async def test_what_was_typed_during_a_reply_does_not_interrupt_it(open_):
    async with GeminiLiveEmulator(replies=story, chunk_s=0.01) as emulator:
        talker = await open_(emulator)
        uuid = uuid4()
        talker.s2s.respond(uuid)
        await talker.until(lambda: talker.told("message"))
        talker.s2s.add(Entry(role="user", text="(pressed 1)"))
        assert (await talker.replied(uuid)).state == "completed"
        assert talker.words(uuid) == STORY
        await emulator.until(lambda: ("user", "(pressed 1)") in emulator.conversation)


async def test_a_sentence_is_asked_for_in_these_words(open_):
    async with GeminiLiveEmulator() as emulator:
        talker = await open_(emulator)
        uuid = uuid4()
        talker.s2s.say(Message(uuid=uuid, data="This call is recorded.", done=True), verbatim=False)
        await talker.replied(uuid)
        assert talker.words(uuid) == "This call is recorded."


# Tools.


async def test_a_tool_that_the_caller_spoke_over_is_cancelled(open_):
    async with GeminiLiveEmulator(replies=books) as emulator:
        talker = await open_(emulator, interruption="theirs")
        await talker.answer()
        [asked] = talker.told("tool_call")
        emulator.replies = None
        again = await talker.turn()
        assert talker.told("tool_cancelled") == [asked.call.id]
        talker.s2s.answer(asked.call.id, "booked")  # too late: nobody waits for it
        await talker.replied(again)
        assert sent(emulator, "toolResponse") == []


async def test_the_caller_is_heard_to_the_end_while_the_model_waits_for_a_tool(open_, monkeypatch):
    monkeypatch.setattr(gemini_protocol, "_QUIET_S", 0.02)
    async with GeminiLiveEmulator(sentences=["book it", "for two"], replies=books) as emulator:
        talker = await open_(emulator)
        await talker.answer()
        [asked] = talker.told("tool_call")
        again = await talker.turn()
        assert talker.ends(again) == []  # the model is waiting
        talker.s2s.answer(asked.call.id, "not run")
        assert (await talker.replied(again)).state == "completed"
        assert talker.told("turn").count(again) == 1


async def test_all_tools_are_answered_at_once(open_):
    def both(items: Any) -> RealtimeReply:
        done = any(item.kind == "function_call_output" for item in items)
        use = ToolUse("book_table", {"people": 2})
        return RealtimeReply(text="Both are booked.") if done else RealtimeReply(tools=(use, use))

    async with GeminiLiveEmulator(replies=both) as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        first, second = talker.told("tool_call")
        talker.s2s.answer(second.call.id, "booked")
        assert sent(emulator, "toolResponse") == []
        talker.s2s.answer(first.call.id, "booked, too")
        talker.s2s.respond(uuid)
        await talker.replied(uuid, count=2)
        [answers] = sent(emulator, "toolResponse")
        assert [answer["id"] for answer in answers["functionResponses"]] == [second.call.id, first.call.id]
        assert {answer["name"] for answer in answers["functionResponses"]} == {"book_table"}


# Sessions.


async def test_a_connection_that_goes_away_is_resumed(open_):
    said = [Entry(role="user", text="one"), Entry(role="assistant", text="You said: one")]
    async with GeminiLiveEmulator(sentences=["one", "two"]) as emulator:
        talker = await open_(emulator, history=lambda: said if emulator.snapshots else ())
        await talker.answer()
        await resumable(talker)
        await emulator.go_away(9.5)
        await talker.ready(2)
        assert emulator.sessions[1].handle == "handle-0"
        assert "historyConfig" not in emulator.sessions[1].setup
        assert [text for _, text in emulator.conversation] == ["one", "You said: one"]
        uuid = await talker.answer()
        assert talker.words(uuid) == "You said: two"
        assert talker.failures == []


async def test_a_session_that_remembers_what_was_not_heard_is_begun_anew(open_):
    said = [Entry(role="user", text="one"), Entry(role="assistant", text="Once upon", interrupted=True)]
    async with GeminiLiveEmulator(replies=story, sentences=["one", "two"]) as emulator:
        talker = await open_(emulator, history=lambda: said if emulator.snapshots else ())
        uuid = await talker.turn()
        talker.cut(uuid, 400)
        await resumable(talker)
        await emulator.go_away(9.5)
        await talker.ready(2)
        await emulator.until(lambda: len(emulator.sessions[1].items) == 2)
        assert emulator.sessions[1].handle == ""
        assert [text for _, text in emulator.conversation] == ["one", "Once upon …"]
        emulator.replies = None
        again = await talker.answer()
        assert talker.words(again) == "You said: two"


async def test_the_handle_of_a_session_that_was_left_behind_is_not_used_later(open_):
    async with GeminiLiveEmulator(replies=story) as emulator:
        talker = await open_(emulator)
        uuid = await talker.turn()
        talker.cut(uuid, 400)
        await resumable(talker)
        await emulator.go_away(9.5)
        await talker.ready(2)
        emulator.sockets[0].drop()
        await talker.ready(3)
        assert [session.handle for session in emulator.sessions] == ["", "", ""]


async def test_a_handle_that_is_refused_costs_nothing(open_):
    said = [Entry(role="user", text="one"), Entry(role="assistant", text="You said: one")]
    async with GeminiLiveEmulator(sentences=["one", "two"]) as emulator:
        talker = await open_(emulator, history=lambda: said if emulator.connections > 1 else (), violations=True)
        await talker.answer()
        await resumable(talker)
        emulator.snapshots.clear()
        await emulator.go_away(9.5)
        await talker.ready(2)
        assert [session.handle for session in emulator.sessions] == ["", "handle-0", ""]
        uuid = await talker.answer()
        assert talker.words(uuid) == "You said: two"
        assert [text for _, text in emulator.conversation][:2] == ["one", "You said: one"]
        assert talker.failures == []


async def test_what_is_told_between_two_connections_is_known_to_a_session_that_is_resumed(open_):
    async with GeminiLiveEmulator() as emulator:
        talker = await open_(emulator)
        await talker.answer()
        await resumable(talker)
        talker.s2s._renewal()
        assert not talker.s2s._ready
        talker.s2s.add(Entry(role="user", text="(pressed 1)"))
        await talker.ready(2)
        await emulator.until(lambda: ("user", "(pressed 1)") in emulator.conversation)
        assert emulator.sessions[1].handle


async def test_a_history_that_begins_during_the_setup_is_told_to_another_session(open_):
    asked: list[int] = []

    def history():
        asked.append(1)
        return [Entry(role="user", text="one")] if len(asked) > 1 else []

    async with GeminiLiveEmulator() as emulator:
        talker = await open_(emulator, history=history)
        await talker.ready(2)
        await emulator.until(lambda: emulator.conversation == [("user", "one")])
        assert talker.failures == []


async def test_a_turn_of_ones_own_is_committed_and_answered(open_):
    async with GeminiLiveEmulator(sentences=["one"]) as emulator:
        talker = await open_(emulator, manual=True)
        talker.say(silence(300))
        talker.s2s.begin(talker.at_ms)
        talker.say(speech(600) + silence(100))
        uuid = uuid4()
        talker.s2s.commit(uuid)
        await talker.replied(uuid)
        assert talker.told("turn") == [uuid]
        assert talker.words(uuid) == "You said: one"
        await talker.until(lambda: talker.told("utterance"))
        assert talker.told("utterance")[0].uuid == uuid
        kinds = [next(iter(message)) for message in sent(emulator, "realtimeInput")]
        assert (kinds[0], kinds[-1]) == ("activityStart", "activityEnd")
        assert sent(emulator, "setup")[0]["realtimeInputConfig"]["automaticActivityDetection"] == {"disabled": True}


# What goes wrong.


async def test_a_model_that_there_is_not_is_fatal_and_named():
    async with GeminiLiveEmulator() as emulator:
        talker = Talker(GEMINI, emulator, model="gemini-9-live")
        talker.s2s.open(talker.spec)
        await talker.until(lambda: talker.failures)
        assert [failure.fatal for failure in talker.failures] == [True]
        assert isinstance(talker.failures[0].error, ProviderError)
        assert "models/gemini-9-live is not found" in str(talker.failures[0].error)
        talker.s2s.dispose()
        await talker.s2s.wait_disposed()


async def test_a_key_that_is_withdrawn_during_the_call_is_told_as_such(open_):
    async with GeminiLiveEmulator() as emulator:
        talker = await open_(emulator)
        await emulator.sockets[0].close(1008, "Your API key was reported as leaked. Please use another API key.")
        await talker.until(lambda: talker.failures)
        assert isinstance(talker.failures[0].error, AuthenticationError)
        assert talker.failures[0].fatal


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b'{"serverContent":5}', "cannot be understood"),
        (b"\xff\xfe", "cannot be understood"),
        (b'{"serverContent":{"modelTurn":{"parts":[{"inlineData":{"data":"%%%"}}]}}}', "not base64"),
    ],
    ids=["type", "encoding", "base64"],
)
async def test_malformed_messages_are_reported_and_survived(open_, message, reason):
    async with GeminiLiveEmulator() as emulator:
        talker = await open_(emulator)
        await emulator.sockets[0].send(message)
        await talker.until(lambda: talker.failures)
        assert isinstance(talker.failures[0].error, RemoteProtocolError)
        assert reason in str(talker.failures[0].error)
        assert not talker.failures[0].fatal
        if reason == "not base64":
            await emulator.sockets[0].send(b'{"serverContent":{"generationComplete":true}}')
            await emulator.sockets[0].send(b'{"serverContent":{"turnComplete":true}}')
            await talker.until(lambda: talker.told("replied"))
        uuid = await talker.answer()
        assert talker.words(uuid) == "You said: hello"
