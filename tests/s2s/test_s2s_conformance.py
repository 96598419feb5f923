"""What every realtime model over a socket does, whatever its service is like."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace
from s2s_providers import CALL, PROVIDERS, Provider, Talker, silence, speech, tells_no_end

from dialog.calls.prices import PRICES, Price, cost_usd
from dialog.errors import AuthenticationError, ConfigurationError, RemoteProtocolError, StateError, UnsupportedFormat
from dialog.llm.llm import Entry, ToolCall, ToolResult
from dialog.message import MULAW_8K, PCM_16K, AudioFormat, Message
from dialog.net import shared
from dialog.s2s import streaming
from dialog.s2s.s2s import SessionSpec
from dialog.testing.model import ToolUse
from dialog.testing.s2s import RealtimeReply
from dialog.testing.server import Faults

pytestmark = pytest.mark.parametrize("provider", PROVIDERS, ids=str)

DOCS = Path(__file__).parents[2] / "docs" / "realtime.md"
STORY = "Once upon a time there was a table by the window, and nobody sat at it for a very long time."


@pytest.fixture
async def open_(provider: Provider):
    """Make models with an open session, and see that nothing of them is left."""
    talkers: list[Talker] = []

    async def make(emulator: Any, *, wait: bool = True, violations: bool = False, **options: Any) -> Talker:
        talker = Talker(provider, emulator, **options)
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
        assert not talker.s2s._tasks
        assert talker.may_violate or talker.emulator.violations == []
    assert not shared._loops.get(asyncio.get_running_loop())


def story(items: Any) -> RealtimeReply:
    return RealtimeReply(text=STORY)


# A turn, and what is told of it.


async def test_a_turn_is_told_answered_and_accounted_for_under_one_uuid(provider, open_):
    async with provider.emulator(sentences=["a table for two"]) as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        text = "You said: a table for two"
        assert talker.words(uuid) == text
        assert talker.audio_ms(uuid) == pytest.approx(len(text) * 40, abs=20)
        if talker.s2s.capabilities.transcribes:
            await talker.until(lambda: talker.told("utterance"))
            assert [(said.uuid, said.data) for said in talker.told("utterance")] == [(uuid, "a table for two")]
        assert [(end.uuid, end.state, end.part) for end in talker.told("replied")] == [(uuid, "completed", None)]
        audio = talker.told("message")
        assert [message.done for message in audio] == [False] * (len(audio) - 1) + [True]
        at_ms = 0.0
        for message in audio:
            assert (message.uuid, message.part) == (uuid, 0)
            assert message.at_ms == pytest.approx(at_ms)
            at_ms += talker.output_format.ms(len(message.data))
        names = [name for name, _ in talker.events]
        assert names.index("turn") < names.index("message") < names.index("replied")
        assert talker.failures == []


async def test_speech_edges_are_on_the_calls_clock(provider, open_):
    async with provider.emulator() as emulator:
        talker = await open_(emulator)
        if provider.manual or not talker.s2s.capabilities.speech_events:
            pytest.skip("tells no speech edges")
        talker.at_ms = 60_000.0
        await talker.turn(1000)
        start, stop = talker.told("vad")
        assert (start.state, stop.state) == ("started", "stopped")
        assert start.at_ms == pytest.approx(60_400, abs=120)
        assert stop.at_ms == pytest.approx(61_400, abs=120)


async def test_turns_follow_each_other_with_uuids_and_parts_of_their_own(provider, open_):
    async with provider.emulator(sentences=["one", "two"]) as emulator:
        talker = await open_(emulator)
        first, second = await talker.answer(), await talker.answer()
        assert first != second
        assert [talker.words(first), talker.words(second)] == ["You said: one", "You said: two"]
        assert {message.part for message in talker.told("message")} == {0}


async def test_usage_is_told_in_the_units_of_all(provider, open_):
    async with provider.emulator() as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        await talker.until(lambda: any(told.uuid == uuid for told in talker.told("usage")))
        used = [told.usage for told in talker.told("usage") if told.uuid == uuid]
        if provider.tells_tokens:
            [used] = [usage for usage in used if usage.output_tokens]
            assert 0 < used.input_audio_tokens < used.input_tokens
            if provider.tells_cached:
                assert 0 < used.cached_audio_tokens < used.cached_tokens < used.input_tokens
            assert 0 < used.output_audio_tokens < used.output_tokens
        else:
            [used] = used
            assert used.session_s > 0


async def test_a_price_that_is_not_certain_is_left_to_the_user(provider, open_):
    async with provider.emulator() as emulator:
        talker = await open_(emulator)
        await talker.answer()
        await talker.until(lambda: talker.told("usage"))
        usage = talker.told("usage")[-1].usage
        if provider.priced:
            assert cost_usd(usage) > 0
        else:
            assert cost_usd(usage) is None
            assert f'"{usage.model}": Price(' in DOCS.read_text()
        dear = Price(output=1.0, audio_output=1.0, session_minute=1.0)
        assert cost_usd(usage, {**PRICES, usage.model: dear}) > 0


async def test_words_that_nobody_understood_are_told_as_none(provider, open_):
    if not provider.fails_to_understand:
        pytest.skip("does not say so")
    async with provider.emulator(unintelligible=1) as emulator:
        talker = await open_(emulator)
        await talker.turn()
        await talker.until(lambda: talker.told("utterance"))
        assert [said.data for said in talker.told("utterance")] == [""]


# Telephone audio, formats, settings.


async def test_telephone_audio_goes_straight_through(provider, open_):
    async with provider.emulator() as emulator:
        talker = await open_(emulator)
        if MULAW_8K not in talker.s2s.formats:
            pytest.skip("takes none")
        await talker.turn()
        sent = b"".join(provider.audio(frame) for frame in emulator.received())
        assert speech(1000) in sent


async def test_every_format_that_is_promised_is_taken(provider, open_):
    for heard in provider.factory.formats:
        for spoken in provider.factory.output_formats:
            async with provider.emulator() as emulator:
                talker = Talker(provider, emulator)
                talker.s2s.open(SessionSpec(input_format=heard, output_format=spoken, vad=talker.spec.vad))
                await talker.ready()
                uuid = uuid4()
                talker.s2s.respond(uuid)
                await talker.replied(uuid)
                data = sum(len(message.data) for message in talker.told("message"))
                assert spoken.ms(data) == pytest.approx(len("Hello.") * 40, abs=20)
                talker.s2s.dispose()
                await talker.s2s.wait_disposed()
                assert emulator.violations == []


async def test_a_format_that_it_has_not_is_refused(provider, open_):
    async with provider.emulator() as emulator:
        talker = Talker(provider, emulator)
        with pytest.raises(UnsupportedFormat):
            talker.s2s.open(SessionSpec(input_format=AudioFormat("s16le", 11_025), output_format=PCM_16K))
        talker.s2s.dispose()


async def test_headers_options_and_query_are_passed_on(provider, open_):
    async with provider.emulator() as emulator:
        talker = await open_(emulator, headers={"X-Trace": "t1"}, query={"trial": True}, options=provider.options)
        request = emulator.requests[0]
        assert request.headers["X-Trace"] == "t1"
        assert request.values("trial") == ["true"]
        assert emulator.sessions[0].instructions == "Be long."
        if not provider.declares_tools:
            return
        assert [tool["name"] for tool in emulator.sessions[0].tools] == ["book_table"]
        talker.s2s.update(system="Be kind.", tools=())
        await emulator.until(lambda: emulator.sessions[-1].tools == [])


# Tools.


def books(items: Any) -> RealtimeReply:
    results = [item.text for item in items if item.kind == "function_call_output"]
    if results:
        return RealtimeReply(text=f"It is {results[-1]}.")
    return RealtimeReply(text="Let me see.", tools=(ToolUse("book_table", {"people": 2}), ToolUse("book_table", {})))


def books_badly(items: Any) -> RealtimeReply:
    reply = books(items)
    return replace(reply, tools=(reply.tools[0], ToolUse("book_table", '{"p'))) if reply.tools else reply


async def test_tools_are_asked_for_answered_and_followed_by_words(provider, open_):
    bad = provider.invalid_arguments
    async with provider.emulator(replies=books_badly if bad else books) as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        asked = talker.told("tool_call")
        assert [(tool.uuid, tool.call.name) for tool in asked] == [(uuid, "book_table")] * 2
        assert [tool.call.arguments for tool in asked] == ['{"people":2}', '{"p' if bad else "{}"]
        for tool, result in zip(asked, ("refused", "booked"), strict=True):
            talker.s2s.answer(tool.call.id, result)
        talker.s2s.respond(uuid)
        await talker.replied(uuid, count=2)
        assert talker.words(uuid) == "Let me see.It is booked."
        assert [message.part for message in talker.told("message") if message.done] == [0, 1]


async def test_a_tool_of_a_cancelled_reply_is_not_asked_for(provider, open_):
    async with provider.emulator(replies=books, chunk_s=0.02) as emulator:
        talker = await open_(emulator)
        uuid = await talker.turn()
        talker.respond(uuid)
        await talker.until(lambda: talker.told("message"))
        talker.cut(uuid, 40)
        emulator.replies = None
        again = await talker.turn()
        talker.respond(again)
        await talker.replied(again)
        assert talker.told("tool_call") == []


# Interruption.


async def test_nothing_of_a_cancelled_reply_leaks_out(provider, open_):
    async with provider.emulator(replies=story, chunk_s=0.02) as emulator:
        talker = await open_(emulator)
        uuid = await talker.turn()
        talker.respond(uuid)
        await talker.until(lambda: talker.told("message"))
        heard = len(talker.events)
        talker.cut(uuid, 120)
        assert [(name, getattr(payload, "state", "")) for name, payload in talker.events[heard:]] == [
            ("replied", "cancelled")
        ]
        emulator.replies = None
        again = await talker.turn()
        talker.respond(again)
        await talker.replied(again)
        late = [name for name, payload in talker.events[heard + 1 :] if getattr(payload, "uuid", None) == uuid]
        assert set(late) <= {"utterance", "interim", "usage"}
        assert talker.ends(again)[0].state == "completed"
        assert talker.failures == []


@pytest.mark.parametrize("when", ["while it is made", "once all of it came"])
async def test_the_model_is_told_what_was_heard(provider, open_, when):
    async with provider.emulator(replies=story, chunk_s=0.02 if when == "while it is made" else 0.0) as emulator:
        talker = await open_(emulator)
        if not talker.s2s.capabilities.truncate:
            pytest.skip("cannot be told")
        uuid = await talker.turn()
        talker.respond(uuid)
        await talker.until(lambda: talker.audio_ms(uuid) >= 800)
        if when == "once all of it came":
            await talker.replied(uuid)
        talker.cut(uuid, 600)
        await emulator.until(lambda: any(item.truncated_ms for item in emulator.sessions[-1].items))
        [item] = [item for item in emulator.sessions[-1].items if item.role == "assistant"]
        assert item.truncated_ms == 600
        assert STORY.startswith(item.text)
        assert 0 < len(item.text) < len(STORY) / 2


async def test_a_reply_of_which_nothing_was_heard_is_forgotten(provider, open_):
    async with provider.emulator(replies=story, chunk_s=0.02) as emulator:
        talker = await open_(emulator)
        if not talker.s2s.capabilities.truncate:
            pytest.skip("cannot be told")
        uuid = await talker.turn()
        talker.respond(uuid)
        await talker.until(lambda: talker.told("message"))
        talker.cut(uuid, 0)
        await emulator.until(lambda: all(role != "assistant" for role, _ in emulator.conversation))
        assert emulator.conversation[0][0] == "user"


async def test_a_reply_is_cancelled_before_it_begins(provider, open_):
    async with provider.emulator(replies=story, chunk_s=0.02) as emulator:
        talker = await open_(emulator)
        uuid = uuid4()
        talker.s2s.respond(uuid)
        talker.cut(uuid, 0)
        assert [end.state for end in talker.ends(uuid)] == ["cancelled"]
        again = uuid4()
        talker.s2s.respond(again)
        await talker.replied(again)
        assert talker.audio_ms(uuid) == 0
        assert talker.words(again) == STORY
        assert len(talker.ends(uuid)) == 1


async def test_cancelling_what_is_over_or_unknown_hurts_nobody(provider, open_):
    async with provider.emulator() as emulator:
        talker = await open_(emulator)
        talker.cut(uuid4(), 100)
        uuid = await talker.answer()
        talker.cut(uuid, 100_000, part=3)
        talker.cut(uuid, 100_000)
        talker.cut(uuid, 100_000)
        again = await talker.answer()
        assert talker.ends(again)[0].state == "completed"
        assert talker.failures == []


async def test_replies_are_made_one_after_the_other(provider, open_):
    async with provider.emulator(replies=story) as emulator:
        talker = await open_(emulator)
        first, second = uuid4(), uuid4()
        talker.s2s.respond(first)
        talker.s2s.respond(second)
        await talker.replied(second)
        assert [end.uuid for end in talker.told("replied")] == [first, second]
        assert talker.words(first) == talker.words(second) == STORY


# What it did not hear, and what it is to say.


async def test_what_was_typed_is_known_to_the_model(provider, open_):
    async with provider.emulator() as emulator:
        talker = await open_(emulator)
        talker.s2s.add(Entry(role="user", text="(pressed 1 2)"))
        uuid = uuid4()
        talker.s2s.respond(uuid)
        await talker.replied(uuid)
        assert talker.words(uuid) == "You said: (pressed 1 2)"


async def test_a_sentence_is_said_as_a_part_of_its_turn(provider, open_):
    async with provider.emulator() as emulator:
        talker = await open_(emulator)
        uuid = uuid4()
        verbatim = talker.s2s.capabilities.verbatim
        for text, done in (("Good evening, ", False), ("this is Luigi's.", True)):
            talker.s2s.say(Message(uuid=uuid, part=2, data=text, done=done), verbatim=verbatim)
        await talker.replied(uuid)
        assert talker.ends(uuid)[0].part == 2
        assert {message.part for message in talker.told("message")} == {2}
        assert talker.audio_ms(uuid) == pytest.approx(len("Good evening, this is Luigi's.") * 40, abs=20)
        talker.s2s.respond(uuid)
        await talker.replied(uuid, count=2)
        assert talker.told("message")[-1].part == 3


async def test_a_session_begins_with_what_was_said_before(provider, open_):
    said = (
        Entry(role="user", text="book it"),
        ToolCall(id="c1", name="book_table", arguments="{}"),
        ToolResult(id="c1", name="book_table", content="booked"),
        Entry(role="assistant", text="It is booked.", interrupted=True),
        Entry(role="system", text="The kitchen closes."),
    )
    async with provider.emulator() as emulator:
        talker = await open_(emulator, history=lambda: said)
        uuid = await talker.answer()
        known = [provider.known(text) for _, text in emulator.conversation]
        assert known[0] == "book it"
        assert any(text.startswith("It is booked.") for text in known)
        assert "The kitchen closes." in known
        assert talker.words(uuid) == "You said: hello"


# Connections.


async def test_audio_before_the_session_is_heard(provider, open_):
    async with provider.emulator() as emulator:
        talker = await open_(emulator, wait=False)
        uuid = await talker.turn()
        talker.respond(uuid)
        await talker.replied(uuid)
        assert talker.words(uuid) == "You said: hello"


async def test_a_reply_that_was_asked_for_before_the_session_is_made(provider, open_):
    async with provider.emulator() as emulator:
        talker = await open_(emulator, wait=False)
        uuid = uuid4()
        talker.s2s.respond(uuid)
        await talker.replied(uuid)
        assert talker.words(uuid) == "Hello."


async def test_a_lost_session_is_replaced_and_knows_what_was_said(provider, open_):
    said: list[Any] = []
    async with provider.emulator(sentences=["one", "two"]) as emulator:
        talker = await open_(emulator, history=lambda: said)
        await talker.answer()
        said += [Entry(role="user", text="one"), Entry(role="assistant", text="You said: one")]
        for socket in tuple(emulator.sockets):
            socket.drop()
        await talker.ready(2)
        uuid = await talker.answer()
        assert talker.words(uuid) == "You said: two"
        assert [provider.known(text) for _, text in emulator.conversation][:2] == ["one", "You said: one"]
        assert [failure.fatal for failure in talker.failures] == [False]


async def test_a_reply_that_had_not_begun_is_asked_for_again(provider, open_):
    async with provider.emulator(stalling=1) as emulator:
        talker = await open_(emulator)
        uuid = uuid4()
        talker.s2s.respond(uuid)
        await emulator.until(lambda: emulator.stalling == 0)
        for socket in tuple(emulator.sockets):
            socket.drop()
        await talker.replied(uuid)
        assert talker.words(uuid) == "Hello."


async def test_a_reply_that_was_lost_in_the_middle_has_failed(provider, open_):
    async with provider.emulator(replies=story, chunk_s=0.02) as emulator:
        talker = await open_(emulator)
        uuid = await talker.turn()
        talker.respond(uuid)
        await talker.until(lambda: talker.told("message"))
        for socket in tuple(emulator.sockets):
            socket.drop()
        end = await talker.replied(uuid)
        assert end.state == "failed"
        assert talker.told("message")[-1].done


async def test_a_session_is_replaced_between_two_turns_before_it_ends(provider, open_, monkeypatch):
    monkeypatch.setattr(streaming, "_BEFORE_END_S", 61.7)
    async with provider.emulator(sentences=["one", "two"], session_s=62.0) as emulator:
        if provider.factory.capabilities.session_s is None:
            pytest.skip("sessions last")
        talker = await open_(emulator)
        await provider.ending(emulator, talker)
        await talker.ready(2)
        emulator.session_s = 3600.0
        uuid = await talker.answer()
        assert talker.words(uuid).startswith("You said: ")
        assert talker.failures == []


async def test_a_session_whose_end_is_known_from_its_beginning_is_going_to_be_replaced(provider, open_):
    async with provider.emulator() as emulator:
        talker = await open_(emulator)
        known = provider.factory.capabilities.session_s is not None and provider.ending is tells_no_end
        assert ("renewal" in talker.s2s._timers) == ("forced renewal" in talker.s2s._timers) == known


async def test_a_session_is_not_replaced_while_a_reply_is_made(provider, open_):
    async with provider.emulator(replies=story, chunk_s=0.01) as emulator:
        talker = await open_(emulator)
        uuid = uuid4()
        talker.s2s.respond(uuid)
        await talker.until(lambda: talker.told("message"))
        talker.s2s._renewal()
        assert talker.s2s.session == 1
        await talker.replied(uuid)
        assert talker.words(uuid) == STORY
        await talker.ready(2)
        assert talker.failures == []


async def test_what_the_caller_says_while_a_session_is_replaced_is_heard(provider, open_):
    async with provider.emulator(sentences=["one"]) as emulator:
        talker = await open_(emulator)
        talker.s2s._renewal()
        uuid = await talker.turn()
        talker.respond(uuid)
        await talker.replied(uuid)
        assert talker.s2s.session == 2
        assert talker.words(uuid) == "You said: one"


async def test_a_wrong_key_is_one_fatal_error_that_says_so(provider, open_):
    async with provider.emulator() as emulator:
        talker = await open_(emulator, wait=False, api_key="wrong")
        await talker.until(lambda: talker.failures)
        assert isinstance(talker.failures[0].error, AuthenticationError)
        assert [failure.fatal for failure in talker.failures] == [True]
        uuid = uuid4()
        talker.s2s.respond(uuid)
        assert [end.state for end in talker.ends(uuid)] == ["failed"]
        assert len(emulator.requests) == 1
        assert "wrong" not in str(talker.failures[0])


@pytest.mark.parametrize("status", [429, 503])
async def test_a_passing_refusal_costs_nothing(provider, open_, status):
    async with provider.emulator(faults=Faults(refuse=status, times=1)) as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        assert talker.words(uuid) == "You said: hello"


@pytest.mark.parametrize("code", [1001, 1006, 1011])
async def test_a_closed_connection_is_made_again(provider, open_, code):
    async with provider.emulator() as emulator:
        talker = await open_(emulator)
        for socket in tuple(emulator.sockets):
            socket.drop() if code == 1006 else await socket.close(code, "gone")
        await talker.ready(2)
        uuid = await talker.answer()
        assert talker.words(uuid) == "You said: hello"


@pytest.mark.parametrize("code", [1007, 1008])
async def test_a_connection_that_is_closed_for_our_fault_is_the_end(provider, open_, code):
    async with provider.emulator() as emulator:
        talker = await open_(emulator)
        for socket in tuple(emulator.sockets):
            await socket.close(code, "no")
        await talker.until(lambda: talker.failures)
        assert talker.failures[0].fatal


async def test_a_session_that_is_never_set_up_is_left(provider, open_, monkeypatch):
    monkeypatch.setattr(streaming, "_READY_S", 0.05)
    async with provider.emulator(faults=Faults(stall_after=provider.greetings, times=1)) as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        assert emulator.connections == 2
        assert talker.words(uuid) == "You said: hello"


@pytest.mark.parametrize("faults", [Faults(unknown=True), Faults(drip_s=0.001)], ids=["unknown", "slow drip"])
async def test_odd_but_legal_services_are_understood(provider, open_, faults):
    async with provider.emulator(faults=faults) as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        assert talker.words(uuid) == "You said: hello"
        assert talker.failures == []


async def test_garbage_is_reported_and_survived(provider, open_):
    async with provider.emulator(faults=Faults(garbage_after=4)) as emulator:
        talker = await open_(emulator)
        uuid = await talker.answer()
        assert talker.words(uuid) == "You said: hello"
        assert [type(failure.error) for failure in talker.failures] == [RemoteProtocolError]


async def test_a_large_piece_of_audio_is_taken(provider, open_):
    long = "word " * 4000
    async with provider.emulator(replies=lambda _: RealtimeReply(text=long), chunk_ms=1e9, ms_per_char=8) as emulator:
        talker = await open_(emulator)
        uuid = uuid4()
        talker.s2s.respond(uuid)
        await talker.replied(uuid)
        assert talker.audio_ms(uuid) == len(long) * 8


# Life.


async def test_it_can_be_disposed_of_in_every_state(provider, open_):
    async with provider.emulator(replies=story, chunk_s=0.02) as emulator:
        unopened = Talker(provider, emulator)
        unopened.s2s.dispose()
        unopened.s2s.dispose()
        unopened.s2s.post(Message(uuid=CALL, data=silence(20)))
        connecting = Talker(provider, emulator)
        connecting.s2s.open(connecting.spec)
        connecting.s2s.dispose()
        await connecting.s2s.wait_disposed()
        speaking = Talker(provider, emulator)
        speaking.s2s.open(speaking.spec)
        speaking.s2s.respond(uuid4())
        await speaking.until(lambda: speaking.told("message"))
        speaking.s2s.dispose()
        await speaking.s2s.wait_disposed()
        assert not speaking.s2s._tasks


async def test_misuse_is_told(provider, open_):
    async with provider.emulator() as emulator:
        talker = Talker(provider, emulator)
        with pytest.raises(StateError, match="before open"):
            talker.s2s.post(Message(uuid=CALL, data=silence(20)))
        talker.s2s.open(talker.spec)
        with pytest.raises(StateError, match="twice"):
            talker.s2s.open(talker.spec)
        talker.s2s.dispose()
        await talker.s2s.wait_disposed()
    with pytest.raises(ConfigurationError, match="api_key"):
        provider.factory(api_key="", **provider.required)
    with pytest.raises(ConfigurationError, match="base URL"):
        provider.factory(api_key="k", base_url="nonsense", **provider.required)


async def test_a_new_one_is_made_of_the_same(provider, open_):
    async with provider.emulator() as emulator:
        talker = Talker(provider, emulator)
        again = talker.s2s.renewed()
        assert type(again) is type(talker.s2s)
        assert again._headers == talker.s2s._headers
        assert emulator.api_key not in repr(again)
        for each in (again, talker.s2s):
            each.dispose()
