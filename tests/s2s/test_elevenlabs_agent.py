"""What is particular about ElevenLabs' agents."""

from __future__ import annotations

import logging
from base64 import b64encode

import pytest
from s2s_providers import PROVIDERS, Talker, speech

from dialog import ElevenLabsAgentS2S
from dialog.errors import AuthenticationError, ConfigurationError, ProviderError, RemoteProtocolError
from dialog.llm.llm import Entry, ToolCall, ToolResult
from dialog.message import MULAW_8K
from dialog.testing.elevenlabs_agent import ElevenLabsAgentEmulator
from dialog.testing.model import ToolUse
from dialog.testing.s2s import RealtimeReply
from dialog.testing.server import Faults

ELEVENLABS = next(provider for provider in PROVIDERS if provider.name == "elevenlabs")
STORY = "Once upon a time there was a table by the window. Nobody sat at it for a very long time."


def story(_) -> RealtimeReply:
    return RealtimeReply(text=STORY)


@pytest.fixture
async def open_():
    talkers: list[Talker] = []

    async def make(emulator, *, wait: bool = True, violations: bool = False, **options) -> Talker:
        talker = Talker(ELEVENLABS, emulator, **options)
        talker.may_violate = violations
        talkers.append(talker)
        talker.s2s.open(talker.spec)
        if wait:
            await talker.ready()
        return talker

    yield make
    for talker in talkers:
        talker.s2s.dispose()
        await talker.s2s.wait_disposed()
        assert talker.may_violate or talker.emulator.violations == []


async def test_a_conversation_begins_as_it_is_documented(open_):
    async with ElevenLabsAgentEmulator() as emulator:
        await open_(emulator)
        asked, connected = emulator.requests
        assert asked.path == "/v1/convai/conversation/get-signed-url"
        assert (asked.headers["xi-api-key"], asked.query) == (emulator.api_key, (("agent_id", "agent_test"),))
        assert "xi-api-key" not in connected.headers
        await emulator.until(lambda: emulator.sessions and emulator.sessions[0].initiation)
        override = {"agent": {"first_message": "", "prompt": {"prompt": "Be brief."}}}
        assert emulator.sessions[0].initiation == {
            "type": "conversation_initiation_client_data",
            "conversation_config_override": override,
        }


async def test_voice_language_and_further_fields_are_passed_on(open_):
    async with ElevenLabsAgentEmulator() as emulator:
        await open_(
            emulator, voice="v1", language="de", options={"user_id": "u1", "dynamic_variables": {"name": "Ann"}}
        )
        session = emulator.sessions[0]
        assert (session.voice, session.language) == ("v1", "de")
        assert (session.initiation["user_id"], session.initiation["dynamic_variables"]) == ("u1", {"name": "Ann"})


async def test_a_first_message_is_said_once(open_):
    async with ElevenLabsAgentEmulator() as emulator:
        talker = await open_(emulator, first_message="Good evening!")
        await talker.until(lambda: talker.told("replied"))
        assert talker.words(talker.told("replied")[0].uuid) == "Good evening!"
        for socket in tuple(emulator.sockets):
            socket.drop()
        await talker.ready(2)
        await talker.answer()
        assert [text for role, text in emulator.conversation if role == "assistant"] == ["You said: hello"]


async def test_pings_are_answered(open_):
    async with ElevenLabsAgentEmulator() as emulator:
        await open_(emulator)
        await emulator.until(lambda: emulator.pongs == [1])


@pytest.mark.parametrize("agent", ["pcm_16000", "pcm_24000", "pcm_8000"])
async def test_other_formats_of_the_agent_are_converted(open_, agent):
    async with ElevenLabsAgentEmulator(hears_as=agent, speaks_as=agent) as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        text = "You said: hello"
        assert talker.words(uuid) == text
        assert talker.audio_ms(uuid) == pytest.approx(len(text) * 40, abs=1)
        loud = max(b"".join(message.data for message in talker.told("message")), key=lambda byte: -(byte & 0x7F))
        assert loud & 0x7F < 0x50  # it is a tone, and not silence


async def test_a_format_that_nobody_knows_is_the_end_and_says_what_to_do(open_):
    async with ElevenLabsAgentEmulator(speaks_as="ulaw_8000") as emulator:
        emulator.faults = Faults(stall_after=0)
        talker = await open_(emulator, wait=False)
        await emulator.until(lambda: emulator.sockets)
        emulator.sockets[0]._gate.faults = Faults()
        event = {"agent_output_audio_format": "mp3_44100", "user_input_audio_format": "ulaw_8000"}
        kind = "conversation_initiation_metadata"
        await emulator.sockets[0].send({"type": kind, f"{kind}_event": {"conversation_id": "c", **event}})
        await talker.until(lambda: talker.failures)
        [failure] = talker.failures
        assert failure.fatal
        assert "mp3_44100" in str(failure.error)
        assert "ulaw_8000" in str(failure.error)


