"""What docs/scripts.md shows does what it says, over the phone's own protocol."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import Any

import pytest
from test_code_blocks import SPEECH, TOKEN, run

import dialog
from dialog.testing import (
    Callee,
    Caller,
    CartesiaEmulator,
    DeepgramEmulator,
    HummingTTS,
    TextSession,
    ToldSTT,
    TwilioRestEmulator,
)

NUMBER = "+15550123"


@asynccontextmanager
async def house(names: dict[str, Any], *sentences: str):
    """A gateway for the page's functions, whose providers are emulated; on any free port."""
    async with (
        DeepgramEmulator(sentences=list(sentences)) as deepgram,
        CartesiaEmulator(ms_per_char=10) as cartesia,
        TwilioRestEmulator(auth_token=TOKEN) as twilio,
    ):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]

        def stt(**_: Any) -> dialog.STT:
            return dialog.DeepgramSTT(api_key=deepgram.api_key, base_url=deepgram.url)

        def tts(**_: Any) -> dialog.TTS:
            return dialog.CartesiaTTS(api_key=cartesia.api_key, base_url=cartesia.url)

        def server(gateway: Any, **options: Any) -> dialog.BackgroundServer:
            return dialog.BackgroundServer(gateway, **{**options, "host": "127.0.0.1", "port": port})

        names.update(DeepgramSTT=stt, CartesiaTTS=tts, BackgroundServer=server)
        gateway = dialog.TwilioGateway(
            account_sid=twilio.account_sid,
            auth_token=TOKEN,
            webhook_url=f"http://127.0.0.1:{port}/twilio",
            base_url=twilio.url,
        )

        async def talk(caller: Caller) -> None:
            await caller.listen(silence_ms=1500, timeout_s=30)
            await caller.say(SPEECH)
            await caller.wait_ended(timeout_s=30)

        twilio.callees[NUMBER] = Callee(on_answer=talk)
        yield gateway, server


async def test_ten_lines_call_somebody() -> None:
    names = run("docs/scripts.md")
    async with house(names, "yes of course we will come") as (gateway, _):
        assert await asyncio.to_thread(names["remind"], gateway, NUMBER) is True


async def test_a_coroutine_does_the_same() -> None:
    names = run("docs/scripts.md")
    async with house(names, "no sorry we are ill") as (gateway, server):
        serving = server(gateway, tts=names["CartesiaTTS"])
        await asyncio.to_thread(serving.start, asyncio.get_running_loop())
        try:
            assert await names["remind_too"](gateway, NUMBER) is False
        finally:
            await asyncio.to_thread(serving.shutdown)


async def test_the_script_of_the_page_is_tested_by_text() -> None:
    names = run("docs/scripts.md")
    await names["test_a_guest_who_comes"]()


@pytest.mark.parametrize(("answer", "told"), [("a large one please", "large"), ("blue", None)])
def test_the_kind_of_answer_of_the_page(answer: str, told: str | None) -> None:
    assert run("docs/scripts.md")["Size"]().said(answer) == told


async def test_the_menu_takes_keys_and_wishes() -> None:
    names = run("docs/scripts.md")

    def on_voip(voip: dialog.VoIP) -> None:
        names["Menu"](voip=voip, stt=ToldSTT, tts=HummingTTS).activate()

    async with TextSession(on_voip) as session:
        reply = await session.press("1")
        reply.says("minestrone")
        reply = await session.run("a table for two")
        reply.says("You said: a table for two.")
