"""Providers made by name.

::

    stt = create_stt("deepgram", api_key=…)
    tts = create_tts.from_env("cartesia", voice=…)     # the key from CARTESIA_API_KEY
    make = provider_class("llm", "openai")             # the class itself: its arguments are type-checked

Without a name the default of the kind is made. The name decides the type: ``create_stt("deepgram")`` is a
``DeepgramSTT`` to a type checker. A name that is known only at run time gives the interface.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, overload

from dialog.env import read_env
from dialog.errors import ConfigurationError
from dialog.providers.builtin import DEFAULTS, Kind
from dialog.providers.registry import find_class
from dialog.providers.variables import options_from, parameters_of

if TYPE_CHECKING:
    from dialog.agent.agent import Agent
    from dialog.llm.anthropic import AnthropicLLM
    from dialog.llm.llm import LLM
    from dialog.llm.openai import OpenAILLM
    from dialog.llm.responses import ResponsesLLM
    from dialog.llm.rules import RuleLLM
    from dialog.presets import AnthropicAgent, OpenAIAgent, ResponsesAgent, RuleAgent, TwilioOpenAIAgent
    from dialog.s2s.cascade import CascadeS2S
    from dialog.s2s.deepgram import DeepgramAgentS2S
    from dialog.s2s.elevenlabs import ElevenLabsAgentS2S
    from dialog.s2s.gemini import GeminiLiveS2S
    from dialog.s2s.grok import GrokS2S
    from dialog.s2s.openai import OpenAIRealtimeS2S
    from dialog.s2s.s2s import S2S
    from dialog.sms.sms import SMS
    from dialog.sms.telnyx import TelnyxSMS
    from dialog.sms.twilio import TwilioSMS
    from dialog.stt.azure import AzureSTT
    from dialog.stt.cartesia import CartesiaSTT
    from dialog.stt.deepgram import DeepgramSTT
    from dialog.stt.elevenlabs import ElevenLabsSTT
    from dialog.stt.flux import DeepgramFluxSTT
    from dialog.stt.openai import OpenAIRealtimeSTT
    from dialog.stt.pocketsphinx import PocketsphinxSTT
    from dialog.stt.stt import STT
    from dialog.tts.azure import AzureTTS
    from dialog.tts.cartesia import CartesiaTTS
    from dialog.tts.deepgram import DeepgramTTS
    from dialog.tts.elevenlabs import ElevenLabsTTS
    from dialog.tts.espeak import EspeakTTS
    from dialog.tts.openai import OpenAITTS
    from dialog.tts.tts import TTS
    from dialog.voip.sip.gateway import SIPGateway
    from dialog.voip.sip.voip import SIPVoIP
    from dialog.voip.streams.gateway import StreamGateway
    from dialog.voip.streams.voip import StreamVoIP
    from dialog.voip.telnyx.gateway import TelnyxGateway
    from dialog.voip.telnyx.voip import TelnyxVoIP
    from dialog.voip.twilio.gateway import TwilioGateway
    from dialog.voip.twilio.voip import TwilioVoIP
    from dialog.voip.voip import VoIP
    from dialog.voip.web.gateway import WebGateway
    from dialog.voip.web.voip import WebVoIP

__all__ = [
    "Factory",
    "create_agent",
    "create_gateway",
    "create_llm",
    "create_s2s",
    "create_sms",
    "create_stt",
    "create_tts",
    "create_voip",
    "provider_class",
]


class Factory:
    """Makes the providers of one kind. Calling it takes a name and the arguments of the provider.

    Raises:
        ConfigurationError: There is no such provider; or it has no such argument, or needs another.
        MissingExtra: A package is not installed; the message says how to install it.
    """

    kind: ClassVar[Kind]

    def __init__(self, *, from_env: bool = False) -> None:
        self._from_env = from_env

    @property
    def from_env(self) -> Self:
        """The same factory, which takes what it is not given from the environment.

        Called with ``env=`` it reads that mapping instead of the process's environment and ``.env``; do
        so where a call is answered, since reading a file takes its time.

        Raises:
            ConfigurationError: Also when variables are not set or malformed; the message names them all.
        """
        return type(self)(from_env=True)

    def _make(self, name: str, options: dict[str, Any]) -> Any:
        name = name or DEFAULTS[self.kind]
        cls = find_class(self.kind, name)
        if self._from_env:
            env: Mapping[str, str] | None = options.pop("env", None)
            options |= options_from(read_env() if env is None else env, self.kind, name, cls, options)
        try:
            return cls(**options)
        except TypeError as exc:
            self._check(name, cls, options, exc)
            raise

    def _check(self, name: str, cls: type, options: Mapping[str, Any], exc: TypeError) -> None:
        """Tell arguments that the provider does not take from a fault inside of it."""
        parameters = parameters_of(cls)
        try:
            inspect.Signature(tuple(parameters.values())).bind(**options)
        except TypeError as wrong:
            near = ""
            for option in options.keys() - parameters.keys():
                for match in get_close_matches(option, parameters, n=1):
                    near = f"; is {option!r} meant to be {match!r}?"
            raise ConfigurationError(f"{self.kind} {name!r} ({cls.__name__}): {wrong}{near}") from exc


# The overloads with names, and the imports for them, are written by docs/generate.py.


class STTFactory(Factory):
    """Makes recognisers."""

    kind: ClassVar[Kind] = "stt"

    @overload
    def __call__(self, name: Literal["deepgram"] = ..., /, **options: Any) -> DeepgramSTT: ...
    @overload
    def __call__(self, name: Literal["azure"], /, **options: Any) -> AzureSTT: ...
    @overload
    def __call__(self, name: Literal["cartesia"], /, **options: Any) -> CartesiaSTT: ...
    @overload
    def __call__(self, name: Literal["deepgram-flux"], /, **options: Any) -> DeepgramFluxSTT: ...
    @overload
    def __call__(self, name: Literal["elevenlabs"], /, **options: Any) -> ElevenLabsSTT: ...
    @overload
    def __call__(self, name: Literal["openai"], /, **options: Any) -> OpenAIRealtimeSTT: ...
    @overload
    def __call__(self, name: Literal["pocketsphinx"], /, **options: Any) -> PocketsphinxSTT: ...
    @overload
    def __call__(self, name: str, /, **options: Any) -> STT: ...
    def __call__(self, name: str = "", /, **options: Any) -> STT:
        """See :class:`Factory`."""
        made: STT = self._make(name, options)
        return made


class TTSFactory(Factory):
    """Makes voices."""

    kind: ClassVar[Kind] = "tts"

    @overload
    def __call__(self, name: Literal["cartesia"] = ..., /, **options: Any) -> CartesiaTTS: ...
    @overload
    def __call__(self, name: Literal["azure"], /, **options: Any) -> AzureTTS: ...
    @overload
    def __call__(self, name: Literal["deepgram"], /, **options: Any) -> DeepgramTTS: ...
    @overload
    def __call__(self, name: Literal["elevenlabs"], /, **options: Any) -> ElevenLabsTTS: ...
    @overload
    def __call__(self, name: Literal["espeak"], /, **options: Any) -> EspeakTTS: ...
    @overload
    def __call__(self, name: Literal["openai"], /, **options: Any) -> OpenAITTS: ...
    @overload
    def __call__(self, name: str, /, **options: Any) -> TTS: ...
    def __call__(self, name: str = "", /, **options: Any) -> TTS:
        """See :class:`Factory`."""
        made: TTS = self._make(name, options)
        return made


class S2SFactory(Factory):
    """Makes models that hear and speak."""

    kind: ClassVar[Kind] = "s2s"

    @overload
    def __call__(self, name: Literal["openai"] = ..., /, **options: Any) -> OpenAIRealtimeS2S: ...
    @overload
    def __call__(self, name: Literal["cascade"], /, **options: Any) -> CascadeS2S: ...
    @overload
    def __call__(self, name: Literal["deepgram"], /, **options: Any) -> DeepgramAgentS2S: ...
    @overload
    def __call__(self, name: Literal["elevenlabs"], /, **options: Any) -> ElevenLabsAgentS2S: ...
    @overload
    def __call__(self, name: Literal["gemini"], /, **options: Any) -> GeminiLiveS2S: ...
    @overload
    def __call__(self, name: Literal["grok"], /, **options: Any) -> GrokS2S: ...
    @overload
    def __call__(self, name: str, /, **options: Any) -> S2S: ...
    def __call__(self, name: str = "", /, **options: Any) -> S2S:
        """See :class:`Factory`."""
        made: S2S = self._make(name, options)
        return made


class LLMFactory(Factory):
    """Makes language models."""

    kind: ClassVar[Kind] = "llm"

    @overload
    def __call__(self, name: Literal["openai"] = ..., /, **options: Any) -> OpenAILLM: ...
    @overload
    def __call__(self, name: Literal["anthropic"], /, **options: Any) -> AnthropicLLM: ...
    @overload
    def __call__(self, name: Literal["responses"], /, **options: Any) -> ResponsesLLM: ...
    @overload
    def __call__(self, name: Literal["rules"], /, **options: Any) -> RuleLLM: ...
    @overload
    def __call__(self, name: str, /, **options: Any) -> LLM: ...
    def __call__(self, name: str = "", /, **options: Any) -> LLM:
        """See :class:`Factory`."""
        made: LLM = self._make(name, options)
        return made


class AgentFactory(Factory):
    """Makes ready-made agents, with the arguments of every :class:`~dialog.agent.agent.Agent`."""

    kind: ClassVar[Kind] = "agent"

    @overload
    def __call__(self, name: Literal["openai"] = ..., /, **options: Any) -> OpenAIAgent: ...
    @overload
    def __call__(self, name: Literal["anthropic"], /, **options: Any) -> AnthropicAgent: ...
    @overload
    def __call__(self, name: Literal["responses"], /, **options: Any) -> ResponsesAgent: ...
    @overload
    def __call__(self, name: Literal["rules"], /, **options: Any) -> RuleAgent: ...
    @overload
    def __call__(self, name: Literal["twilio-openai"], /, **options: Any) -> TwilioOpenAIAgent: ...
    @overload
    def __call__(self, name: str, /, **options: Any) -> Agent: ...
    def __call__(self, name: str = "", /, **options: Any) -> Agent:
        """See :class:`Factory`."""
        made: Agent = self._make(name, options)
        return made


class VoIPFactory(Factory):
    """Makes the agent's side of a call from its ``metadata`` and its ``link``, which the gateway has."""

    kind: ClassVar[Kind] = "voip"

    @overload
    def __call__(self, name: Literal["twilio"] = ..., /, **options: Any) -> TwilioVoIP: ...
    @overload
    def __call__(self, name: Literal["compatible"], /, **options: Any) -> StreamVoIP: ...
    @overload
    def __call__(self, name: Literal["exotel"], /, **options: Any) -> StreamVoIP: ...
    @overload
    def __call__(self, name: Literal["plivo"], /, **options: Any) -> StreamVoIP: ...
    @overload
    def __call__(self, name: Literal["sip"], /, **options: Any) -> SIPVoIP: ...
    @overload
    def __call__(self, name: Literal["telnyx"], /, **options: Any) -> TelnyxVoIP: ...
    @overload
    def __call__(self, name: Literal["web"], /, **options: Any) -> WebVoIP: ...
    @overload
    def __call__(self, name: str, /, **options: Any) -> VoIP: ...
    def __call__(self, name: str = "", /, **options: Any) -> VoIP:
        """See :class:`Factory`."""
        made: VoIP = self._make(name, options)
        return made


