"""The emulator of OpenAI's realtime models speaks the real protocol: the official SDK drives it."""

from __future__ import annotations

import asyncio
from base64 import b64encode

import pytest
from openai import AsyncOpenAI, AuthenticationError
from openai.types.realtime import (
    ConversationItemTruncatedEvent,
    InputAudioBufferSpeechStartedEvent,
    RealtimeErrorEvent,
    ResponseAudioDeltaEvent,
    ResponseDoneEvent,
    SessionUpdatedEvent,
)
from s2s_providers import silence, speech
from websockets.exceptions import InvalidStatus

from dialog.testing.model import ToolUse
from dialog.testing.openai_realtime import OpenAIRealtimeEmulator
from dialog.testing.s2s import RealtimeReply

SESSION = {
    "type": "realtime",
    "output_modalities": ["audio"],
    "instructions": "Be brief.",
    "audio": {
        "input": {
            "format": {"type": "audio/pcmu"},
            "transcription": {"model": "gpt-transcribe"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
        },
        "output": {"format": {"type": "audio/pcmu"}, "voice": "marin"},
    },
    "tools": [{"type": "function", "name": "book", "description": "Book.", "parameters": {"type": "object"}}],
}


async def talk(connection, audio: bytes) -> None:
    for at in range(0, len(audio), 800):
        await connection.input_audio_buffer.append(audio=b64encode(audio[at : at + 800]).decode())


async def until(connection, kind: str) -> list:
    events = []
    async with asyncio.timeout(5):
        while not events or events[-1].type != kind:
            events.append(await connection.recv())
            # Every event is of a type that the SDK knows, and has the fields that it expects.
            assert events[-1].event_id
            type(events[-1]).model_validate(events[-1].model_dump())
    return events


def client(emulator: OpenAIRealtimeEmulator, key: str = "") -> AsyncOpenAI:
    return AsyncOpenAI(api_key=key or emulator.api_key, base_url=emulator.base_url)


async def test_the_sdk_holds_a_conversation() -> None:
    async with (
        OpenAIRealtimeEmulator(sentences=["a table for two"]) as emulator,
        client(emulator) as openai,
        openai.realtime.connect(model="gpt-realtime-2.1") as connection,
    ):
        await until(connection, "session.created")
        await connection.session.update(session=SESSION)
        updated = (await until(connection, "session.updated"))[-1]
        assert isinstance(updated, SessionUpdatedEvent)
        assert updated.session.instructions == "Be brief."
        await talk(connection, silence(300) + speech(900) + silence(600))
        events = await until(connection, "response.done")
        done = events[-1]
        assert isinstance(done, ResponseDoneEvent)
        assert done.response.status == "completed"
        assert done.response.usage.output_token_details.audio_tokens > 0
        assert done.response.output[0].content[0].transcript == "You said: a table for two"
        assert any(isinstance(event, InputAudioBufferSpeechStartedEvent) for event in events)
        assert any(isinstance(event, ResponseAudioDeltaEvent) for event in events)
        kinds = [event.type for event in events]
        for earlier, later in (
            ("input_audio_buffer.speech_stopped", "input_audio_buffer.committed"),
            ("input_audio_buffer.committed", "response.created"),
            ("response.created", "response.output_item.added"),
            ("response.output_item.added", "response.output_audio.delta"),
            ("response.output_audio.done", "response.output_item.done"),
        ):
            assert kinds.index(earlier) < kinds.index(later)
        said = "conversation.item.input_audio_transcription.completed"
        if said not in kinds:
            events = await until(connection, said)
        assert emulator.violations == []


async def test_the_sdk_uses_tools_and_tells_what_was_heard() -> None:
    def answer(items):
        done = any(item.kind == "function_call_output" for item in items)
        return (
            RealtimeReply(text="It is booked for you.") if done else RealtimeReply(tools=(ToolUse("book", {"n": 2}),))
        )

    async with (
        OpenAIRealtimeEmulator(replies=answer) as emulator,
        client(emulator) as openai,
        openai.realtime.connect(model="gpt-realtime") as connection,
    ):
        await until(connection, "session.created")
        await connection.session.update(session=SESSION)
        await until(connection, "session.updated")
        content = [{"type": "input_text", "text": "book"}]
        await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        await connection.response.create()
        events = await until(connection, "response.done")
        [call] = [event for event in events if event.type == "response.function_call_arguments.done"]
        assert call.arguments == '{"n":2}'
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "ok"}
        await connection.conversation.item.create(item=output)
        await connection.response.create()
        events = await until(connection, "response.done")
        item = next(event.item_id for event in events if event.type == "response.output_audio.delta")
        await connection.conversation.item.truncate(item_id=item, content_index=0, audio_end_ms=300)
        truncated = (await until(connection, "conversation.item.truncated"))[-1]
        assert isinstance(truncated, ConversationItemTruncatedEvent)
        assert emulator.conversation[-1] == ("assistant", "It is bo")
        await connection.conversation.item.truncate(item_id=item, content_index=0, audio_end_ms=99_000)
        error = (await until(connection, "error"))[-1]
        assert isinstance(error, RealtimeErrorEvent)
        assert "already shorter than" in error.error.message
        await connection.response.cancel()
        error = (await until(connection, "error"))[-1]
        assert error.error.code == "response_cancel_not_active"
        await connection.input_audio_buffer.commit()
        error = (await until(connection, "error"))[-1]
        assert error.error.code == "input_audio_buffer_commit_empty"


async def test_the_sdk_is_cut_off_by_speech_and_by_order() -> None:
    async with (
        OpenAIRealtimeEmulator(replies=lambda _: RealtimeReply(text="word " * 50), chunk_s=0.02) as emulator,
        client(emulator) as openai,
        openai.realtime.connect(model="gpt-realtime") as connection,
    ):
        await until(connection, "session.created")
        await connection.session.update(session=SESSION)
        await until(connection, "session.updated")
        await connection.response.create()
        await until(connection, "response.output_audio.delta")
        await connection.response.create()
        error = (await until(connection, "error"))[-1]
        assert error.error.code == "conversation_already_has_active_response"
        await talk(connection, speech(300))
        done = (await until(connection, "response.done"))[-1].response
        assert (done.status, done.status_details.reason) == ("cancelled", "turn_detected")
        await connection.response.create()
        await until(connection, "response.created")
        await connection.response.cancel()
        done = (await until(connection, "response.done"))[-1].response
        assert (done.status, done.status_details.reason) == ("cancelled", "client_cancelled")


async def test_the_sdk_is_told_of_a_wrong_key_and_of_the_beta() -> None:
    async with OpenAIRealtimeEmulator() as emulator, client(emulator, "wrong") as openai:
        with pytest.raises((InvalidStatus, AuthenticationError)):
            async with openai.realtime.connect(model="gpt-realtime"):
                pass
        async with (
            client(emulator) as admitted,
            admitted.realtime.connect(model="gpt-realtime", extra_headers={"OpenAI-Beta": "realtime=v1"}) as connection,
        ):
            error = (await until(connection, "error"))[-1]
            assert error.error.code == "beta_api_shape_disabled"
