"""What is particular about Deepgram's Voice Agent, and about every agent that a provider hosts."""

from __future__ import annotations

import asyncio
import logging
from uuid import uuid4

import pytest
from s2s_providers import PROVIDERS, Talker, silence, speech

from dialog import DeepgramAgentS2S, Message
from dialog.errors import ConfigurationError, ProviderError
from dialog.llm.llm import Entry, ToolCall, ToolResult
from dialog.s2s import hosted
from dialog.testing.deepgram_agent import DeepgramAgentEmulator
from dialog.testing.model import ToolUse
from dialog.testing.s2s import RealtimeReply

DEEPGRAM = next(provider for provider in PROVIDERS if provider.name == "deepgram")
STORY = "Once upon a time there was a table by the window. Nobody sat at it for a very long time."


def story(_) -> RealtimeReply:
    return RealtimeReply(text=STORY)


def books(items) -> RealtimeReply:
    results = [item.text for item in items if item.kind == "function_call_output"]
    if results:
        return RealtimeReply(text=f"It is {results[-1]}.")
    return RealtimeReply(tools=(ToolUse("book_table", {"people": 2}),))


@pytest.fixture
async def open_():
    talkers: list[Talker] = []

    async def make(emulator, *, wait: bool = True, violations: bool = False, **options) -> Talker:
        talker = Talker(DEEPGRAM, emulator, **options)
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


async def test_the_settings_are_those_that_are_documented(open_):
    async with DeepgramAgentEmulator() as emulator:
        await open_(emulator)
        [sent] = [frame.json() for frame in emulator.received(str)]
        assert emulator.requests[0].headers["Authorization"] == f"Token {emulator.api_key}"
        assert sent["audio"] == {
            "input": {"encoding": "mulaw", "sample_rate": 8000},
            "output": {"encoding": "mulaw", "sample_rate": 8000, "container": "none"},
        }
        agent = sent["agent"]
        assert agent["listen"]["provider"] == {"type": "deepgram", "version": "v2", "model": "flux-general-en"}
        assert agent["think"]["provider"] == {"type": "open_ai", "model": "gpt-4o-mini"}
        assert agent["think"]["prompt"] == "Be brief."
        assert agent["speak"] == {"provider": {"type": "deepgram", "model": "aura-2-thalia-en"}}
        [function] = agent["think"]["functions"]
        assert (function["name"], "endpoint" in function) == ("book_table", False)
        assert "context" not in agent


async def test_other_models_are_taken(open_):
    async with DeepgramAgentEmulator() as emulator:
        await open_(emulator, model="claude-sonnet", llm="anthropic", listen_model="nova-3", voice="aura-2-apollo-en")
        agent = emulator.sessions[0].settings["agent"]
        assert agent["think"]["provider"] == {"type": "anthropic", "model": "claude-sonnet"}
        assert agent["listen"]["provider"] == {"type": "deepgram", "version": "v1", "model": "nova-3"}
        assert agent["speak"]["provider"]["model"] == "aura-2-apollo-en"


async def test_a_history_has_its_tools_and_notes(open_):
    said = (
        Entry(role="user", text="book it"),
        ToolCall(id="c1", name="book_table", arguments='{"people":2}'),
        ToolResult(id="c1", name="book_table", content="booked"),
        ToolCall(id="c2", name="book_table", arguments="{}"),
        Entry(role="assistant", text="It is", interrupted=True),
        Entry(role="system", text="The kitchen closes."),
    )
    async with DeepgramAgentEmulator() as emulator:
        await open_(emulator, history=lambda: said)
        assert emulator.conversation == [
            ("user", "book it"),
            ("function_call", ""),
            ("function_call_output", "booked"),
            ("assistant", "It is …"),
            ("system", "The kitchen closes."),
        ]


async def test_a_sentence_is_said_word_for_word_and_behind_others(open_):
    async with DeepgramAgentEmulator(replies=story) as emulator:
        talker = await open_(emulator)
        first, second = await talker.turn(), uuid4()
        for text in ("This call ", "is recorded."):
            message = Message(uuid=second, data=text, done=text.endswith("."))
            talker.s2s.say(message, verbatim=True)
        await talker.replied(second)
        assert emulator.injected == ["This call is recorded."]
        assert talker.words(second) == "This call is recorded."
        assert [end.uuid for end in talker.told("replied")] == [first, second]


async def test_the_caller_stops_a_reply_that_is_made(open_):
    async with DeepgramAgentEmulator(sentences=["one", "two"], replies=story, chunk_s=0.02) as emulator:
        talker = await open_(emulator)
        first = await talker.turn()
        await talker.until(lambda: talker.told("message"))
        emulator.replies = None
        second = await talker.turn()
        assert talker.told("flush") == [first]
        assert talker.ends(first)[0].state == "cancelled"
        await talker.replied(second)
        assert talker.words(second) == "You said: two"
        names = [name for name, payload in talker.events if getattr(payload, "uuid", payload) == first]
        assert names.index("flush") < names.index("replied")
        assert "message" not in names[names.index("replied") :]