class GatewayFactory(Factory):
    """Makes gateways; each carrier's is a class of its own."""

    kind: ClassVar[Kind] = "gateway"

    @overload
    def __call__(self, name: Literal["twilio"] = ..., /, **options: Any) -> TwilioGateway: ...
    @overload
    def __call__(self, name: Literal["sip"], /, **options: Any) -> SIPGateway: ...
    @overload
    def __call__(self, name: Literal["stream"], /, **options: Any) -> StreamGateway: ...
    @overload
    def __call__(self, name: Literal["telnyx"], /, **options: Any) -> TelnyxGateway: ...
    @overload
    def __call__(self, name: Literal["web"], /, **options: Any) -> WebGateway: ...
    @overload
    def __call__(self, name: str, /, **options: Any) -> Any: ...
    def __call__(self, name: str = "", /, **options: Any) -> Any:
        """See :class:`Factory`."""
        return self._make(name, options)


class SMSFactory(Factory):
    """Makes senders of text messages."""

    kind: ClassVar[Kind] = "sms"

    @overload
    def __call__(self, name: Literal["twilio"] = ..., /, **options: Any) -> TwilioSMS: ...
    @overload
    def __call__(self, name: Literal["telnyx"], /, **options: Any) -> TelnyxSMS: ...
    @overload
    def __call__(self, name: str, /, **options: Any) -> SMS: ...
    def __call__(self, name: str = "", /, **options: Any) -> SMS:
        """See :class:`Factory`."""
        made: SMS = self._make(name, options)
        return made


