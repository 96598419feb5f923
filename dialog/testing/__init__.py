"""A test kit for agents: simulated callers, one or hundreds, emulators of the providers, and virtual time.

::

    from dialog.testing import Caller, DeepgramEmulator, Faults, OpenAIEmulator

Names are loaded when they are first used: what needs the ``testing`` or ``local`` extra asks for it
then, and importing this package needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dialog.testing.agent_caller import dial_with_agent as dial_with_agent
    from dialog.testing.agent_line import join_agents as join_agents
    from dialog.testing.anthropic import AnthropicEmulator as AnthropicEmulator
    from dialog.testing.aura import AuraEmulator as AuraEmulator
    from dialog.testing.azure_stt import AzureSTTEmulator as AzureSTTEmulator
    from dialog.testing.azure_tts import AzureTTSEmulator as AzureTTSEmulator
    from dialog.testing.callee import Callee as Callee
    from dialog.testing.caller import CallEnded as CallEnded
    from dialog.testing.caller import Caller as Caller
    from dialog.testing.caller import CallerEvent as CallerEvent
    from dialog.testing.caller import CallFaults as CallFaults
    from dialog.testing.caller import CallStatus as CallStatus
    from dialog.testing.caller import Gap as Gap
    from dialog.testing.caller import Heard as Heard
    from dialog.testing.caller import NothingHeard as NothingHeard
    from dialog.testing.caller import Refused as Refused
    from dialog.testing.caller import Spoken as Spoken
    from dialog.testing.caller import Warned as Warned
    from dialog.testing.caller import bad_messages as bad_messages
    from dialog.testing.cartesia import CartesiaEmulator as CartesiaEmulator
    from dialog.testing.cartesia_stt import CartesiaSTTEmulator as CartesiaSTTEmulator
    from dialog.testing.deepgram import DeepgramEmulator as DeepgramEmulator
    from dialog.testing.deepgram_agent import DeepgramAgentEmulator as DeepgramAgentEmulator
    from dialog.testing.doubles import HummingTTS as HummingTTS
    from dialog.testing.doubles import ToldSTT as ToldSTT
    from dialog.testing.elevenlabs import ElevenLabsEmulator as ElevenLabsEmulator
    from dialog.testing.elevenlabs_agent import ElevenLabsAgentEmulator as ElevenLabsAgentEmulator
    from dialog.testing.elevenlabs_stt import ElevenLabsSTTEmulator as ElevenLabsSTTEmulator
    from dialog.testing.flux import FluxEmulator as FluxEmulator
    from dialog.testing.gemini import GeminiLiveEmulator as GeminiLiveEmulator
    from dialog.testing.grok import GrokEmulator as GrokEmulator
    from dialog.testing.judge import Charge as Charge
    from dialog.testing.judge import Claim as Claim
    from dialog.testing.judge import Rules as Rules
    from dialog.testing.judge import ToolWanted as ToolWanted
    from dialog.testing.judge import judge_talk as judge_talk
    from dialog.testing.llm_judge import LLMJudge as LLMJudge
    from dialog.testing.load import CallOutcome as CallOutcome
    from dialog.testing.load import Limit as Limit
    from dialog.testing.load import Load as Load
    from dialog.testing.load import LoadPlan as LoadPlan
    from dialog.testing.load import LoadReport as LoadReport
    from dialog.testing.model import ChatReply as ChatReply
    from dialog.testing.model import ToolUse as ToolUse
    from dialog.testing.nats_server import NatsServer as NatsServer
    from dialog.testing.openai import OpenAIEmulator as OpenAIEmulator
    from dialog.testing.openai_realtime import OpenAIRealtimeEmulator as OpenAIRealtimeEmulator
    from dialog.testing.openai_realtime_stt import OpenAIRealtimeSTTEmulator as OpenAIRealtimeSTTEmulator
    from dialog.testing.openai_speech import OpenAISpeechEmulator as OpenAISpeechEmulator
    from dialog.testing.persona import Answer as Answer
    from dialog.testing.persona import Persona as Persona
    from dialog.testing.persona import customer as customer
    from dialog.testing.reply import Reply as Reply
    from dialog.testing.reply import Said as Said
    from dialog.testing.reply import UsedTool as UsedTool
    from dialog.testing.responses import ResponsesEmulator as ResponsesEmulator
    from dialog.testing.s2s import RealtimeReply as RealtimeReply
    from dialog.testing.scripted import ScriptedLLM as ScriptedLLM
    from dialog.testing.server import EmulatorServer as EmulatorServer
    from dialog.testing.server import Faults as Faults
    from dialog.testing.server import Frame as Frame
    from dialog.testing.server import Request as Request
    from dialog.testing.session import TextSession as TextSession
    from dialog.testing.simulation import Simulation as Simulation
    from dialog.testing.sip import SIPPhone as SIPPhone
    from dialog.testing.sip import SIPRefused as SIPRefused
    from dialog.testing.spelling import ReadingSTT as ReadingSTT
    from dialog.testing.spelling import SpellingTTS as SpellingTTS
    from dialog.testing.stream_call import dial_stream as dial_stream
    from dialog.testing.talk import AgentTalk as AgentTalk
    from dialog.testing.talk import TalkLimits as TalkLimits
    from dialog.testing.talk import TalkLine as TalkLine
    from dialog.testing.telnyx import TelnyxEmulator as TelnyxEmulator
    from dialog.testing.told_s2s import ToldS2S as ToldS2S
    from dialog.testing.twilio_rest import TwilioRestEmulator as TwilioRestEmulator
    from dialog.testing.virtual import run_virtual as run_virtual
    from dialog.testing.virtual import virtual_time as virtual_time
    from dialog.testing.voice import Voice as Voice
    from dialog.testing.voice import espeak as espeak
    from dialog.testing.web import WebCaller as WebCaller
    from dialog.testing.web import WebRefused as WebRefused
    from dialog.testing.webrtc import RtcCaller as RtcCaller

_HOMES = {
    "AgentTalk": "talk",
    "Answer": "persona",
    "AnthropicEmulator": "anthropic",
    "AuraEmulator": "aura",
    "AzureSTTEmulator": "azure_stt",
    "AzureTTSEmulator": "azure_tts",
    "CallEnded": "caller",
    "CallFaults": "caller",
    "CallOutcome": "load",
    "CallStatus": "caller",
    "Callee": "callee",
    "Caller": "caller",
    "CallerEvent": "caller",
    "CartesiaEmulator": "cartesia",
    "CartesiaSTTEmulator": "cartesia_stt",
    "Charge": "judge",
    "ChatReply": "model",
    "Claim": "judge",
    "DeepgramAgentEmulator": "deepgram_agent",
    "DeepgramEmulator": "deepgram",
    "ElevenLabsAgentEmulator": "elevenlabs_agent",
    "ElevenLabsEmulator": "elevenlabs",
    "ElevenLabsSTTEmulator": "elevenlabs_stt",
    "EmulatorServer": "server",
    "Faults": "server",
    "FluxEmulator": "flux",
    "Frame": "server",
    "Gap": "caller",
    "GeminiLiveEmulator": "gemini",
    "GrokEmulator": "grok",
    "Heard": "caller",
    "HummingTTS": "doubles",
    "LLMJudge": "llm_judge",
    "Limit": "load",
    "Load": "load",
    "LoadPlan": "load",
    "LoadReport": "load",
    "NatsServer": "nats_server",
    "NothingHeard": "caller",
    "OpenAIEmulator": "openai",
    "OpenAIRealtimeEmulator": "openai_realtime",
    "OpenAIRealtimeSTTEmulator": "openai_realtime_stt",
    "OpenAISpeechEmulator": "openai_speech",
    "Persona": "persona",
    "ReadingSTT": "spelling",
    "RealtimeReply": "s2s",
    "Refused": "caller",
    "Reply": "reply",
    "Request": "server",
    "ResponsesEmulator": "responses",
    "RtcCaller": "webrtc",
    "SIPPhone": "sip",
    "SIPRefused": "sip",
    "Rules": "judge",
    "Said": "reply",
    "ScriptedLLM": "scripted",
    "Simulation": "simulation",
    "SpellingTTS": "spelling",
    "Spoken": "caller",
    "TalkLimits": "talk",
    "TalkLine": "talk",
    "TextSession": "session",
    "ToldS2S": "told_s2s",
    "ToldSTT": "doubles",
    "ToolUse": "model",
    "ToolWanted": "judge",
    "TelnyxEmulator": "telnyx",
    "dial_stream": "stream_call",
    "TwilioRestEmulator": "twilio_rest",
    "UsedTool": "reply",
    "Voice": "voice",
    "Warned": "caller",
    "WebCaller": "web",
    "WebRefused": "web",
    "bad_messages": "caller",
    "customer": "persona",
    "dial_with_agent": "agent_caller",
    "espeak": "voice",
    "join_agents": "agent_line",
    "judge_talk": "judge",
    "run_virtual": "virtual",
    "virtual_time": "virtual",
}

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]  # loaded by __getattr__
    "AgentTalk",
    "Answer",
    "AnthropicEmulator",
    "AuraEmulator",
    "AzureSTTEmulator",
    "AzureTTSEmulator",
    "CallEnded",
    "CallFaults",
    "CallOutcome",
    "CallStatus",
    "Callee",
    "Caller",
    "CallerEvent",
    "CartesiaEmulator",
    "CartesiaSTTEmulator",
    "Charge",
    "ChatReply",
    "Claim",
    "DeepgramAgentEmulator",
    "DeepgramEmulator",
    "ElevenLabsAgentEmulator",
    "ElevenLabsEmulator",
    "ElevenLabsSTTEmulator",
    "EmulatorServer",
    "Faults",
    "FluxEmulator",
    "Frame",
    "Gap",
    "GeminiLiveEmulator",
    "GrokEmulator",
    "Heard",
    "HummingTTS",
    "LLMJudge",
    "Limit",
    "Load",
    "LoadPlan",
    "LoadReport",
    "NatsServer",
    "NothingHeard",
    "OpenAIEmulator",
    "OpenAIRealtimeEmulator",
    "OpenAIRealtimeSTTEmulator",
    "OpenAISpeechEmulator",
    "Persona",
    "ReadingSTT",
    "RealtimeReply",
    "Refused",
    "Reply",
    "Request",
    "ResponsesEmulator",
    "RtcCaller",
    "Rules",
    "SIPPhone",
    "SIPRefused",
    "Said",
    "ScriptedLLM",
    "Simulation",
    "SpellingTTS",
    "Spoken",
    "TalkLimits",
    "TalkLine",
    "TelnyxEmulator",
    "TextSession",
    "ToldS2S",
    "ToldSTT",
    "ToolUse",
    "ToolWanted",
    "TwilioRestEmulator",
    "UsedTool",
    "Voice",
    "Warned",
    "WebCaller",
    "WebRefused",
    "bad_messages",
    "customer",
    "dial_stream",
    "dial_with_agent",
    "espeak",
    "join_agents",
    "judge_talk",
    "run_virtual",
    "virtual_time",
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
