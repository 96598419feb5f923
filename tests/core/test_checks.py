"""Mistakes in settings that would show in the middle of a call, or never, are refused when they are made."""

from __future__ import annotations

import pytest

from dialog import (
    AgentSettings,
    ApiSettings,
    ApiToken,
    AzureSTT,
    BargeIn,
    CachedTTS,
    CartesiaSTT,
    ClientSettings,
    DeepgramFluxSTT,
    DeepgramSTT,
    Destinations,
    ElevenLabsSTT,
    MachineDetection,
    OpenAIRealtimeSTT,
    SessionSpec,
    TurnSettings,
    WebhookEndpoint,
)
from dialog.dialling.plan import Retry
from dialog.errors import ConfigurationError
from dialog.testing import HummingTTS
from dialog.workers import NatsSettings

SECRET = "a secret of many letters"


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (AgentSettings, {"idle_prompts": "Are you still there?"}),
        (AgentSettings, {"filler": "One moment."}),
        (BargeIn, {"backchannels": "uh-huh"}),
        (Destinations, {"allow": "+1*"}),
        (Destinations, {"deny": "+882*"}),
        (ApiToken, {"name": "crm", "token": SECRET, "tenants": "acme"}),
        (ApiToken, {"name": "crm", "token": SECRET, "scopes": "calls"}),
        (ApiSettings, {"cors_origins": "https://app.example"}),
        (ClientSettings, {"origins": "https://app.example"}),
        (WebhookEndpoint, {"name": "crm", "url": "https://crm.example", "secrets": SECRET}),
        (WebhookEndpoint, {"name": "crm", "url": "https://crm.example", "events": "*"}),
        (SessionSpec, {"tools": "book"}),
        (NatsSettings, {"servers": "nats://10.0.0.1:4222"}),
        (Retry, {"on": "busy"}),
        *(
            (kind, {"api_key": "k", "keyterms": "Luigi's"})
            for kind in (AzureSTT, CartesiaSTT, DeepgramFluxSTT, DeepgramSTT, ElevenLabsSTT, OpenAIRealtimeSTT)
        ),
    ],
)
def test_one_text_in_the_place_of_several_is_not_taken_letter_by_letter(kind, settings):
    with pytest.raises(ConfigurationError, match="must be several texts") as refused:
        kind(**settings)
    assert SECRET not in str(refused.value)


def test_one_phrase_to_keep_ready_is_not_taken_letter_by_letter():
    with pytest.raises(ConfigurationError, match="CachedTTS: phrases must be several texts"):
        CachedTTS(HummingTTS(), "Luigi's, good evening!")


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        (AgentSettings, {"vad": "silero"}, "vad must be one of auto, local, provider, got 'silero'"),
        (SessionSpec, {"vad": "silero"}, "vad must be one of"),
        (SessionSpec, {"interruption": "after-sentence"}, "interruption must be one of immediate, after_sentence"),
        (MachineDetection, {"when_machine": "hangup"}, "when_machine must be one of go_on, hang_up, leave_message"),
        (MachineDetection, {"assume": "person"}, "assume must be one of human, machine"),
        (AgentSettings, {"turns": BargeIn()}, r"turns must be TurnSettings\(…\), got BargeIn"),
        (TurnSettings, {"barge_in": "disabled"}, r"barge_in must be BargeIn\(…\), got str"),
        (TurnSettings, {"thinking": "disabled"}, "thinking must be BargeIn"),
        (TurnSettings, {"silence": 8.0}, "silence must be Silence"),
        (TurnSettings, {"endpointing": "local"}, "endpointing must be Endpointing"),
    ],
)
def test_what_no_setting_knows_is_refused_with_what_it_knows(kind, settings, told):
    with pytest.raises(ConfigurationError, match=told):
        kind(**settings)
