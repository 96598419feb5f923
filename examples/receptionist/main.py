"""A receptionist who connects callers with colleagues, after telling those what it is about.

Run it with ``python main.py``; the settings are explained in ``.env.template``. ``python simulate.py`` shows the same
receptionist without any account.
"""

from __future__ import annotations

import sys

from dialog import (
    CartesiaTTS,
    ConfigurationError,
    DeepgramSTT,
    OpenAIAgent,
    TwilioGateway,
    VoIP,
    end_call_tool,
    logs,
    warm_transfer_tool,
)
from dialog.env import number, read_env, required
from dialog.server.serving import run
from dialog.server.tls import tls_context

KEYS = ("TWILIO_AUTH_TOKEN", "OPENAI_API_KEY", "DEEPGRAM_API_KEY", "CARTESIA_API_KEY")
PROMPT = """\
You answer the phone of Harbour Bikes, a shop that sells and repairs bicycles. Be friendly and brief: one or two \
sentences, as one speaks. The shop is open from nine to six, Monday to Saturday, at 12 Harbour Street. A repair takes \
two days. When somebody wants a colleague, or something that you do not know, ask what it is about unless they have \
said so, tell them to hold the line, and use warm_transfer with a summary for the colleague. If the caller comes back, \
nobody could take the call: offer to note their number."""

env = read_env()


def colleagues() -> dict[str, str]:
    """Who can be asked, and their numbers: ``the workshop=+15550101, the manager=+15550102``."""
    pairs = (pair.split("=", 1) for pair in env.get("COLLEAGUES", "the workshop=+15550101").split(","))
    return {name.strip(): number.strip() for name, number in pairs}


class Receptionist(OpenAIAgent):
    """Knows the shop, and who works there."""

    warm_transfer = warm_transfer_tool(colleagues())
    end_call = end_call_tool()


def on_voip(voip: VoIP) -> None:
    """Somebody calls: give them an agent of their own."""
    Receptionist(
        voip=voip,
        stt=lambda: DeepgramSTT(
            api_key=env["DEEPGRAM_API_KEY"], base_url=env.get("DEEPGRAM_BASE_URL", "https://api.deepgram.com")
        ),
        tts=lambda: CartesiaTTS(
            api_key=env["CARTESIA_API_KEY"], base_url=env.get("CARTESIA_BASE_URL", "wss://api.cartesia.ai")
        ),
        api_key=env.get("OPENAI_API_KEY", ""),
        base_url=env.get("OPENAI_BASE_URL", ""),
        system=env.get("SYSTEM_PROMPT", PROMPT),
        greeting=env.get("GREETING", "Harbour Bikes, good day! How can I help you?"),
    ).activate()


def main() -> None:
    """Serve until Ctrl-C or SIGTERM; then let the calls finish."""
    required(env, *KEYS, "TWILIO_ACCOUNT_SID", "WEBHOOK_URL")
    required(env, "COLLEAGUES")
    with logs.configure(env.get("LOG_LEVEL", "info"), secrets=[env[key] for key in KEYS]):
        run(
            make_gateway,
            host=env.get("HOST_NAME", "127.0.0.1"),
            port=number(env, "PORT", 8080),
            tls=tls_context(env.get("CERT_FILE"), env.get("KEY_FILE")),
            leave_s=0.0,  # nobody sends calls here who would have to be told first
        )


def make_gateway() -> TwilioGateway:
    """The door through which calls come in, and colleagues are called."""
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
