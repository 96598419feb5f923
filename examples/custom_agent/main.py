"""An agent of one's own: it writes down when everything was said, and asks its model by itself.

Run it with ``python main.py``; the settings are explained in ``.env.template``.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple
from uuid import UUID

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from dialog import Agent, CartesiaTTS, ConfigurationError, DeepgramSTT, Message, TwilioGateway, VoIP, logs
from dialog.calls.events import AgentSaid, CallEvent, ReplyDropped
from dialog.env import number, read_env, required
from dialog.server.serving import run
from dialog.server.tls import tls_context

KEYS = ("TWILIO_AUTH_TOKEN", "OPENAI_API_KEY", "DEEPGRAM_API_KEY", "CARTESIA_API_KEY")

env = read_env()


class Entry(NamedTuple):
    at: datetime
    turn: UUID
    caller: bool
    text: str


class DiaryAgent(Agent):
    """Keeps a history of its own, in which every message has its time, and shows the times to the model."""

    def __init__(self, *, voip: VoIP, client: AsyncOpenAI, model: str, prompt: str, greeting: str) -> None:
        super().__init__(
            voip=voip,
            # As functions, because a text chat (python -m dialog chat main:on_voip) needs neither.
            stt=lambda: DeepgramSTT(
                api_key=env["DEEPGRAM_API_KEY"], base_url=env.get("DEEPGRAM_BASE_URL", "https://api.deepgram.com")
            ),
            tts=lambda: CartesiaTTS(
                api_key=env["CARTESIA_API_KEY"], base_url=env.get("CARTESIA_BASE_URL", "wss://api.cartesia.ai")
            ),
            greeting=greeting,
        )
        self.client = client
        self.model = model
        self.prompt = prompt
        self.diary: list[Entry] = []
        self.on(Agent.EVENT, self.write_down)

    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        """Answer the caller. The base class stops this when they interrupt."""
        self.diary.append(Entry(datetime.now(UTC), message.uuid, caller=True, text=message.data))
        stream = await self.client.chat.completions.create(model=self.model, messages=self.messages(), stream=True)
        async with stream:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

    def write_down(self, event: CallEvent) -> None:
        """Of the agent's own words, only those count that the caller has heard."""
        if isinstance(event, AgentSaid) and event.heard:
            self.diary.append(Entry(datetime.now(UTC), event.turn, caller=False, text=event.heard))
        elif isinstance(event, ReplyDropped):
            # Nothing was heard yet when the caller went on: both utterances come again as one.
            self.diary = [entry for entry in self.diary if entry.turn != event.turn]

    def messages(self) -> list[ChatCompletionMessageParam]:
        """The diary, as the model reads it."""
        messages: list[ChatCompletionMessageParam] = [{"role": "system", "content": self.prompt}]
        for at, _, caller, text in self.diary:
            line = f"[{at:%H:%M:%S}] {text}"
            messages.append({"role": "user", "content": line} if caller else {"role": "assistant", "content": line})
        return messages


@cache
def openai_client() -> AsyncOpenAI:
    """One client for all calls."""
    return AsyncOpenAI(api_key=env.get("OPENAI_API_KEY"), base_url=env.get("OPENAI_BASE_URL"))


def on_voip(voip: VoIP) -> None:
    """Somebody calls: give them an agent of their own."""
    DiaryAgent(
        voip=voip,
        client=openai_client(),
        model=env.get("OPENAI_MODEL", "gpt-4.1-mini"),
        prompt=env.get("SYSTEM_PROMPT", "You are on the phone. The time is noted before each message; never say it."),
        greeting=env.get("GREETING", "Hello! What would you like to know?"),
    ).activate()


def main() -> None:
    """Serve until Ctrl-C or SIGTERM; then let the calls finish."""
    required(env, *KEYS, "TWILIO_ACCOUNT_SID", "WEBHOOK_URL")
    with logs.configure(env.get("LOG_LEVEL", "info"), secrets=[env[key] for key in KEYS]):
        run(
            make_gateway,
            host=env.get("HOST_NAME", "127.0.0.1"),
            port=number(env, "PORT", 8080),
            tls=tls_context(env.get("CERT_FILE"), env.get("KEY_FILE")),
            leave_s=0.0,  # nobody sends calls here who would have to be told first
        )


def make_gateway() -> TwilioGateway:
    """The door through which calls come in."""
    gateway = TwilioGateway(
        account_sid=env["TWILIO_ACCOUNT_SID"],
        auth_token=env["TWILIO_AUTH_TOKEN"],
        webhook_url=env["WEBHOOK_URL"],
        base_url=env.get("TWILIO_BASE_URL"),
    )
    gateway.on("voip", on_voip)
    return gateway


if __name__ == "__main__":
    try:
        main()
    except ConfigurationError as exc:
        sys.exit(f"error: {exc}")
