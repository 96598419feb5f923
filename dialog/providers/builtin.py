"""The providers that come with Dialog: a line each."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["BUILTIN", "DEFAULTS", "INTERFACES", "Kind"]

Kind: TypeAlias = Literal["stt", "tts", "s2s", "llm", "agent", "voip", "gateway", "sms"]
"""What a provider is for. The group of its entry points is ``dialog.`` and this."""

INTERFACES: dict[Kind, str] = {
    "stt": "dialog.stt.stt:STT",
    "tts": "dialog.tts.tts:TTS",
    "s2s": "dialog.s2s.s2s:S2S",
    "llm": "dialog.llm.llm:LLM",
    "agent": "dialog.agent.agent:Agent",
    "voip": "dialog.voip.voip:VoIP",
    "gateway": "",  # what a gateway is, its carrier decides
    "sms": "dialog.sms.sms:SMS",
}
"""What a provider of each kind must be a subclass of."""

BUILTIN: dict[Kind, dict[str, str]] = {
    "stt": {
        "azure": "dialog.stt.azure:AzureSTT",
        "cartesia": "dialog.stt.cartesia:CartesiaSTT",
        "deepgram": "dialog.stt.deepgram:DeepgramSTT",
        "deepgram-flux": "dialog.stt.flux:DeepgramFluxSTT",
        "elevenlabs": "dialog.stt.elevenlabs:ElevenLabsSTT",
        "openai": "dialog.stt.openai:OpenAIRealtimeSTT",
        "pocketsphinx": "dialog.stt.pocketsphinx:PocketsphinxSTT",
    },
    "tts": {
        "azure": "dialog.tts.azure:AzureTTS",
        "cartesia": "dialog.tts.cartesia:CartesiaTTS",
        "deepgram": "dialog.tts.deepgram:DeepgramTTS",
        "elevenlabs": "dialog.tts.elevenlabs:ElevenLabsTTS",
        "espeak": "dialog.tts.espeak:EspeakTTS",
        "openai": "dialog.tts.openai:OpenAITTS",
    },
    "s2s": {
        "cascade": "dialog.s2s.cascade:CascadeS2S",
        "deepgram": "dialog.s2s.deepgram:DeepgramAgentS2S",
        "elevenlabs": "dialog.s2s.elevenlabs:ElevenLabsAgentS2S",
        "gemini": "dialog.s2s.gemini:GeminiLiveS2S",
        "grok": "dialog.s2s.grok:GrokS2S",
        "openai": "dialog.s2s.openai:OpenAIRealtimeS2S",
    },
    "llm": {
        "anthropic": "dialog.llm.anthropic:AnthropicLLM",
        "openai": "dialog.llm.openai:OpenAILLM",
        "responses": "dialog.llm.responses:ResponsesLLM",
        "rules": "dialog.llm.rules:RuleLLM",
    },
    "agent": {
        "anthropic": "dialog.presets:AnthropicAgent",
        "openai": "dialog.presets:OpenAIAgent",
        "responses": "dialog.presets:ResponsesAgent",
        "rules": "dialog.presets:RuleAgent",
        "twilio-openai": "dialog.presets:TwilioOpenAIAgent",
    },
    "voip": {
        "compatible": "dialog.voip.streams.voip:StreamVoIP",
        "exotel": "dialog.voip.streams.voip:StreamVoIP",
        "plivo": "dialog.voip.streams.voip:StreamVoIP",
        "sip": "dialog.voip.sip.voip:SIPVoIP",
        "telnyx": "dialog.voip.telnyx.voip:TelnyxVoIP",
        "twilio": "dialog.voip.twilio.voip:TwilioVoIP",
        "web": "dialog.voip.web.voip:WebVoIP",
    },
    "gateway": {
        "sip": "dialog.voip.sip.gateway:SIPGateway",
        "stream": "dialog.voip.streams.gateway:StreamGateway",
        "telnyx": "dialog.voip.telnyx.gateway:TelnyxGateway",
        "twilio": "dialog.voip.twilio.gateway:TwilioGateway",
        "web": "dialog.voip.web.gateway:WebGateway",
    },
    "sms": {
        "telnyx": "dialog.sms.telnyx:TelnyxSMS",
        "twilio": "dialog.sms.twilio:TwilioSMS",
    },
}
"""Name → ``module:class``. After a change, ``python docs/generate.py`` writes what is made from it."""

DEFAULTS: dict[Kind, str] = {
    "stt": "deepgram",
    "tts": "cartesia",
    "s2s": "openai",
    "llm": "openai",
    "agent": "openai",
    "voip": "twilio",
    "gateway": "twilio",
    "sms": "twilio",
}
"""What is made when no name is given."""