async def test_what_may_not_be_overridden_is_the_end_and_is_named(open_):
    async with ElevenLabsAgentEmulator(overrides=["agent.prompt.prompt"]) as emulator:
        talker = await open_(emulator, wait=False, violations=True)
        await talker.until(lambda: talker.failures)
        [failure] = talker.failures
        assert failure.fatal
        assert "first_message" in str(failure.error)
        assert emulator.connections == 1


async def test_an_agent_that_there_is_not_is_the_end(open_):
    async with ElevenLabsAgentEmulator(agent_id="agent_other") as emulator:
        talker = await open_(emulator, wait=False)
        await talker.until(lambda: talker.failures)
        [failure] = talker.failures
        assert failure.fatal
        assert "404" in str(failure.error)
        assert "document_not_found" in str(failure.error)
        assert not isinstance(failure.error, AuthenticationError)


class Lost(ElevenLabsAgentEmulator):
    """Gives addresses that are none."""

    @property
    def ws_url(self) -> str:
        return "gopher://secret"


async def test_an_address_that_is_none_is_the_end_and_stays_out_of_the_error(open_):
    async with Lost() as emulator:
        talker = await open_(emulator, wait=False)
        await talker.until(lambda: talker.failures)
        assert isinstance(talker.failures[0].error, ProviderError)
        assert talker.failures[0].fatal
        assert "secret" not in str(talker.failures[0].error)


async def test_the_caller_stops_a_reply_and_late_audio_of_it_is_dropped(open_):
    async with ElevenLabsAgentEmulator(sentences=["one", "two"], replies=story, chunk_s=0.02) as emulator:
        talker = await open_(emulator)
        first = await talker.turn()
        await talker.until(lambda: talker.told("message"))
        talker.say(speech(200))
        await talker.until(lambda: talker.told("flush"))
        assert talker.told("flush") == [first]
        assert talker.ends(first)[0].state == "cancelled"
        before = len(talker.events)
        for event_id in (1, "1"):
            old = {"audio_base_64": b64encode(speech(100)).decode(), "event_id": event_id}
            await emulator.sockets[0].send({"type": "audio", "audio_event": old})
        emulator.replies = None
        second = await talker.turn()
        await talker.replied(second)
        assert talker.words(second).startswith("You said: ")
        late = [payload for name, payload in talker.events[before:] if name == "message" and payload.uuid != second]
        assert late == []


async def test_what_was_heard_is_the_services_own_matter(open_):
    async with ElevenLabsAgentEmulator(replies=story) as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        talker.say(speech(200))
        await talker.until(lambda: talker.told("flush"))
        await emulator.until(lambda: emulator.conversation[-1][1] != STORY)
        assert STORY.startswith(emulator.conversation[-1][1])
        assert talker.words(uuid) == STORY
        assert [end.state for end in talker.told("replied")] == ["completed"]


async def test_a_reply_whose_end_nobody_tells_ends_when_nothing_more_comes(open_, monkeypatch):
    monkeypatch.setattr(ElevenLabsAgentS2S, "quiet_s", 0.1)
    async with ElevenLabsAgentEmulator(completes=False) as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        assert talker.ends(uuid)[0].state == "completed"
        assert talker.words(uuid) == "You said: hello"


async def test_the_last_audio_may_say_that_it_is(open_):
    async with ElevenLabsAgentEmulator(completes=False) as emulator:
        talker = await open_(emulator)
        audio = {"audio_base_64": b64encode(speech(100)).decode(), "event_id": None, "is_final": True}
        await emulator.sockets[0].send({"type": "audio", "audio_event": audio})
        await talker.until(lambda: talker.told("replied"))
        assert talker.told("replied")[0].state == "completed"


async def test_what_it_says_next_is_another_turn(open_):
    async with ElevenLabsAgentEmulator() as emulator:
        talker = await open_(emulator)
        first = await talker.answer()
        about = {"agent_response": "Are you still there?", "event_id": 20}
        await emulator.sockets[0].send({"type": "agent_response", "agent_response_event": about})
        complete = {"type": "agent_response_complete", "agent_response_complete_event": {"event_id": 21}}
        await emulator.sockets[0].send(complete)
        await talker.until(lambda: len(talker.told("replied")) == 2)
        second = talker.told("replied")[1].uuid
        assert second != first
        assert talker.words(second) == "Are you still there?"


