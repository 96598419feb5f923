"""A phone agent whose calls are spread over worker processes, one per core.

Run it with ``python main.py``; the settings are explained in ``.env.template``.
"""

from __future__ import annotations

import sys

from dialog import CartesiaTTS, ConfigurationError, DeepgramSTT, TwilioGateway, TwilioOpenAIAgent, VoIP, logs
from dialog.env import number, read_env, required
from dialog.server.serving import run
from dialog.server.tls import tls_context
from dialog.workers import WorkerPool

KEYS = ("TWILIO_AUTH_TOKEN", "OPENAI_API_KEY", "DEEPGRAM_API_KEY", "CARTESIA_API_KEY")

env = read_env()


def on_voip(voip: VoIP) -> None:
    """Somebody calls: give them an agent of their own. This runs in a worker process."""
    TwilioOpenAIAgent(
        voip=voip,
        # As functions, because a text chat (python -m dialog chat main:on_voip) needs neither.
        stt=lambda: DeepgramSTT(
            api_key=env["DEEPGRAM_API_KEY"], base_url=env.get("DEEPGRAM_BASE_URL", "https://api.deepgram.com")
        ),
        tts=lambda: CartesiaTTS(
            api_key=env["CARTESIA_API_KEY"], base_url=env.get("CARTESIA_BASE_URL", "wss://api.cartesia.ai")
        ),
        api_key=env.get("OPENAI_API_KEY", ""),
        base_url=env.get("OPENAI_BASE_URL", ""),
        system=env.get("SYSTEM_PROMPT", "You are a friendly assistant on the phone. Answer in one or two sentences."),
        greeting=env.get("GREETING", "Hello! How can I help you?"),
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
            leave_s=number(env, "LEAVE_S", 5.0),
        )


def make_gateway() -> TwilioGateway:
    """The carrier's side of all calls: it stays in this process."""
    return TwilioGateway(
        account_sid=env["TWILIO_ACCOUNT_SID"],
        auth_token=env["TWILIO_AUTH_TOKEN"],
        webhook_url=env["WEBHOOK_URL"],
        base_url=env.get("TWILIO_BASE_URL"),
        workers=WorkerPool(f"{__file__}:on_voip", processes=number(env, "PROCESSES", 0) or None),
    )


if __name__ == "__main__":
    try:
        main()
    except ConfigurationError as exc:
        sys.exit(f"error: {exc}")
