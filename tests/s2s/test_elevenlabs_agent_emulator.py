"""The emulator of ElevenLabs' agents speaks the real protocol: the official SDK drives it."""

from __future__ import annotations

import asyncio
import warnings

import httpx
import pytest
from elevenlabs import ElevenLabs
from elevenlabs.core.api_error import ApiError
from s2s_providers import silence, speech

from dialog.testing.elevenlabs_agent import ElevenLabsAgentEmulator
from dialog.testing.model import ToolUse
from dialog.testing.s2s import RealtimeReply

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it names a class that websockets is about to drop
    from elevenlabs.conversational_ai.conversation import (
        AsyncAudioInterface,
        AsyncConversation,
        ClientTools,
        ConversationInitiationData,
    )


class Line(AsyncAudioInterface):
    """What the SDK plays of the newest reply, and what it is given to hear."""

    def __init__(self, woken: asyncio.Event) -> None:
        self._woken = woken
        self.heard = bytearray()
        self.interruptions = 0
        self.say = None

    async def start(self, input_callback):
        self.say = input_callback

    async def stop(self):
        self.say = None

    async def output(self, audio: bytes):
        self.heard += audio
        self._woken.set()

    async def interrupt(self):
        self.interruptions += 1


class Talk:
    """One conversation of the SDK's."""

    def __init__(self, emulator: ElevenLabsAgentEmulator, *, key: str = "", **override) -> None:
        self._woken = asyncio.Event()
        self.line = Line(self._woken)
        self.told: list[tuple[str, ...]] = []
        self.tools = ClientTools(loop=asyncio.get_running_loop())
        self._http = httpx.Client()
        self.conversation = AsyncConversation(
            ElevenLabs(api_key=key or emulator.api_key, base_url=emulator.url, httpx_client=self._http),
            emulator.agent_id,
            requires_auth=True,
            audio_interface=self.line,
            client_tools=self.tools,
            config=ConversationInitiationData(conversation_config_override=override),
            callback_agent_response=self._keep("agent"),
            callback_agent_response_correction=self._keep("correction"),
            callback_user_transcript=self._keep("user"),
        )

    def _keep(self, kind: str):
        async def keep(*what: str) -> None:
            self.told.append((kind, *what))
            if kind == "agent":
                self.line.heard.clear()
            self._woken.set()

        return keep

    async def until(self, condition) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self._woken.clear()
                await self._woken.wait()

    async def talk(self, ms: int) -> None:
        audio = silence(300) + speech(ms) + silence(700)
        for at in range(0, len(audio), 800):
            await self.line.say(audio[at : at + 800])

    async def start(self) -> None:
        # It asks for its address without giving way to the loop, in which the emulator runs as well.
        address = await asyncio.to_thread(self.conversation._get_signed_url)
        self.conversation._get_signed_url = lambda: address
        await self.conversation.start_session()
        async with asyncio.timeout(5):
            while self.line.say is None:
                await asyncio.sleep(0.002)

    async def over(self) -> None:
        await self.conversation.end_session()
        await self.conversation.wait_for_session_end()
        self.close()

    def close(self) -> None:
        self._http.close()


async def test_the_sdk_holds_a_conversation() -> None:
    async with ElevenLabsAgentEmulator(sentences=["a table for two", "stop"], ms_per_char=100) as emulator:
        talk = Talk(emulator, agent={"first_message": "Good evening!", "prompt": {"prompt": "Be brief."}})
        await talk.start()
        await talk.until(lambda: ("agent", "Good evening!") in talk.told)
        assert emulator.sessions[0].instructions == "Be brief."
        assert emulator.sessions[0].initiation["source_info"]["source"] == "python_sdk"
        await talk.talk(900)
        await talk.until(lambda: ("user", "a table for two") in talk.told)
        await talk.until(lambda: ("agent", "You said: a table for two") in talk.told)
        before = talk.line.interruptions
        await talk.talk(900)
        await talk.until(lambda: ("agent", "You said: stop") in talk.told)
        assert talk.line.interruptions == before + 1
        [cut] = [what for kind, *what in talk.told if kind == "correction" and what[0].startswith("You")]
        assert cut[0].startswith(cut[1])
        assert emulator.pongs
        await talk.until(lambda: len(talk.line.heard) == len("You said: stop") * 800)
        await talk.over()
        assert emulator.violations == []


async def test_the_sdk_runs_the_tools() -> None:
    def answer(items) -> RealtimeReply:
        done = [item.text for item in items if item.kind == "function_call_output"]
        return RealtimeReply(text=f"It is {done[-1]}.") if done else RealtimeReply(tools=(ToolUse("book", {"n": 2}),))

    async with ElevenLabsAgentEmulator(replies=answer) as emulator:
        talk = Talk(emulator, agent={"first_message": ""})
        given: list[dict] = []

        async def book(parameters: dict) -> str:
            given.append(parameters)
            return "booked"

        talk.tools.register("book", book, is_async=True)
        await talk.start()
        await talk.conversation.send_contextual_update("The kitchen closes.")
        await talk.conversation.send_user_message("book it")
        await talk.until(lambda: ("agent", "It is booked.") in talk.told)
        assert given[0]["n"] == 2
        assert emulator.conversation[:2] == [("context", "The kitchen closes."), ("user", "book it")]
        await talk.over()
        assert emulator.violations == []


async def test_the_sdk_is_refused_with_a_wrong_key() -> None:
    async with ElevenLabsAgentEmulator() as emulator:
        talk = Talk(emulator, key="wrong")
        with pytest.raises(ApiError) as refused:
            await asyncio.to_thread(talk.conversation._get_signed_url)
        assert refused.value.status_code == 401
        talk.close()