async def test_the_caller_stops_a_reply_that_is_still_heard(open_):
    async with DeepgramAgentEmulator(replies=story) as emulator:
        talker = await open_(emulator)
        first = await talker.answer()
        talker.say(speech(200))
        await talker.until(lambda: talker.told("flush"))
        assert talker.told("flush") == [first]
        assert [end.state for end in talker.told("replied")] == ["completed"]


async def test_a_caller_who_speaks_on_gets_one_answer(open_):
    async with DeepgramAgentEmulator(sentences=["one", "two"], stalling=1) as emulator:
        talker = await open_(emulator)
        first = await talker.turn()
        second = await talker.turn()
        await talker.replied(second)
        assert talker.ends(first)[0].state == "cancelled"
        assert talker.words(second) == "You said: two"


async def test_where_the_caller_began_is_told(open_):
    async with DeepgramAgentEmulator() as emulator:
        talker = await open_(emulator)
        talker.at_ms = 60_000.0
        talker.say(silence(400) + speech(300))
        async with asyncio.timeout(5):
            while talker.s2s._start_ms is None:
                await asyncio.sleep(0.002)
        talker.say(speech(700) + silence(900))
        await talker.until(lambda: talker.told("utterance"))
        [said] = talker.told("utterance")
        assert (said.at_ms, said.end_ms) == (60_700, 62_300)


async def test_a_tool_that_is_not_wanted_any_more_is_told(open_):
    async with DeepgramAgentEmulator(replies=books) as emulator:
        talker = await open_(emulator)
        await talker.answer()
        [asked] = talker.told("tool_call")
        emulator.replies = None
        again = await talker.answer()
        assert talker.told("tool_cancelled") == [asked.call.id]
        talker.s2s.answer(asked.call.id, "booked")  # which nobody wants to know
        assert talker.words(again) == "You said: hello"
        assert not any(frame.json()["type"] == "FunctionCallResponse" for frame in emulator.received(str))


async def test_what_is_said_while_a_tool_runs_belongs_to_its_turn(open_):
    async with DeepgramAgentEmulator(replies=books) as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        [asked] = talker.told("tool_call")
        [socket] = emulator.sockets
        await socket.send({"type": "ConversationText", "role": "assistant", "content": "One moment."})
        await socket.send(speech(400))
        await socket.send({"type": "AgentAudioDone"})
        await talker.until(lambda: talker.told("message") and talker.told("message")[-1].done)
        assert talker.words(uuid) == "One moment."
        assert len(talker.ends(uuid)) == 1  # of the reply that wanted the tool
        talker.s2s.answer(asked.call.id, "booked")
        talker.s2s.respond(uuid)
        await talker.replied(uuid, count=2)
        assert talker.words(uuid) == "One moment.It is booked."


async def test_tools_come_after_the_words_before_them(open_):
    def both(items) -> RealtimeReply:
        reply = books(items)
        return RealtimeReply(text="Let me see.", tools=reply.tools) if reply.tools else reply

    async with DeepgramAgentEmulator(replies=both) as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        names = [name for name, payload in talker.events if getattr(payload, "uuid", None) == uuid]
        assert names.index("message") < names.index("tool_call") < names.index("replied")
        assert talker.words(uuid) == "Let me see."


async def test_what_it_says_of_its_own_accord_is_a_turn_of_its_own(open_):
    async with DeepgramAgentEmulator() as emulator:
        talker = await open_(emulator, options={"agent": {"greeting": "Good evening!"}})
        await talker.until(lambda: talker.told("replied"))
        [end] = talker.told("replied")
        assert (talker.words(end.uuid), end.part, end.state) == ("Good evening!", None, "completed")
        assert talker.told("turn") == []


async def test_other_instructions_keep_the_notes(open_):
    async with DeepgramAgentEmulator() as emulator:
        talker = await open_(emulator)
        talker.s2s.add(Entry(role="system", text="The kitchen closes."))
        await emulator.until(lambda: emulator.conversation == [("system", "The kitchen closes.")])
        talker.s2s.update(system="Be kind.", tools=())
        await emulator.until(lambda: emulator.sessions[0].instructions == "Be kind.\n\nThe kitchen closes.")
        assert (emulator.sessions[0].tools, talker.s2s.session) == ([], 1)


async def test_an_error_ends_the_session_and_is_told_once(open_):
    async with DeepgramAgentEmulator(replies=lambda _: RealtimeReply(fails="FAILED_TO_THINK")) as emulator:
        talker = await open_(emulator)
        first = await talker.turn()
        await talker.ready(2)
        emulator.replies = None
        assert (await talker.replied(first)).state in ("failed", "completed")
        assert [failure.fatal for failure in talker.failures] in ([False], [False, False])
        assert "FAILED_TO_THINK" in str(talker.failures[0].error)