create_stt = STTFactory()
create_tts = TTSFactory()
create_s2s = S2SFactory()
create_llm = LLMFactory()
create_agent = AgentFactory()
create_voip = VoIPFactory()
create_gateway = GatewayFactory()
create_sms = SMSFactory()


@overload
def provider_class(kind: Literal["stt"], name: Literal["deepgram"] = ...) -> type[DeepgramSTT]: ...
@overload
def provider_class(kind: Literal["stt"], name: Literal["azure"]) -> type[AzureSTT]: ...
@overload
def provider_class(kind: Literal["stt"], name: Literal["cartesia"]) -> type[CartesiaSTT]: ...
@overload
def provider_class(kind: Literal["stt"], name: Literal["deepgram-flux"]) -> type[DeepgramFluxSTT]: ...
@overload
def provider_class(kind: Literal["stt"], name: Literal["elevenlabs"]) -> type[ElevenLabsSTT]: ...
@overload
def provider_class(kind: Literal["stt"], name: Literal["openai"]) -> type[OpenAIRealtimeSTT]: ...
@overload
def provider_class(kind: Literal["stt"], name: Literal["pocketsphinx"]) -> type[PocketsphinxSTT]: ...
@overload
def provider_class(kind: Literal["stt"], name: str) -> type[STT]: ...
@overload
def provider_class(kind: Literal["tts"], name: Literal["cartesia"] = ...) -> type[CartesiaTTS]: ...
@overload
def provider_class(kind: Literal["tts"], name: Literal["azure"]) -> type[AzureTTS]: ...
@overload
def provider_class(kind: Literal["tts"], name: Literal["deepgram"]) -> type[DeepgramTTS]: ...
@overload
def provider_class(kind: Literal["tts"], name: Literal["elevenlabs"]) -> type[ElevenLabsTTS]: ...
@overload
def provider_class(kind: Literal["tts"], name: Literal["espeak"]) -> type[EspeakTTS]: ...
@overload
def provider_class(kind: Literal["tts"], name: Literal["openai"]) -> type[OpenAITTS]: ...
@overload
def provider_class(kind: Literal["tts"], name: str) -> type[TTS]: ...
@overload
def provider_class(kind: Literal["s2s"], name: Literal["openai"] = ...) -> type[OpenAIRealtimeS2S]: ...
@overload
def provider_class(kind: Literal["s2s"], name: Literal["cascade"]) -> type[CascadeS2S]: ...
@overload
def provider_class(kind: Literal["s2s"], name: Literal["deepgram"]) -> type[DeepgramAgentS2S]: ...
@overload
def provider_class(kind: Literal["s2s"], name: Literal["elevenlabs"]) -> type[ElevenLabsAgentS2S]: ...
@overload
def provider_class(kind: Literal["s2s"], name: Literal["gemini"]) -> type[GeminiLiveS2S]: ...
@overload
def provider_class(kind: Literal["s2s"], name: Literal["grok"]) -> type[GrokS2S]: ...
@overload
def provider_class(kind: Literal["s2s"], name: str) -> type[S2S]: ...
@overload
def provider_class(kind: Literal["llm"], name: Literal["openai"] = ...) -> type[OpenAILLM]: ...
@overload
def provider_class(kind: Literal["llm"], name: Literal["anthropic"]) -> type[AnthropicLLM]: ...
@overload
def provider_class(kind: Literal["llm"], name: Literal["responses"]) -> type[ResponsesLLM]: ...
@overload
def provider_class(kind: Literal["llm"], name: Literal["rules"]) -> type[RuleLLM]: ...
@overload
def provider_class(kind: Literal["llm"], name: str) -> type[LLM]: ...
@overload
def provider_class(kind: Literal["agent"], name: Literal["openai"] = ...) -> type[OpenAIAgent]: ...
@overload
def provider_class(kind: Literal["agent"], name: Literal["anthropic"]) -> type[AnthropicAgent]: ...
@overload
def provider_class(kind: Literal["agent"], name: Literal["responses"]) -> type[ResponsesAgent]: ...
@overload
def provider_class(kind: Literal["agent"], name: Literal["rules"]) -> type[RuleAgent]: ...
@overload
def provider_class(kind: Literal["agent"], name: Literal["twilio-openai"]) -> type[TwilioOpenAIAgent]: ...
@overload
def provider_class(kind: Literal["agent"], name: str) -> type[Agent]: ...
@overload
def provider_class(kind: Literal["voip"], name: Literal["twilio"] = ...) -> type[TwilioVoIP]: ...
@overload
def provider_class(kind: Literal["voip"], name: Literal["compatible"]) -> type[StreamVoIP]: ...
@overload
def provider_class(kind: Literal["voip"], name: Literal["exotel"]) -> type[StreamVoIP]: ...
@overload
def provider_class(kind: Literal["voip"], name: Literal["plivo"]) -> type[StreamVoIP]: ...
@overload
def provider_class(kind: Literal["voip"], name: Literal["sip"]) -> type[SIPVoIP]: ...
@overload
def provider_class(kind: Literal["voip"], name: Literal["telnyx"]) -> type[TelnyxVoIP]: ...
@overload
def provider_class(kind: Literal["voip"], name: Literal["web"]) -> type[WebVoIP]: ...
@overload
def provider_class(kind: Literal["voip"], name: str) -> type[VoIP]: ...
@overload
def provider_class(kind: Literal["gateway"], name: Literal["twilio"] = ...) -> type[TwilioGateway]: ...
@overload
def provider_class(kind: Literal["gateway"], name: Literal["sip"]) -> type[SIPGateway]: ...
@overload
def provider_class(kind: Literal["gateway"], name: Literal["stream"]) -> type[StreamGateway]: ...
@overload
def provider_class(kind: Literal["gateway"], name: Literal["telnyx"]) -> type[TelnyxGateway]: ...
@overload
def provider_class(kind: Literal["gateway"], name: Literal["web"]) -> type[WebGateway]: ...
@overload
def provider_class(kind: Literal["gateway"], name: str) -> type[Any]: ...
@overload
def provider_class(kind: Literal["sms"], name: Literal["twilio"] = ...) -> type[TwilioSMS]: ...
@overload
def provider_class(kind: Literal["sms"], name: Literal["telnyx"]) -> type[TelnyxSMS]: ...
@overload
def provider_class(kind: Literal["sms"], name: str) -> type[SMS]: ...
def provider_class(kind: Kind, name: str = "") -> type[Any]:
    """The class of a provider, which is not instantiated; no other provider's module is imported.

    Raises:
        ConfigurationError: There is no such provider.
        MissingExtra: A package is not installed; the message says how to install it.
    """
    return find_class(kind, name)
