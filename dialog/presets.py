"""Ready-made agents: an :class:`~dialog.agent.agent.Agent` with its model chosen.

Each is usable as it is; subclass it for tools and hooks. Moving from one model to another is a matter
of the base class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Required, TypedDict, Unpack

import msgspec

from dialog.agent.agent import Agent
from dialog.agent.record import RecordingSink
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import Tool
from dialog.agent.turnjudge import AudioTurnModel
from dialog.audio.filter import AudioFilterFactory
from dialog.llm import anthropic as anthropic_llm
from dialog.llm.anthropic import AnthropicLLM
from dialog.llm.openai import DEFAULT_MODEL, OpenAILLM
from dialog.llm.responses import ResponsesLLM
from dialog.llm.rules import Rule, RuleLLM
from dialog.s2s.s2s import S2S
from dialog.stt.stt import STT
from dialog.tts.tts import TTS
from dialog.vad.vad import VAD
from dialog.voip.voip import VoIP

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from openai import AsyncOpenAI

    from dialog.mcp.server import MCPServer

__all__ = ["AgentOptions", "AnthropicAgent", "OpenAIAgent", "ResponsesAgent", "RuleAgent", "TwilioOpenAIAgent"]


class AgentOptions(TypedDict, total=False):
    """The arguments of every agent; see :class:`~dialog.agent.agent.Agent`."""

    voip: Required[VoIP]
    tts: TTS | Callable[[], TTS] | None
    stt: STT | Callable[[], STT] | None
    s2s: S2S | Callable[[], S2S] | None
    system: str
    greeting: str
    settings: AgentSettings | None
    recording_sink: RecordingSink | None
    vad: VAD | Callable[[], VAD] | None
    audio_filter: AudioFilterFactory | None
    turn_model: AudioTurnModel | None
    mcp_servers: Sequence[MCPServer]
    tools: Sequence[Tool]


class OpenAIAgent(Agent):
    """An agent on OpenAI's chat completions, or any server that speaks them.

    Args:
        api_key: The key; not needed with ``client``.
        model: The model's name.
        client: A configured ``openai.AsyncOpenAI`` to use instead; it stays yours.
        base_url: Where the API is, with its ``/v1``.
        options: Further fields of the request (``temperature`` …), passed on as they are.
        headers: Further headers of the request.
        query: Further query parameters of the request.
        agent: What every agent takes.
    """

    def __init__(
        self,
        *,
        api_key: str = "",
        model: str = DEFAULT_MODEL,
        client: AsyncOpenAI | None = None,
        base_url: str = "",
        options: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        **agent: Unpack[AgentOptions],
    ) -> None:
        llm = OpenAILLM(
            api_key=api_key,
            model=model,
            client=client,
            base_url=base_url,
            options=options,
            headers=headers,
            query=query,
        )
        super().__init__(llm=llm, **agent)


class ResponsesAgent(Agent):
    """An agent on OpenAI's Responses, or any server that speaks them.

    Args:
        api_key: The key; not needed with ``client``.
        model: The model's name.
        client: A configured ``openai.AsyncOpenAI`` to use instead; it stays yours.
        base_url: Where the API is, with its ``/v1``.
        options: Further fields of the request (``reasoning`` …), passed on as they are.
        headers: Further headers of the request.
        query: Further query parameters of the request.
        agent: What every agent takes.
    """

    def __init__(
        self,
        *,
        api_key: str = "",
        model: str = DEFAULT_MODEL,
        client: AsyncOpenAI | None = None,
        base_url: str = "",
        options: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        **agent: Unpack[AgentOptions],
    ) -> None:
        llm = ResponsesLLM(
            api_key=api_key,
            model=model,
            client=client,
            base_url=base_url,
            options=options,
            headers=headers,
            query=query,
        )
        super().__init__(llm=llm, **agent)


class AnthropicAgent(Agent):
    """An agent on Anthropic's models, or any server that speaks their messages API.

    Args:
        api_key: The key; not needed with ``client``.
        model: The model's name.
        client: A configured ``anthropic.AsyncAnthropic`` to use instead; it stays yours.
        base_url: Where the API is, without its ``/v1``.
        options: Further fields of the request (``max_tokens`` …), passed on as they are.
        headers: Further headers of the request.
        query: Further query parameters of the request.
        agent: What every agent takes.
    """

    def __init__(
        self,
        *,
        api_key: str = "",
        model: str = anthropic_llm.DEFAULT_MODEL,
        client: AsyncAnthropic | None = None,
        base_url: str = "",
        options: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        **agent: Unpack[AgentOptions],
    ) -> None:
        llm = AnthropicLLM(
            api_key=api_key,
            model=model,
            client=client,
            base_url=base_url,
            options=options,
            headers=headers,
            query=query,
        )
        super().__init__(llm=llm, **agent)


class RuleAgent(Agent):
    """An agent that answers by rules: no model, no account, the same tools.

    A subclass lists its :attr:`rules`; the first that matches an utterance answers it.
    """

    rules: ClassVar[tuple[Rule, ...]] = ()
    fallback: ClassVar[str] = "Sorry, I did not understand that."
    """Said when no rule matches."""

    def __init__(self, **agent: Unpack[AgentOptions]) -> None:
        super().__init__(llm=RuleLLM(self.rules, fallback=self.fallback), **agent)


class TwilioOpenAIAgent(OpenAIAgent):
    """An :class:`OpenAIAgent` that also records and transcribes the call at the carrier.

    After the call it stays until the recording has been handed to ``recording_sink`` and the
    transcription is complete, at most ``settings.wrap_up_s``.
    """

    def __init__(
        self,
        *,
        api_key: str = "",
        model: str = DEFAULT_MODEL,
        client: AsyncOpenAI | None = None,
        base_url: str = "",
        options: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        **agent: Unpack[AgentOptions],
    ) -> None:
        settings = agent.get("settings") or AgentSettings()
        agent["settings"] = msgspec.structs.replace(settings, record=True, transcribe=True)
        super().__init__(
            api_key=api_key,
            model=model,
            client=client,
            base_url=base_url,
            options=options,
            headers=headers,
            query=query,
            **agent,
        )
