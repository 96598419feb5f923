"""A phone agent in realtime mode: Twilio brings the calls, one model hears, thinks and speaks.

Run it with ``python main.py``; the settings are explained in ``.env.template``.
"""

from __future__ import annotations

import sys
from datetime import datetime

from dialog import Agent, AgentSettings, OpenAILLM, TwilioGateway, VoIP, create_s2s, end_call_tool, logs, tool
from dialog.env import number, read_env, required
from dialog.errors import ConfigurationError
from dialog.providers.variables import value_of, variable
from dialog.server.serving import run
from dialog.server.tls import tls_context

KEYS = {
    "openai": ("OPENAI_API_KEY",),
    "gemini": ("GEMINI_API_KEY",),
    "grok": ("XAI_API_KEY",),
    "deepgram": ("DEEPGRAM_API_KEY",),
    "elevenlabs": ("ELEVENLABS_API_KEY", "ELEVENLABS_AGENT_ID"),
}
"""What each model is reached with."""

env = read_env()
provider = env.get("REALTIME_PROVIDER", "openai")


class Clerk(Agent):
    """Runs as it is with an ``stt``, an ``llm`` and a ``tts``, too: only the arguments differ."""

    end_call = end_call_tool()

    @tool
    async def time_of_day(self) -> str:
        """Tell what time it is."""
        return datetime.now().astimezone().strftime("%H:%M")


def on_voip(voip: VoIP) -> None:
    """Somebody calls: give them an agent of their own."""
    options = {"base_url": env["REALTIME_BASE_URL"]} if "REALTIME_BASE_URL" in env else {}
    Clerk(
        voip=voip,
        s2s=lambda: create_s2s.from_env(provider, env=env, **options),
        # A text chat (python -m dialog chat main:on_voip) is not heard: there this one answers.
        llm=OpenAILLM(api_key=env["OPENAI_API_KEY"]) if "OPENAI_API_KEY" in env else None,
        system=env.get(
            "SYSTEM_PROMPT",
            "You are a friendly assistant on the phone. Greet the caller first. Answer in one or two sentences.",
        ),
        settings=AgentSettings(model_opens=True),
    ).activate()


def main() -> None:
    """Serve until Ctrl-C or SIGTERM; then let the calls finish."""
    if provider not in KEYS:
        raise ConfigurationError(f"REALTIME_PROVIDER must be one of {', '.join(KEYS)}, got {provider!r}")
    env.update({name: value_of(env, variable(name)) for name in KEYS[provider]})  # some have another name, too
    keys = ("TWILIO_AUTH_TOKEN", *KEYS[provider])
    required(env, *keys, "TWILIO_ACCOUNT_SID", "WEBHOOK_URL")
    with logs.configure(env.get("LOG_LEVEL", "info"), secrets=[env[key] for key in keys]):
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
