"""ElevenLabs' agents (``/v1/convai/conversation``) as an :class:`~dialog.s2s.s2s.S2S`.

An agent is made at ElevenLabs: its voice, its language model, its audio formats and the tools that it may use are
kept there, and which of them a conversation may change as well. It answers whenever the caller has finished, stops
whenever it hears them, and cannot be told what of a reply was heard.

Source: ElevenLabs' documentation of its agents' WebSocket (November 2026), and its SDK 2.78.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import aiohttp
import msgspec

from dialog.audio.convert import Converter
from dialog.errors import ConfigurationError, ProviderError
from dialog.llm.llm import Item, ToolCall
from dialog.message import MULAW_8K, PCM_8K, PCM_16K, PCM_24K, AudioFormat
from dialog.net.malformed import UNDECODABLE
from dialog.net.options import merged
from dialog.net.reconnect import Backoff
from dialog.net.socket import Address
from dialog.net.urls import QueryValue, http_url, join, websocket_url
from dialog.s2s.elevenlabs_wire import KNOWN, Audio, Metadata, Numbered, Signed, decode, format_of, number
from dialog.s2s.hosted import HostedS2S
from dialog.s2s.s2s import ReplyState, S2SCapabilities, SessionSpec

__all__ = ["ElevenLabsAgentS2S"]

logger = logging.getLogger(__name__)

DEFAULT_BASE_URL = "https://api.elevenlabs.io"
_FORMATS = (MULAW_8K, PCM_16K, PCM_24K, PCM_8K)
_NO_WORDS = "..."
"""What is told for a sound, or a silence, of the caller's."""


