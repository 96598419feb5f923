"""Dialog: phone and browser conversations between people and LLM agents.

Four kinds of participants exchange immutable messages over events: a VoIP brings the caller's audio,
an STT turns it into utterances, an Agent answers them, a TTS speaks the answer. Every call gets one
fresh set of them.

Names are loaded when they are first used, so ``import dialog`` stays light and no provider's SDK is
needed unless it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dialog.version import __version__ as __version__

if TYPE_CHECKING:
    from dialog.agent.agent import Agent as Agent
    from dialog.agent.digits import Digits as Digits
    from dialog.agent.schematool import schema_tool as schema_tool
    from dialog.agent.scripts.asking import Phrases as Phrases
    from dialog.agent.scripts.asktool import ask_tool as ask_tool
    from dialog.agent.scripts.blocking import BlockingCall as BlockingCall
    from dialog.agent.scripts.call import ScriptCall as ScriptCall
    from dialog.agent.scripts.dialling import dial as dial
    from dialog.agent.scripts.recording import RecordedMessage as RecordedMessage
    from dialog.agent.scripts.script import Script as Script
    from dialog.agent.scripts.server import BackgroundServer as BackgroundServer
    from dialog.agent.scripts.speaking import SayResult as SayResult
    from dialog.agent.settings import AgentSettings as AgentSettings
    from dialog.agent.speech import Heard as Heard
    from dialog.agent.speech import Speech as Speech
    from dialog.agent.summaries import HistorySummaries as HistorySummaries
    from dialog.agent.toolkit import end_call_tool as end_call_tool
    from dialog.agent.toolkit import press_keys_tool as press_keys_tool
    from dialog.agent.toolkit import send_sms_tool as send_sms_tool
    from dialog.agent.toolkit import transfer_call_tool as transfer_call_tool
    from dialog.agent.toolkit import warm_transfer_tool as warm_transfer_tool
    from dialog.agent.tools import tool as tool
    from dialog.agent.tools import tool_key as tool_key
    from dialog.agent.turns.settings import BACKCHANNELS as BACKCHANNELS
    from dialog.agent.turns.settings import BargeIn as BargeIn
    from dialog.agent.turns.settings import Endpointing as Endpointing
    from dialog.agent.turns.settings import Silence as Silence
    from dialog.agent.turns.settings import TurnSettings as TurnSettings
    from dialog.audio.mix import mix_frames as mix_frames
    from dialog.audio.sound import Sound as Sound
    from dialog.audio.speakers import LocalSpeakers as LocalSpeakers
    from dialog.calls.delivery.endpoint import WebhookEndpoint as WebhookEndpoint
    from dialog.calls.delivery.signature import verify_webhook as verify_webhook
    from dialog.calls.delivery.webhooks import Webhooks as Webhooks
    from dialog.calls.metrics import SessionMetrics as SessionMetrics
    from dialog.calls.publish import CallEvents as CallEvents
    from dialog.calls.redact import Redaction as Redaction
    from dialog.calls.report import SessionReport as SessionReport
    from dialog.calls.spending import SpendLimit as SpendLimit
    from dialog.calls.store.log import CallLog as CallLog
    from dialog.calls.store.search import CallSearch as CallSearch
    from dialog.clock import Clock as Clock
    from dialog.errors import CallHungUp as CallHungUp
    from dialog.errors import CallNotAnswered as CallNotAnswered
    from dialog.errors import CarrierError as CarrierError
    from dialog.errors import ConfigurationError as ConfigurationError
    from dialog.errors import DestinationRefused as DestinationRefused
    from dialog.errors import DialogError as DialogError
    from dialog.errors import NotUnderstood as NotUnderstood
    from dialog.errors import ProviderError as ProviderError
    from dialog.errors import RecognitionFailed as RecognitionFailed
    from dialog.errors import SpeechFailed as SpeechFailed
    from dialog.errors import Timeout as Timeout
    from dialog.keyed import BodyBuffer as BodyBuffer
    from dialog.keyed import KeyedMutex as KeyedMutex
    from dialog.llm.anthropic import AnthropicLLM as AnthropicLLM
    from dialog.llm.fallback import FallbackLLM as FallbackLLM
    from dialog.llm.llm import LLM as LLM
    from dialog.llm.openai import OpenAILLM as OpenAILLM
    from dialog.llm.responses import ResponsesLLM as ResponsesLLM
    from dialog.llm.router import RouterLLM as RouterLLM
    from dialog.llm.rules import Rule as Rule
    from dialog.llm.rules import RuleLLM as RuleLLM
    from dialog.mcp.server import MCPServer as MCPServer
    from dialog.message import AnsweredBy as AnsweredBy
    from dialog.message import AudioFormat as AudioFormat
    from dialog.message import CallMetadata as CallMetadata
    from dialog.message import Failure as Failure
    from dialog.message import Message as Message
    from dialog.message import Playback as Playback
    from dialog.message import ReceivedSMS as ReceivedSMS
    from dialog.message import SentSMS as SentSMS
    from dialog.message import Utterance as Utterance
    from dialog.participant import Event as Event
    from dialog.participant import Participant as Participant
    from dialog.presets import AnthropicAgent as AnthropicAgent
    from dialog.presets import OpenAIAgent as OpenAIAgent
    from dialog.presets import ResponsesAgent as ResponsesAgent
    from dialog.presets import RuleAgent as RuleAgent
    from dialog.presets import TwilioOpenAIAgent as TwilioOpenAIAgent
    from dialog.providers.factories import create_agent as create_agent
    from dialog.providers.factories import create_gateway as create_gateway
    from dialog.providers.factories import create_llm as create_llm
    from dialog.providers.factories import create_s2s as create_s2s
    from dialog.providers.factories import create_sms as create_sms
    from dialog.providers.factories import create_stt as create_stt
    from dialog.providers.factories import create_tts as create_tts
    from dialog.providers.factories import create_voip as create_voip
    from dialog.providers.factories import provider_class as provider_class
    from dialog.providers.registry import provider_names as provider_names
    from dialog.s2s.cascade import CascadeS2S as CascadeS2S
    from dialog.s2s.deepgram import DeepgramAgentS2S as DeepgramAgentS2S
    from dialog.s2s.elevenlabs import ElevenLabsAgentS2S as ElevenLabsAgentS2S
    from dialog.s2s.gemini import ActivityDetection as ActivityDetection
    from dialog.s2s.gemini import GeminiLiveS2S as GeminiLiveS2S
    from dialog.s2s.grok import GrokS2S as GrokS2S
    from dialog.s2s.openai import OpenAIRealtimeS2S as OpenAIRealtimeS2S
    from dialog.s2s.s2s import S2S as S2S
    from dialog.scope import CallScope as CallScope
    from dialog.server.callbacks import SessionCallbacks as SessionCallbacks
    from dialog.server.config import ApiSettings as ApiSettings
    from dialog.server.config import ApiToken as ApiToken
    from dialog.server.config import ClientSettings as ClientSettings
    from dialog.server.config import PhoneNumber as PhoneNumber
    from dialog.server.config import ServiceConfig as ServiceConfig
    from dialog.server.service import Service as Service
    from dialog.server.tenants import TelnyxTenant as TelnyxTenant
    from dialog.server.tenants import TwilioTenant as TwilioTenant
    from dialog.sessions.config import AgentConfig as AgentConfig
    from dialog.sessions.config import ProviderConfig as ProviderConfig
    from dialog.sessions.sessions import Sessions as Sessions
    from dialog.sessions.spec import SessionRequest as SessionRequest
    from dialog.sessions.spec import SessionSpec as SessionSpec
    from dialog.sms.sms import SMS as SMS
    from dialog.sms.telnyx import TelnyxSMS as TelnyxSMS
    from dialog.sms.twilio import TwilioSMS as TwilioSMS
    from dialog.stt.azure import AzureSTT as AzureSTT
    from dialog.stt.cartesia import CartesiaSTT as CartesiaSTT
    from dialog.stt.deepgram import DeepgramSTT as DeepgramSTT
    from dialog.stt.elevenlabs import ElevenLabsSTT as ElevenLabsSTT
    from dialog.stt.fallback import FallbackSTT as FallbackSTT
    from dialog.stt.flux import DeepgramFluxSTT as DeepgramFluxSTT
    from dialog.stt.openai import OpenAIRealtimeSTT as OpenAIRealtimeSTT
    from dialog.stt.pocketsphinx import PocketsphinxSTT as PocketsphinxSTT
    from dialog.stt.stt import STT as STT
    from dialog.stt.tee import Comparison as Comparison
    from dialog.stt.tee import TeeSTT as TeeSTT
    from dialog.stt.turn_detection import SemanticVAD as SemanticVAD
    from dialog.stt.turn_detection import ServerVAD as ServerVAD
    from dialog.toolpolicy import ToolPolicy as ToolPolicy
    from dialog.tts.azure import AzureTTS as AzureTTS
    from dialog.tts.cache import CachedTTS as CachedTTS
    from dialog.tts.cartesia import CartesiaTTS as CartesiaTTS
    from dialog.tts.deepgram import DeepgramTTS as DeepgramTTS
    from dialog.tts.elevenlabs import ElevenLabsTTS as ElevenLabsTTS
    from dialog.tts.espeak import EspeakTTS as EspeakTTS
    from dialog.tts.fallback import FallbackTTS as FallbackTTS
    from dialog.tts.openai import OpenAITTS as OpenAITTS
    from dialog.tts.phrases import PhraseCache as PhraseCache
    from dialog.tts.tts import TTS as TTS
    from dialog.usage import Usage as Usage
    from dialog.vad.local import LocalVAD as LocalVAD
    from dialog.vad.silero import SileroVAD as SileroVAD
    from dialog.vad.vad import VAD as VAD
    from dialog.voip.answering import MachineDetection as MachineDetection
    from dialog.voip.destinations import Destinations as Destinations
    from dialog.voip.listening_in import play_on_speakers as play_on_speakers
    from dialog.voip.pacing import Pacing as Pacing
    from dialog.voip.sip.gateway import SIPGateway as SIPGateway
    from dialog.voip.sip.voip import SIPVoIP as SIPVoIP
    from dialog.voip.streams.gateway import StreamGateway as StreamGateway
    from dialog.voip.streams.voip import StreamVoIP as StreamVoIP
    from dialog.voip.telnyx.gateway import TelnyxGateway as TelnyxGateway
    from dialog.voip.telnyx.voip import TelnyxVoIP as TelnyxVoIP
    from dialog.voip.twilio.gateway import TwilioGateway as TwilioGateway
    from dialog.voip.twilio.voip import TwilioVoIP as TwilioVoIP
    from dialog.voip.voip import VoIP as VoIP
    from dialog.voip.web.gateway import WebGateway as WebGateway
    from dialog.voip.web.rtc.settings import IceServer as IceServer
    from dialog.voip.web.rtc.settings import WebRTC as WebRTC
    from dialog.voip.web.voip import WebVoIP as WebVoIP

_HOMES = {
    "ActivityDetection": "s2s.gemini",
    "Agent": "agent.agent",
    "AgentConfig": "sessions.config",
    "AgentSettings": "agent.settings",
    "AnsweredBy": "message",
    "AnthropicAgent": "presets",
    "AnthropicLLM": "llm.anthropic",
    "ApiSettings": "server.config",
    "ApiToken": "server.config",
    "AudioFormat": "message",
    "AzureSTT": "stt.azure",
    "AzureTTS": "tts.azure",
    "BACKCHANNELS": "agent.turns.settings",
    "BackgroundServer": "agent.scripts.server",
    "BargeIn": "agent.turns.settings",
    "BlockingCall": "agent.scripts.blocking",
    "BodyBuffer": "keyed",
    "CachedTTS": "tts.cache",
    "CallEvents": "calls.publish",
    "CallHungUp": "errors",
    "CallLog": "calls.store.log",
    "CallSearch": "calls.store.search",
    "CallMetadata": "message",
    "CallNotAnswered": "errors",
    "CallScope": "scope",
    "CarrierError": "errors",
    "CartesiaSTT": "stt.cartesia",
    "CartesiaTTS": "tts.cartesia",
    "CascadeS2S": "s2s.cascade",
    "ClientSettings": "server.config",
    "Clock": "clock",
    "Comparison": "stt.tee",
    "ConfigurationError": "errors",
    "DeepgramAgentS2S": "s2s.deepgram",
    "DeepgramFluxSTT": "stt.flux",
    "DeepgramSTT": "stt.deepgram",
    "DeepgramTTS": "tts.deepgram",
    "DestinationRefused": "errors",
    "Destinations": "voip.destinations",
    "DialogError": "errors",
    "Digits": "agent.digits",
    "ElevenLabsAgentS2S": "s2s.elevenlabs",
    "ElevenLabsSTT": "stt.elevenlabs",
    "ElevenLabsTTS": "tts.elevenlabs",
    "Endpointing": "agent.turns.settings",
    "EspeakTTS": "tts.espeak",
    "Event": "participant",
    "Failure": "message",
    "FallbackLLM": "llm.fallback",
    "FallbackSTT": "stt.fallback",
    "FallbackTTS": "tts.fallback",
    "GeminiLiveS2S": "s2s.gemini",
    "GrokS2S": "s2s.grok",
    "Heard": "agent.speech",
    "HistorySummaries": "agent.summaries",
    "IceServer": "voip.web.rtc.settings",
    "KeyedMutex": "keyed",
    "LLM": "llm.llm",
    "LocalSpeakers": "audio.speakers",
    "LocalVAD": "vad.local",
    "MCPServer": "mcp.server",
    "MachineDetection": "voip.answering",
    "Message": "message",
    "NotUnderstood": "errors",
    "OpenAIAgent": "presets",
    "OpenAILLM": "llm.openai",
    "OpenAIRealtimeS2S": "s2s.openai",
    "OpenAIRealtimeSTT": "stt.openai",
    "OpenAITTS": "tts.openai",
    "Pacing": "voip.pacing",
    "Participant": "participant",
    "PhoneNumber": "server.config",
    "PhraseCache": "tts.phrases",
    "Phrases": "agent.scripts.asking",
    "Playback": "message",
    "PocketsphinxSTT": "stt.pocketsphinx",
    "ProviderConfig": "sessions.config",
    "ProviderError": "errors",
    "ReceivedSMS": "message",
    "RecognitionFailed": "errors",
    "RecordedMessage": "agent.scripts.recording",
    "Redaction": "calls.redact",
    "ResponsesAgent": "presets",
    "ResponsesLLM": "llm.responses",
    "RouterLLM": "llm.router",
    "Rule": "llm.rules",
    "RuleAgent": "presets",
    "RuleLLM": "llm.rules",
    "S2S": "s2s.s2s",
    "SIPGateway": "voip.sip.gateway",
    "SIPVoIP": "voip.sip.voip",
    "SMS": "sms.sms",
    "STT": "stt.stt",
    "SayResult": "agent.scripts.speaking",
    "Script": "agent.scripts.script",
    "ScriptCall": "agent.scripts.call",
    "SemanticVAD": "stt.turn_detection",
    "SentSMS": "message",
    "ServerVAD": "stt.turn_detection",
    "Service": "server.service",
    "ServiceConfig": "server.config",
    "SessionCallbacks": "server.callbacks",
    "SessionMetrics": "calls.metrics",
    "SessionReport": "calls.report",
    "SessionRequest": "sessions.spec",
    "SessionSpec": "sessions.spec",
    "Sessions": "sessions.sessions",
    "Silence": "agent.turns.settings",
    "SileroVAD": "vad.silero",
    "Sound": "audio.sound",
    "Speech": "agent.speech",
    "SpeechFailed": "errors",
    "SpendLimit": "calls.spending",
    "StreamGateway": "voip.streams.gateway",
    "StreamVoIP": "voip.streams.voip",
    "TTS": "tts.tts",
    "TeeSTT": "stt.tee",
    "TelnyxGateway": "voip.telnyx.gateway",
    "TelnyxSMS": "sms.telnyx",
    "TelnyxTenant": "server.tenants",
    "TelnyxVoIP": "voip.telnyx.voip",
    "Timeout": "errors",
    "ToolPolicy": "toolpolicy",
    "TurnSettings": "agent.turns.settings",
    "TwilioGateway": "voip.twilio.gateway",
    "TwilioOpenAIAgent": "presets",
    "TwilioSMS": "sms.twilio",
    "TwilioTenant": "server.tenants",
    "TwilioVoIP": "voip.twilio.voip",
    "Usage": "usage",
    "Utterance": "message",
    "VAD": "vad.vad",
    "VoIP": "voip.voip",
    "WebGateway": "voip.web.gateway",
    "WebRTC": "voip.web.rtc.settings",
    "WebVoIP": "voip.web.voip",
    "WebhookEndpoint": "calls.delivery.endpoint",
    "Webhooks": "calls.delivery.webhooks",
    "ask_tool": "agent.scripts.asktool",
    "create_agent": "providers.factories",
    "create_gateway": "providers.factories",
    "create_llm": "providers.factories",
    "create_s2s": "providers.factories",
    "create_sms": "providers.factories",
    "create_stt": "providers.factories",
    "create_tts": "providers.factories",
    "create_voip": "providers.factories",
    "dial": "agent.scripts.dialling",
    "end_call_tool": "agent.toolkit",
    "mix_frames": "audio.mix",
    "play_on_speakers": "voip.listening_in",
    "press_keys_tool": "agent.toolkit",
    "provider_class": "providers.factories",
    "provider_names": "providers.registry",
    "schema_tool": "agent.schematool",
    "send_sms_tool": "agent.toolkit",
    "tool": "agent.tools",
    "tool_key": "agent.tools",
    "transfer_call_tool": "agent.toolkit",
    "verify_webhook": "calls.delivery.signature",
    "warm_transfer_tool": "agent.toolkit",
}

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]  # loaded by __getattr__
    "BACKCHANNELS",
    "LLM",
    "S2S",
    "SMS",
    "STT",
    "TTS",
    "VAD",
    "ActivityDetection",
    "Agent",
    "AgentConfig",
    "AgentSettings",
    "AnsweredBy",
    "AnthropicAgent",
    "AnthropicLLM",
    "ApiSettings",
    "ApiToken",
    "AudioFormat",
    "AzureSTT",
    "AzureTTS",
    "BackgroundServer",
    "BargeIn",
    "BlockingCall",
    "BodyBuffer",
    "CachedTTS",
    "CallEvents",
    "CallHungUp",
    "CallLog",
    "CallMetadata",
    "CallNotAnswered",
    "CallScope",
    "CallSearch",
    "CarrierError",
    "CartesiaSTT",
    "CartesiaTTS",
    "CascadeS2S",
    "ClientSettings",
    "Clock",
    "Comparison",
    "ConfigurationError",
    "DeepgramAgentS2S",
    "DeepgramFluxSTT",
    "DeepgramSTT",
    "DeepgramTTS",
    "DestinationRefused",
    "Destinations",
    "DialogError",
    "Digits",
    "ElevenLabsAgentS2S",
    "ElevenLabsSTT",
    "ElevenLabsTTS",
    "Endpointing",
    "EspeakTTS",
    "Event",
    "Failure",
    "FallbackLLM",
    "FallbackSTT",
    "FallbackTTS",
    "GeminiLiveS2S",
    "GrokS2S",
    "Heard",
    "HistorySummaries",
    "IceServer",
    "KeyedMutex",
    "LocalSpeakers",
    "LocalVAD",
    "MCPServer",
    "MachineDetection",
    "Message",
    "NotUnderstood",
    "OpenAIAgent",
    "OpenAILLM",
    "OpenAIRealtimeS2S",
    "OpenAIRealtimeSTT",
    "OpenAITTS",
    "Pacing",
    "Participant",
    "PhoneNumber",
    "PhraseCache",
    "Phrases",
    "Playback",
    "PocketsphinxSTT",
    "ProviderConfig",
    "ProviderError",
    "ReceivedSMS",
    "RecognitionFailed",
    "RecordedMessage",
    "Redaction",
    "ResponsesAgent",
    "ResponsesLLM",
    "RouterLLM",
    "Rule",
    "RuleAgent",
    "RuleLLM",
    "SIPGateway",
    "SIPVoIP",
    "SayResult",
    "Script",
    "ScriptCall",
    "SemanticVAD",
    "SentSMS",
    "ServerVAD",
    "Service",
    "ServiceConfig",
    "SessionCallbacks",
    "SessionMetrics",
    "SessionReport",
    "SessionRequest",
    "SessionSpec",
    "Sessions",
    "Silence",
    "SileroVAD",
    "Sound",
    "Speech",
    "SpeechFailed",
    "SpendLimit",
    "StreamGateway",
    "StreamVoIP",
    "TeeSTT",
    "TelnyxGateway",
    "TelnyxSMS",
    "TelnyxTenant",
    "TelnyxVoIP",
    "Timeout",
    "ToolPolicy",
    "TurnSettings",
    "TwilioGateway",
    "TwilioOpenAIAgent",
    "TwilioSMS",
    "TwilioTenant",
    "TwilioVoIP",
    "Usage",
    "Utterance",
    "VoIP",
    "WebGateway",
    "WebRTC",
    "WebVoIP",
    "WebhookEndpoint",
    "Webhooks",
    "ask_tool",
    "create_agent",
    "create_gateway",
    "create_llm",
    "create_s2s",
    "create_sms",
    "create_stt",
    "create_tts",
    "create_voip",
    "dial",
    "end_call_tool",
    "mix_frames",
    "play_on_speakers",
    "press_keys_tool",
    "provider_class",
    "provider_names",
    "schema_tool",
    "send_sms_tool",
    "tool",
    "tool_key",
    "transfer_call_tool",
    "verify_webhook",
    "warm_transfer_tool",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
