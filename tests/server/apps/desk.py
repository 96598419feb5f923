"""A service whose agents run in worker processes."""

from __future__ import annotations

import os

from dialog.server.config import ApiSettings, ApiToken, ServiceConfig, TwilioTenant
from dialog.sessions.config import AgentConfig
from dialog.testing import HummingTTS, ScriptedLLM, ToldSTT

config = ServiceConfig(
    assistants={
        "desk": AgentConfig(
            stt=ToldSTT, tts=HummingTTS, llm=lambda: ScriptedLLM([]), greeting=f"I am process {os.getpid()}."
        )
    },
    tenants={
        "main": TwilioTenant(account_sid="AC" + "0" * 32, auth_token="secret-token", base_url="http://127.0.0.1:9")
    },
    api=ApiSettings(tokens=(ApiToken(name="tests", token="a-token-of-the-tests"),)),
)