class ElevenLabsAgentS2S(HostedS2S):
    """Hears and speaks with an agent of ElevenLabs', over one socket for the whole call.

    Telephone audio goes straight through, in both directions, if the agent's formats are ``ulaw_8000``; others are
    converted. ElevenLabs decides when the caller has finished and when they interrupt a reply.

    In the settings of the agent there must be: as client events ``audio``, ``interruption``, ``user_transcript``,
    ``agent_response``, ``client_tool_call``, ``ping`` and, to know sooner when a reply is over,
    ``agent_response_complete``; in its security the permission to override the first message, the system prompt and
    whatever else is given here; and every tool of the call as a client tool of the same name, which waits for a
    response. A conversation that may not override what it does is refused, which is an error that says so.

    Args:
        api_key: ElevenLabs API key.
        agent_id: The agent.
        base_url: Where the service is; http(s) or ws(s). Regions have their own.
        voice: Id of another voice than the agent's.
        language: Another language than the agent's, as ``de``.
        first_message: What the agent says by itself when the call begins; empty: nothing.
        options: Further fields of the message that begins a conversation (``dynamic_variables``, ``user_id`` …), also
            ones that this class does not know; they win, level by level.
        query: Further query parameters of the request for a conversation: ``branch_id``, ``environment`` …
        headers: Further headers of it, and of the handshake.
        queue_size_limit: Frames that may wait for a service that reads slowly; then the oldest are dropped.
        backoff: When to reconnect, and when to give up.

    Raises:
        ConfigurationError: No key, no agent, or the base URL is no URL.
    """

    formats: ClassVar[tuple[AudioFormat, ...]] = _FORMATS
    output_formats: ClassVar[tuple[AudioFormat, ...]] = _FORMATS
    capabilities: ClassVar[S2SCapabilities] = S2SCapabilities(
        interruption="theirs",
        replies="unasked",
        flush_signal=True,
        limits="conversations as long as the agent allows, then another one",
    )
    provider = "elevenlabs"
    billed_as = "elevenlabs-agents"
    quiet_s = 2.0
    gathers_tools = True

    def __init__(
        self,
        *,
        api_key: str,
        agent_id: str,
        base_url: str = DEFAULT_BASE_URL,
        voice: str = "",
        language: str | None = None,
        first_message: str = "",
        options: Mapping[str, Any] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        queue_size_limit: int = 500,
        backoff: Backoff | None = None,
    ) -> None:
        if not agent_id:
            raise ConfigurationError("ElevenLabsAgentS2S needs an agent_id: the agent is made at ElevenLabs")
        super().__init__(api_key=api_key, base_url=base_url, queue_size_limit=queue_size_limit, backoff=backoff)
        self._headers = dict(headers or {})
        self._key = {"xi-api-key": api_key}
        self._query = {"agent_id": agent_id, **(query or {})}
        self._voice = voice
        self._language = language
        self._first_message = first_message
        self._options = dict(options or {})
        self._heard_as = Converter(MULAW_8K, MULAW_8K)
        """From the caller's format to the agent's …"""
        self._spoken_as = Converter(MULAW_8K, MULAW_8K)
        """… and from the agent's to the caller's."""
        self._stale = 0
        """Audio with this number or a lower one is of a reply that was interrupted."""

    # What is told to the service.

    def url_for(self, spec: SessionSpec) -> Address:
        """Audio goes in texts; what to connect to is asked anew for each conversation."""
        del spec
        before, after = '{"user_audio_chunk":"', '"}'
        self._sent.in_text(before, after)
        self._sent.encode = lambda data: before + b64encode(self._heard_as.process(data)).decode() + after
        return self._signed_url

    async def _signed_url(self, session: aiohttp.ClientSession) -> str:
        url = join(http_url(self._base_url), "/v1/convai/conversation/get-signed-url", self._query)
        async with session.get(url, headers={**self._headers, **self._key}) as response:
            body = await response.read()
        if response.status != 200:
            raise aiohttp.ClientResponseError(
                response.request_info,
                response.history,
                status=response.status,
                message=body[:300].decode(errors="replace"),
                headers=response.headers,
            )
        try:
            signed = msgspec.json.decode(body, type=Signed).signed_url
            return websocket_url(signed)
        except (*UNDECODABLE, ConfigurationError):
            # What came instead may be as good as a key, and stays out of the error.
            reason = "gave no address for a conversation"
            raise ProviderError(self.provider, reason, retryable=False) from None

    def _greet(self) -> Iterable[str]:
        spec = self._spec
        agent: dict[str, Any] = {"first_message": "" if self._sessions else self._first_message}
        if spec.system:
            agent["prompt"] = {"prompt": spec.system}
        if self._language:
            agent["language"] = self._language
        override: dict[str, Any] = {"agent": agent}
        if spec.voice or self._voice:
            override["tts"] = {"voice_id": spec.voice or self._voice}
        ours = {"type": "conversation_initiation_client_data", "conversation_config_override": override}
        return (msgspec.json.encode(merged(ours, self._options)).decode(),)

    def _seed(self, items: Sequence[Item]) -> None:
        for text in self._notes_of(items):
            self._send_note(text)

    def _send_update(self) -> bool:
        self._send_note(f"From now on, follow these instructions: {self._spec.system}")
        return False  # the prompt itself is that of the conversation

    def _send_words(self, text: str) -> None:
        self._tell("user_message", text=text)

    def _send_note(self, text: str) -> None:
        self._tell("contextual_update", text=text)

    def _send_answer(self, call_id: str, result: str) -> None:
        self._tell("client_tool_result", tool_call_id=call_id, result=result, is_error=False)

    def _forget(self) -> None:
        super()._forget()
        self._stale = 0

    # What the service tells.

    def _receive(self, data: str | bytes) -> None:
        try:
            event = decode(data)
        except UNDECODABLE as exc:
            self._undecodable(data, exc, KNOWN, "type")
            return
        if event.audio_event is not None:
            self._on_audio(event.audio_event)
        elif event.ping_event is not None:
            self._tell("pong", event_id=event.ping_event.event_id)
        elif event.user_transcription_event is not None:
            text = event.user_transcription_event.user_transcript.strip()
            self._caller_said("" if text == _NO_WORDS else text)
        elif event.agent_response_event is not None:
            self._on_response(event.agent_response_event.agent_response.strip())
        elif event.agent_response_complete_event is not None:
            if not self._is_stale(event.agent_response_complete_event):
                self._finished()
        elif event.interruption_event is not None:
            self._stale = max(self._stale, number(event.interruption_event.event_id))
            self._interrupted()
        elif event.client_tool_call is not None:
            call = event.client_tool_call
            arguments = bytes(call.parameters).decode()
            self._tools_wanted([ToolCall(id=call.tool_call_id, name=call.tool_name, arguments=arguments)])
        elif event.conversation_initiation_metadata_event is not None and not self._ready:
            self._on_metadata(event.conversation_initiation_metadata_event)

    def _on_metadata(self, metadata: Metadata) -> None:
        try:
            self._heard_as = Converter(self._spec.input_format, format_of(metadata.user_input_audio_format))
            self._spoken_as = Converter(format_of(metadata.agent_output_audio_format), self._spec.output_format)
        except ConfigurationError as exc:  # it is unknown, or cannot be converted here
            reason = f"{exc}: set the agent's audio formats to ulaw_8000"
            self._refused(ProviderError(self.provider, reason, retryable=False))
            return
        self._sent.carry(self._heard_as.target)
        if not (self._heard_as.identity and self._spoken_as.identity):
            logger.info("%s: the agent's audio formats are not the call's: audio is converted", self.name)
        self._start_audio()

    def _on_audio(self, audio: Audio) -> None:
        if self._is_stale(audio):
            return
        data = self._unpacked(audio.audio_base_64)
        if data:
            self._sound(self._spoken_as.process(data))
        if audio.is_final:
            self._finished()

    def _is_stale(self, event: Audio | Numbered) -> bool:
        return 0 < number(event.event_id) <= self._stale

    def _on_response(self, text: str) -> None:
        """The words of a whole reply, which may have begun to sound."""
        if self._has_words:
            self._over("completed")  # another one begins
        if text:
            self._said(text)

    def _over(self, state: ReplyState) -> None:
        reply, rest = self._reply, self._spoken_as.flush()
        if rest and reply is not None and self._has_begun and state == "completed":
            self._audio(reply, "", rest)
        super()._over(state)
