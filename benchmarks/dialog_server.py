"""The same job as the bare bridge's, with Dialog: what the benchmarks measure."""

import asyncio
import os
import sys
import time
from contextlib import suppress

import uvloop
from aiohttp import web

from dialog import (
    Agent,
    AgentSettings,
    CartesiaTTS,
    DeepgramSTT,
    OpenAIAgent,
    OpenAIRealtimeS2S,
    TwilioGateway,
    TwilioVoIP,
)
from dialog.loop import calm_collector

gateway = TwilioGateway(
    account_sid=os.environ["TWILIO_ACCOUNT_SID"], auth_token=os.environ["TWILIO_AUTH_TOKEN"], path="/voice"
)


@gateway.on("voip")
def on_voip(voip: TwilioVoIP) -> None:
    if "REALTIME_BASE_URL" in os.environ:
        Agent(
            voip=voip,
            s2s=OpenAIRealtimeS2S(api_key="key", base_url=os.environ["REALTIME_BASE_URL"]),
            system="You are a phone agent.",
            settings=AgentSettings(model_opens=True),
        ).activate()
        return
    OpenAIAgent(
        voip=voip,
        stt=DeepgramSTT(api_key="key", base_url=os.environ["DEEPGRAM_BASE_URL"]),
        tts=CartesiaTTS(api_key="key", base_url=os.environ["CARTESIA_BASE_URL"]),
        api_key="key",
        base_url=os.environ["OPENAI_BASE_URL"],
        model="gpt-4.1",
        system="You are a phone agent.",
        greeting="Hello, how can I help you?",
    ).activate()


def stall() -> None:
    """Block the loop for 100 ms, every second: what a careless host program does."""
    time.sleep(0.1)
    asyncio.get_running_loop().call_later(0.9, stall)


async def main() -> None:
    runner = web.AppRunner(gateway.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ.get("PORT", "0"))).start()
    calm_collector()
    if os.environ.get("BENCH_STALL"):
        stall()
    print(f"LISTENING {runner.addresses[0][1]}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the runner closes it
    await runner.cleanup()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        uvloop.run(main())