async def test_no_words_are_told_as_none(open_):
    async with ElevenLabsAgentEmulator(unintelligible=1) as emulator:
        talker = await open_(emulator)
        await talker.turn()
        assert [said.data for said in talker.told("utterance")] == [""]


async def test_audio_that_is_not_base64_is_reported_and_survived(open_):
    async with ElevenLabsAgentEmulator() as emulator:
        talker = await open_(emulator)
        audio = {"audio_base_64": "%%%", "event_id": 9}
        await emulator.sockets[0].send({"type": "audio", "audio_event": audio})
        await talker.until(lambda: talker.failures)
        assert isinstance(talker.failures[0].error, RemoteProtocolError)
        await talker.answer()
        assert talker.s2s.session == 1


async def test_a_tool_has_its_parameters_and_its_result(open_):
    def books(items) -> RealtimeReply:
        results = [item.text for item in items if item.kind == "function_call_output"]
        return (
            RealtimeReply(text=f"It is {results[-1]}.")
            if results
            else RealtimeReply(tools=(ToolUse("book", {"n": 2}),))
        )

    async with ElevenLabsAgentEmulator(replies=books) as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        [asked] = talker.told("tool_call")
        assert (asked.uuid, asked.call.name, asked.call.arguments) == (uuid, "book", '{"n":2}')
        talker.s2s.answer(asked.call.id, "booked")
        talker.s2s.respond(uuid)
        await talker.replied(uuid, count=2)
        assert talker.words(uuid) == "It is booked."
        [sent] = [frame.json() for frame in emulator.received() if '"client_tool_result"' in str(frame.data)]
        assert (sent["result"], sent["is_error"]) == ("booked", False)


async def test_a_new_conversation_is_told_the_old_one(open_):
    said = (
        Entry(role="user", text="book it"),
        ToolCall(id="c1", name="book_table", arguments="{}"),
        ToolResult(id="c1", name="book_table", content="booked"),
        Entry(role="assistant", text="It is", interrupted=True),
        Entry(role="system", text="The kitchen closes."),
    )
    async with ElevenLabsAgentEmulator() as emulator:
        await open_(emulator, history=lambda: said)
        await emulator.until(lambda: len(emulator.conversation) == 4)
        assert emulator.conversation == [
            ("context", "The caller said: book it"),
            ("context", "Your tool book_table answered: booked"),
            ("context", "You said: It is …"),
            ("context", "The kitchen closes."),
        ]


async def test_other_instructions_are_told_at_once_and_are_those_of_the_next_conversation(open_):
    async with ElevenLabsAgentEmulator() as emulator:
        talker = await open_(emulator)
        talker.s2s.update(system="Be kind.", tools=())
        await talker.ready(2)
        await emulator.until(lambda: emulator.sessions[-1].instructions == "Be kind.")
        [told] = [frame.json() for frame in emulator.received() if '"contextual_update"' in str(frame.data)]
        assert told["text"].endswith(": Be kind.")


async def test_the_session_is_accounted_for_by_its_length(open_):
    async with ElevenLabsAgentEmulator() as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        [used] = [told.usage for told in talker.told("usage") if told.uuid == uuid]
        assert used.model == "elevenlabs-agents"
        assert used.session_s > 0


async def test_the_key_and_the_address_stay_out_of_logs(open_, caplog):
    caplog.set_level(logging.DEBUG)
    async with ElevenLabsAgentEmulator() as emulator:
        talker = await open_(emulator)
        await talker.answer()
        emulator.sockets[0].drop()
        await talker.ready(2)
        ours = "".join(record.getMessage() for record in caplog.records if record.name.startswith("dialog"))
        told = repr(talker.s2s) + ours + "".join(str(failure.error) for failure in talker.failures)
        assert emulator.api_key not in told
        assert "cvtkn_" not in told


def test_telephone_audio_is_its_first_format():
    assert ElevenLabsAgentS2S.formats[0] == ElevenLabsAgentS2S.output_formats[0] == MULAW_8K


@pytest.mark.parametrize("name", ["api_key", "agent_id"])
def test_what_it_needs_is_asked_for(name):
    with pytest.raises(ConfigurationError, match=name):
        ElevenLabsAgentS2S(**{"api_key": "k", "agent_id": "a", name: ""})