async def test_settings_that_are_not_taken_are_the_end(open_):
    async with DeepgramAgentEmulator() as emulator:
        talker = await open_(emulator, wait=False, violations=True, options={"agent": {"nonsense": 1}})
        await talker.until(lambda: talker.failures)
        [failure] = talker.failures
        assert failure.fatal
        assert isinstance(failure.error, ProviderError)
        assert "INVALID_SETTINGS" in str(failure.error)
        assert emulator.connections == 1


async def test_a_warning_is_told_once(open_):
    async with DeepgramAgentEmulator() as emulator:
        talker = await open_(emulator)
        for code in ("THINK_REQUEST_FAILED", "THINK_REQUEST_FAILED", "PROMPT_TOO_LONG"):
            await emulator.warn(code)
        await talker.until(lambda: len(talker.failures) == 2)
        assert not any(failure.fatal for failure in talker.failures)
        assert talker.s2s.session == 1


async def test_a_sentence_that_is_refused_has_failed(open_):
    async with DeepgramAgentEmulator(stalling=1) as emulator:
        talker = await open_(emulator)
        uuid = uuid4()
        talker.s2s.say(Message(uuid=uuid, data="This call is recorded.", done=True), verbatim=True)
        await emulator.until(lambda: emulator.stalling == 0)
        await emulator.sockets[0].send({"type": "InjectionRefused", "message": "The caller is speaking."})
        assert (await talker.replied(uuid)).state == "failed"
        assert "The caller is speaking." in str(talker.failures[0].error)


@pytest.mark.parametrize(("asked", "state"), [(True, "failed"), (False, "completed")])
async def test_a_reply_that_does_not_come_is_not_waited_for(open_, monkeypatch, asked, state):
    monkeypatch.setattr(hosted, "_PATIENCE_S", 0.1)
    async with DeepgramAgentEmulator(stalling=1) as emulator:
        talker = await open_(emulator)
        uuid = uuid4() if asked else await talker.turn()
        if asked:
            talker.s2s.respond(uuid)
        assert (await talker.replied(uuid)).state == state
        assert talker.audio_ms(uuid) == 0


async def test_an_idle_connection_is_kept(open_, monkeypatch):
    assert DeepgramAgentS2S.keep_alive_s == 8.0  # as the documentation wants it
    monkeypatch.setattr(DeepgramAgentS2S, "keep_alive_s", 0.04)
    async with DeepgramAgentEmulator(idle_s=2.0) as emulator:
        await open_(emulator)
        await emulator.until(lambda: emulator.kept_alive >= 3)
        assert emulator.connections == 1


async def test_a_service_that_lost_patience_is_called_again(open_):
    async with DeepgramAgentEmulator(idle_s=0.1) as emulator:
        talker = await open_(emulator)
        await talker.ready(2)
        assert "CLIENT_MESSAGE_TIMEOUT" in str(talker.failures[0].error)
        assert not talker.failures[0].fatal


async def test_the_session_is_accounted_for_by_its_length(open_, monkeypatch):
    monkeypatch.setattr(hosted, "_METER_S", 0.05)
    async with DeepgramAgentEmulator() as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        await talker.until(lambda: len(talker.told("usage")) >= 4)
        talker.s2s.dispose()
        used = talker.told("usage")
        assert {told.usage.model for told in used} == {"deepgram-voice-agent"}
        assert {told.uuid for told in used} == {uuid, None}
        assert all(told.usage.session_s > 0 for told in used)
        assert not talker.s2s._timers


async def test_what_is_typed_is_answered_with_the_next_question_at_the_latest(open_):
    async with DeepgramAgentEmulator() as emulator:
        talker = await open_(emulator)
        talker.s2s.add(Entry(role="user", text="a table"))
        talker.s2s.add(Entry(role="user", text="for two"))
        uuid = uuid4()
        talker.s2s.respond(uuid)
        await talker.replied(uuid)
        assert talker.words(uuid) == "You said: a table for two"
        assert talker.told("turn") == talker.told("utterance") == []  # its echo was nobody's


async def test_silence_is_not_answered(open_):
    async with DeepgramAgentEmulator() as emulator:
        talker = await open_(emulator)
        talker.say(silence(3000))
        await talker.answer()
        assert len(talker.told("turn")) == 1


async def test_the_key_and_what_was_said_stay_out_of_logs(open_, caplog):
    caplog.set_level(logging.DEBUG)
    async with DeepgramAgentEmulator(sentences=["my secret"]) as emulator:
        talker = await open_(emulator)
        await talker.answer()
        assert emulator.api_key not in repr(talker.s2s) + caplog.text
        ours = [record.getMessage() for record in caplog.records if record.name.startswith("dialog")]
        assert "secret" not in "".join(ours)


@pytest.mark.parametrize("name", ["api_key", "model", "llm", "listen_model", "voice"])
def test_what_it_needs_is_asked_for(name):
    with pytest.raises(ConfigurationError, match=name):
        DeepgramAgentS2S(**{"api_key": "k", name: ""})
