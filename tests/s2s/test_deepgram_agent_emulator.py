"""The emulator of Deepgram's Voice Agent speaks the real protocol: the official SDK drives it."""

from __future__ import annotations

import asyncio

import pytest
from deepgram import AsyncDeepgramClient
from deepgram.agent.v1.types import (
    AgentV1AgentAudioDone,
    AgentV1AgentStartedSpeaking,
    AgentV1ConversationText,
    AgentV1Error,
    AgentV1FunctionCallRequest,
    AgentV1InjectAgentMessage,
    AgentV1InjectionRefused,
    AgentV1InjectUserMessage,
    AgentV1PromptUpdated,
    AgentV1SendFunctionCallResponse,
    AgentV1Settings,
    AgentV1SettingsApplied,
    AgentV1ThinkUpdated,
    AgentV1UpdatePrompt,
    AgentV1UpdateThink,
    AgentV1UserStartedSpeaking,
    AgentV1Welcome,
)
from deepgram.core.api_error import ApiError
from deepgram.environment import DeepgramClientEnvironment
from s2s_providers import silence, speech

from dialog.testing.deepgram_agent import DeepgramAgentEmulator
from dialog.testing.model import ToolUse
from dialog.testing.s2s import RealtimeReply

# deepgram-sdk imports names that websockets has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*websockets.*:DeprecationWarning")

THINK = {
    "provider": {"type": "open_ai", "model": "gpt-4o-mini"},
    "prompt": "Be brief.",
    "functions": [{"name": "book", "description": "Book.", "parameters": {"type": "object", "properties": {}}}],
}
SETTINGS = {
    "type": "Settings",
    "audio": {
        "input": {"encoding": "mulaw", "sample_rate": 8000},
        "output": {"encoding": "mulaw", "sample_rate": 8000, "container": "none"},
    },
    "agent": {
        "listen": {"provider": {"type": "deepgram", "version": "v2", "model": "flux-general-en"}},
        "think": THINK,
        "speak": {"provider": {"type": "deepgram", "model": "aura-2-thalia-en"}},
        "context": {
            "messages": [
                {"type": "History", "role": "user", "content": "Hi."},
                {
                    "type": "History",
                    "function_calls": [
                        {"id": "c0", "name": "book", "client_side": True, "arguments": "{}", "response": "ok"}
                    ],
                },
            ]
        },
    },
}


def client(emulator: DeepgramAgentEmulator, key: str = "") -> AsyncDeepgramClient:
    environment = DeepgramClientEnvironment(
        base=emulator.url, production=emulator.ws_url, agent=emulator.ws_url, agent_rest=emulator.url
    )
    return AsyncDeepgramClient(api_key=key or emulator.api_key, environment=environment)


async def until(connection, kind) -> list:
    """Everything up to a message of this kind; all of them are of types that the SDK knows."""
    messages: list = []
    async with asyncio.timeout(5):
        while not messages or not isinstance(messages[-1], kind):
            messages.append(await connection.recv())
            if not isinstance(messages[-1], bytes):
                assert not isinstance(messages[-1], dict)
                type(messages[-1]).model_validate(messages[-1].model_dump())
    return messages


async def started(connection) -> None:
    await until(connection, AgentV1Welcome)
    await connection.send_settings(AgentV1Settings.model_validate(SETTINGS))
    await until(connection, AgentV1SettingsApplied)


async def test_the_sdk_holds_a_conversation() -> None:
    async with (
        DeepgramAgentEmulator(sentences=["a table for two"]) as emulator,
        client(emulator).agent.v1.connect() as connection,
    ):
        await started(connection)
        assert emulator.conversation == [("user", "Hi."), ("function_call", ""), ("function_call_output", "ok")]
        audio = silence(300) + speech(900) + silence(700)
        for at in range(0, len(audio), 800):
            await connection.send_media(audio[at : at + 800])
        messages = await until(connection, AgentV1AgentAudioDone)
        kinds = [type(message) for message in messages]
        texts = [message for message in messages if isinstance(message, AgentV1ConversationText)]
        assert [(text.role, text.content) for text in texts] == [
            ("user", "a table for two"),
            ("assistant", "You said: a table for two"),
        ]
        assert kinds.index(AgentV1UserStartedSpeaking) < kinds.index(AgentV1ConversationText)
        assert kinds.index(AgentV1AgentStartedSpeaking) < kinds.index(bytes)
        assert sum(len(data) for data in messages if isinstance(data, bytes)) == len("You said: a table for two") * 320
        assert emulator.violations == []


async def test_the_sdk_uses_tools_and_has_things_said() -> None:
    def answer(items) -> RealtimeReply:
        if items[-1].kind == "function_call_output":
            return RealtimeReply(text="It is booked.")
        return RealtimeReply(tools=(ToolUse("book", {"n": 2}),))

    async with (
        DeepgramAgentEmulator(replies=answer) as emulator,
        client(emulator).agent.v1.connect() as connection,
    ):
        await started(connection)
        await connection.send_inject_user_message(AgentV1InjectUserMessage(content="book"))
        [call] = (await until(connection, AgentV1FunctionCallRequest))[-1].functions
        assert (call.name, call.arguments, call.client_side) == ("book", '{"n":2}', True)
        refused = AgentV1InjectAgentMessage(message="One moment.")
        await connection.send_inject_agent_message(refused)
        await until(connection, AgentV1InjectionRefused)
        response = AgentV1SendFunctionCallResponse(id=call.id, name=call.name, content="ok")
        await connection.send_function_call_response(response)
        await until(connection, AgentV1AgentAudioDone)
        await connection.send_inject_agent_message(AgentV1InjectAgentMessage(message="Bye.", behavior="queue"))
        await until(connection, AgentV1AgentAudioDone)
        assert [text for role, text in emulator.conversation if role == "assistant"] == ["It is booked.", "Bye."]
        await connection.send_update_prompt(AgentV1UpdatePrompt(prompt="Be kind."))
        await until(connection, AgentV1PromptUpdated)
        assert emulator.sessions[0].instructions == "Be brief.\n\nBe kind."
        await connection.send_update_think(AgentV1UpdateThink.model_validate({"think": {**THINK, "prompt": "Rest."}}))
        await until(connection, AgentV1ThinkUpdated)
        assert emulator.sessions[0].instructions == "Rest."
        await connection.send_keep_alive()
        await emulator.until(lambda: emulator.kept_alive == 1)
        assert emulator.violations == []


async def test_the_sdk_is_told_of_its_errors() -> None:
    async with DeepgramAgentEmulator() as emulator:
        async with client(emulator).agent.v1.connect() as connection:
            await until(connection, AgentV1Welcome)
            await connection.send_media(b"\xff" * 160)
            error = (await until(connection, AgentV1Error))[-1]
            assert error.code == "BINARY_MESSAGE_BEFORE_SETTINGS"
        with pytest.raises(ApiError):
            async with client(emulator, key="wrong").agent.v1.connect():
                pass
