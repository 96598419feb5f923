"""Deepgram's Voice Agent API (``/v1/agent/converse``) as an :class:`~dialog.s2s.s2s.S2S`.

One socket for a recogniser, a language model and a voice, of which Deepgram runs all three. It answers whenever the
caller has finished, stops whenever it hears them, and cannot be told what of a reply was heard.

Source: Deepgram's documentation of the Voice Agent API (November 2026), and its SDK 7.17.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from dialog.errors import ConfigurationError, ProviderError
from dialog.llm.llm import Item, ToolCall
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, PCM_24K, AudioFormat
from dialog.net.malformed import UNDECODABLE
from dialog.net.options import merged
from dialog.net.reconnect import Backoff
from dialog.net.urls import QueryValue, join
from dialog.s2s.deepgram_wire import KNOWN, Event, Function, decode, format_of, functions_of, messages_of, notes_of
from dialog.s2s.hosted import HostedS2S
from dialog.s2s.reply import Reply
from dialog.s2s.s2s import S2SCapabilities, SessionSpec

__all__ = ["DeepgramAgentS2S"]

DEFAULT_BASE_URL = "https://agent.deepgram.com"
DEFAULT_MODEL = "gpt-4o-mini"
DEFAULT_LLM = "open_ai"
DEFAULT_LISTEN_MODEL = "flux-general-en"
DEFAULT_VOICE = "aura-2-thalia-en"
_FORMATS = (MULAW_8K, ALAW_8K, PCM_8K, PCM_16K, PCM_24K)
_SESSION_S = 7200.0
_THEIR_FAULT = "INTERNAL_SERVER_ERROR"
_LASTING_CODES = frozenset({"INVALID_SETTINGS", "UNPARSABLE_CLIENT_MESSAGE"})


class DeepgramAgentS2S(HostedS2S):
    """Hears and speaks with Deepgram's Voice Agent, over one socket for the whole call.

    Telephone audio goes straight through, in both directions. Deepgram decides when the caller has finished and when
    they interrupt a reply. It says given sentences word for word.

    Args:
        api_key: Deepgram API key.
        base_url: Where the service is; http(s) or ws(s).
        model: The language model.
        llm: Whose it is, as Deepgram writes it: open_ai, anthropic, google, groq, aws_bedrock …
        listen_model: The recogniser's model.
        voice: The voice, which is a model as well.
        options: Further fields of the settings, also ones that this class does not know; they win, level by level.
        query: Further query parameters.
        headers: Further headers of the handshake.
        queue_size_limit: Frames that may wait for a service that reads slowly; then the oldest are dropped.
        backoff: When to reconnect, and when to give up.

    Raises:
        ConfigurationError: No key, no model or voice, or the base URL is no URL.
    """

    formats: ClassVar[tuple[AudioFormat, ...]] = _FORMATS
    output_formats: ClassVar[tuple[AudioFormat, ...]] = _FORMATS
    capabilities: ClassVar[S2SCapabilities] = S2SCapabilities(
        interruption="theirs",
        replies="unasked",
        verbatim=True,
        flush_signal=True,
        session_s=_SESSION_S,
        limits="sessions of 2 hours, renewed unheard",
    )
    provider = "deepgram"
    billed_as = "deepgram-voice-agent"
    keep_alive = '{"type":"KeepAlive"}'
    keep_alive_s = 8.0

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str = DEFAULT_BASE_URL,
        model: str = DEFAULT_MODEL,
        llm: str = DEFAULT_LLM,
        listen_model: str = DEFAULT_LISTEN_MODEL,
        voice: str = DEFAULT_VOICE,
        options: Mapping[str, Any] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        queue_size_limit: int = 500,
        backoff: Backoff | None = None,
    ) -> None:
        for name, value in (("model", model), ("llm", llm), ("listen_model", listen_model), ("voice", voice)):
            if not value:
                raise ConfigurationError(f"DeepgramAgentS2S needs a {name}")
        super().__init__(api_key=api_key, base_url=base_url, queue_size_limit=queue_size_limit, backoff=backoff)
        self._headers = {"Authorization": f"Token {api_key}", **(headers or {})}
        self._query = dict(query or {})
        self._model = model
        self._llm = llm
        self._listen_model = listen_model
        self._voice = voice
        self._options = dict(options or {})
        self._notes: list[str] = []
        """What this session was told beside its prompt."""
        self._tools: dict[str, str] = {}
        """Names of the tools that it waits for."""
        self._seeded = 0
        """So many items of the conversation were in the settings."""
        self._start_ms: float | None = None
        """Where the caller began to say what they are saying."""
        self._told_codes: set[str] = set()

    # What is told to the service.

    def url_for(self, spec: SessionSpec) -> str:
        """The settings follow in a message."""
        del spec
        return join(self._base_url, "/v1/agent/converse", self._query)

    def _settings_of(self, spec: SessionSpec, items: Sequence[Item] = ()) -> dict[str, Any]:
        agent: dict[str, Any] = {
            "listen": {
                "provider": {
                    "type": "deepgram",
                    "version": "v2" if self._listen_model.startswith("flux") else "v1",
                    "model": self._listen_model,
                }
            },
            "think": {
                "provider": {"type": self._llm, "model": self._model},
                "prompt": "\n\n".join(filter(None, (spec.system, *self._notes))),
                "functions": functions_of(spec.tools),
            },
            "speak": {"provider": {"type": "deepgram", "model": spec.voice or self._voice}},
        }
        messages = messages_of(items)
        if messages:
            agent["context"] = {"messages": messages}
        settings = {
            "type": "Settings",
            "audio": {
                "input": format_of(spec.input_format),
                "output": {**format_of(spec.output_format), "container": "none"},
            },
            "agent": agent,
        }
        return merged(settings, self._options)

    def _seed(self, items: Sequence[Item]) -> None:
        for item in items[self._seeded :]:  # they were said while the settings were looked at
            self.add(item)

    def _send_update(self) -> bool:
        self._tell("UpdateThink", think=self._settings_of(self._spec)["agent"]["think"])
        return True

    def _send_words(self, text: str) -> None:
        self._tell("InjectUserMessage", content=text)

    def _send_note(self, text: str) -> None:
        self._notes.append(text)
        self._tell("UpdatePrompt", prompt=text)  # it adds to the prompt

    def _send_say(self, reply: Reply) -> None:
        self._await_begin(reply)
        self._tell("InjectAgentMessage", message=reply.text, behavior="queue")

    def _send_answer(self, call_id: str, result: str) -> None:
        name = self._tools.pop(call_id, "")
        self._tell("FunctionCallResponse", id=call_id, name=name, content=result)

    def _forget(self) -> None:
        super()._forget()
        self._tools.clear()
        self._start_ms = None
        self._told_codes.clear()

    def _caller_speaks(self) -> bool:
        return super()._caller_speaks() or self._start_ms is not None

    # What the service tells.

    def _receive(self, data: str | bytes) -> None:
        if isinstance(data, bytes):
            if data:
                self._sound(data)
            return
        try:
            event = decode(data)
        except UNDECODABLE as exc:
            self._undecodable(data, exc, KNOWN, "type")
            return
        match event.type:
            case "ConversationText":
                self._on_text(event)
            case "UserStartedSpeaking":
                self._start_ms = self._sent.until_ms
                self._interrupted()
            case "AgentAudioDone":
                self._finished()
            case "FunctionCallRequest":
                self._on_functions(event.functions)
            case "FunctionCallCancelled":
                self._tools_unwanted(function.id for function in event.functions)
            case _:
                self._on_session(event)

    def _on_session(self, event: Event) -> None:
        match event.type:
            case "Welcome":
                self._set_up()
            case "SettingsApplied":
                if not self._ready:
                    self._limit_session(_SESSION_S)
                    self._start_audio()
            case "InjectionRefused":
                self._on_refusal(event.message)
            case "Error":
                # After one the session is over, whether or not the connection is closed.
                passes = event.code == _THEIR_FAULT or (self._ready and event.code not in _LASTING_CODES)
                self._refused(ProviderError(self.provider, f"reports {event.problem}", retryable=passes))
            case "Warning":
                if event.code not in self._told_codes:
                    self._told_codes.add(event.code)
                    error = ProviderError(self.provider, f"warns of {event.problem}", retryable=True)
                    self.fail(error, retryable=True)
            case _:
                pass

    def _set_up(self) -> None:
        items = self._spec.history()
        self._seeded = len(items)
        self._notes = notes_of(items)
        self._send(msgspec.json.encode(self._settings_of(self._spec, items)).decode())

    def _on_text(self, event: Event) -> None:
        if event.role == "user":
            start_ms, self._start_ms = self._start_ms, None
            self._caller_said(event.content.strip(), start_ms)
            self._renew_if_quiet()
        elif event.role == "assistant" and event.content:
            self._said(event.content)

    def _on_functions(self, functions: Sequence[Function]) -> None:
        ours = [function for function in functions if function.client_side]
        if ours:
            self._tools.update({function.id: function.name for function in ours})
            self._tools_wanted([ToolCall(id=each.id, name=each.name, arguments=each.arguments) for each in ours])

    def _on_refusal(self, message: str) -> None:
        """What was to be said, or answered, will not be."""
        reason = f"refused to speak: {message[:200]}"
        self.fail(ProviderError(self.provider, reason, retryable=True), retryable=True)
        if self._reply is not None and not self._has_begun:
            self._over("failed")
