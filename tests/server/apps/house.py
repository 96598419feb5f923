"""A service of two tenants in several processes, with its account, limits and workers from the environment."""

from __future__ import annotations

import os

from dialog.server.config import ApiSettings, ApiToken, ClientSettings, PhoneNumber, ServiceConfig, TwilioTenant
from dialog.sessions.config import AgentConfig
from dialog.testing import HummingTTS, ScriptedLLM, ToldSTT
from dialog.voip.pacing import Pacing
from dialog.workers.fleet import Fleet

OTHER = "AC" + "1" * 32


def tenant(account_sid: str, **more) -> TwilioTenant:
    return TwilioTenant(
        account_sid=account_sid,
        auth_token=os.environ["TWILIO_AUTH_TOKEN"],
        base_url=os.environ["TWILIO_BASE_URL"],
        pacing=Pacing(calls_per_s=1000.0),
        **more,
    )


def config() -> ServiceConfig:
    """Its agents say in which process they are."""
    most, nats = os.environ.get("MAX_CALLS"), os.environ.get("NATS_URL")
    agent = AgentConfig(
        stt=ToldSTT,
        tts=lambda: HummingTTS(ms_per_char=10.0),
        llm=lambda: ScriptedLLM([]),
        greeting=f"I am process {os.getpid()}.",
    )
    return ServiceConfig(
        assistants={"desk": agent},
        tenants={
            "first": tenant(os.environ["TWILIO_ACCOUNT_SID"], max_calls=int(most) if most else None),
            "second": tenant(OTHER),
        },
        numbers={"ours": PhoneNumber(number="+15551230002", tenant="first")},
        webhook_url=os.environ["WEBHOOK_URL"],
        api=ApiSettings(
            tokens=(
                ApiToken(name="tests", token="a-token-of-the-tests"),
                ApiToken(name="second", token="a-token-of-the-second", tenants=frozenset({"second"})),
            ),
            requests_per_s=1000.0,
            burst=1000,
        ),
        clients=ClientSettings(),
        log=os.environ.get("CALL_LOG", ""),
        workers=Fleet(nats) if nats else None,
    )


def on_voip(voip) -> None:
    """What workers run."""
    config().on_voip(voip)
