"""Google's Gemini Live API (``BidiGenerateContent``) as an :class:`~dialog.s2s.s2s.S2S`.

The model answers by itself whenever it thinks that the caller has finished, and says of the caller's speech only
the words: that an utterance is over shows in the reply that begins. It cannot be stopped, and not be told what of
a reply was heard: what is cut is dropped here, and the next session is begun with what was heard instead of being
resumed.

Source: Google's reference of the Live API (``v1beta``, WebSockets), its guides to sessions and to
``gemini-3.8-live``, and its SDK google-genai 3.6.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias, get_args
from uuid import UUID, uuid4

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dialog.errors import AuthenticationError, ConfigurationError, ProviderError, RemoteProtocolError
from dialog.llm.llm import Item, ToolCall
from dialog.message import PCM_16K, PCM_24K, AudioFormat, Playback, Utterance
from dialog.net.options import merged
from dialog.net.reconnect import Backoff
from dialog.net.urls import QueryValue, join
from dialog.s2s.gemini_wire import ServerContent, ServerMessage, Transcription, contents_of, decode, text_turn, tools_of
from dialog.s2s.reply import Reply
from dialog.s2s.s2s import S2S, ReplyState, ReplyUsage, S2SCapabilities, SessionSpec
from dialog.s2s.streaming import SocketS2S

__all__ = ["ActivityDetection", "GeminiLiveS2S"]

Sensitivity: TypeAlias = Literal["high", "low"]

DEFAULT_MODEL = "gemini-3.8-live"
DEFAULT_VOICE = "Kore"
DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com"
_PATH = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
_NOTHING = "."
"""What a turn says that only wants an answer: one without any text is refused."""
_NOT_RUN = "not run: the caller spoke"
_TRAILING_MS = 700.0
"""Words of the caller that come so soon after a reply has begun belong to what it answers; of the caller's audio …"""
_TRAILING_S = 1.0
"""… and as long are they awaited."""
_LATE_WORDS_S = 0.5
"""Words of the model may come so long after it has said that it is done."""
_STOPS_S = 1.0
"""A model that makes something else leaves it within this when it is asked for a reply."""
_QUIET_S = 1.0
"""While the model waits for tools it says nothing: words that stop for so long are the end of an utterance."""
_KEY_TROUBLE = re.compile(r"API key|unregistered callers|authentication credential|PERMISSION_DENIED", re.IGNORECASE)


class ActivityDetection(Struct, frozen=True, kw_only=True):
    """How the service tells speech from silence; what is ``None`` it decides itself.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    start_sensitivity: Sensitivity | None = None
    """How easily a sound counts as speech."""
    end_sensitivity: Sensitivity | None = None
    """How easily a pause counts as the end."""
    prefix_padding_ms: int | None = None
    """How long speech must last to count as speech."""
    silence_duration_ms: int = 500
    """Silence that ends the caller's turn."""

    def __post_init__(self) -> None:
        for name, value in (("start", self.start_sensitivity), ("end", self.end_sensitivity)):
            if value is not None and value not in get_args(Sensitivity):
                raise ConfigurationError(f"ActivityDetection: {name}_sensitivity must be high or low, got {value!r}")
        if not 0 <= self.silence_duration_ms <= 10_000 or not 0 <= (self.prefix_padding_ms or 0) <= 10_000:
            raise ConfigurationError(f"ActivityDetection: times must be 0 to 10000 ms, got {self}")

    @property
    def wire(self) -> dict[str, Any]:
        """As the service has it."""
        settings: dict[str, Any] = {"silenceDurationMs": self.silence_duration_ms}
        if self.prefix_padding_ms is not None:
            settings["prefixPaddingMs"] = self.prefix_padding_ms
        if self.start_sensitivity is not None:
            settings["startOfSpeechSensitivity"] = f"START_SENSITIVITY_{self.start_sensitivity.upper()}"
        if self.end_sensitivity is not None:
            settings["endOfSpeechSensitivity"] = f"END_SENSITIVITY_{self.end_sensitivity.upper()}"
        return settings


class _Said:
    """An utterance of the caller's, with its times on the call's audio clock."""

    __slots__ = ("end_ms", "start_ms", "text", "told", "uuid")

    def __init__(self) -> None:
        self.uuid: UUID = uuid4()
        self.text = ""
        self.start_ms = 0.0
        self.end_ms = 0.0
        self.told = False
        """That it is over."""

    @property
    def utterance(self) -> Utterance:
        """As far as it is known."""
        return Utterance(uuid=self.uuid, data=self.text.strip(), at_ms=self.start_ms, end_ms=self.end_ms)


class GeminiLiveS2S(SocketS2S):
    """Hears and speaks with Google's Gemini Live, over one socket at a time for the whole call.

    Audio goes as 16 kHz PCM and comes as 24 kHz PCM: telephone audio is converted by whoever uses this.
    Sessions are kept alive: connections that the service is about to close are replaced between two turns and
    resumed, and old parts of a long conversation are dropped by the service (a sliding window).

    Args:
        api_key: Key of Google's AI Studio.
        base_url: Where the service is; http(s) or ws(s).
        model: The model's name.
        voice: One of the 30 prebuilt voices: Kore, Puck, Zephyr, Charon, Aoede …
        interruption: Who decides that the caller interrupts a reply. ``ours``: whoever uses this; the service goes
            on with what it makes, which is dropped here. ``theirs``: the service, whenever it hears the caller.
        activity_detection: How silence ends the caller's turns; with ``vad="local"`` it is not used.
        options: Further fields of the setup, also ones that this class does not know; they win, level by level.
        query: Further query parameters.
        headers: Further headers of the handshake.
        queue_size_limit: Frames that may wait for a service that reads slowly; then the oldest are dropped.
        backoff: When to reconnect, and when to give up.

    Raises:
        ConfigurationError: No key, the base URL is no URL, or a value is none of those that there are.
    """

    formats: ClassVar[tuple[AudioFormat, ...]] = (PCM_16K,)
    output_formats: ClassVar[tuple[AudioFormat, ...]] = (PCM_24K,)
    capabilities: ClassVar[S2SCapabilities] = S2SCapabilities(
        replies="unasked",
        manual_turns=True,
        resumption=True,
        session_s=600.0,
        limits="connections of about 10 minutes, renewed unheard",
    )
    provider = "gemini"

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str = DEFAULT_BASE_URL,
        model: str = DEFAULT_MODEL,
        voice: str = DEFAULT_VOICE,
        interruption: Literal["ours", "theirs"] = "ours",
        activity_detection: ActivityDetection | None = None,
        options: Mapping[str, Any] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        queue_size_limit: int = 500,
        backoff: Backoff | None = None,
    ) -> None:
        if interruption not in ("ours", "theirs"):
            raise ConfigurationError(f"GeminiLiveS2S: interruption must be ours or theirs, got {interruption!r}")
        super().__init__(api_key=api_key, base_url=base_url, queue_size_limit=queue_size_limit, backoff=backoff)
        # Not in the query: addresses are logged by proxies.
        self._headers = {"x-goog-api-key": api_key, **(headers or {})}
        self._query = dict(query or {})
        self._model = model
        self._voice = voice
        self._theirs = interruption == "theirs"
        if self._theirs:
            self.capabilities = replace(  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  # as it is set
                type(self).capabilities, interruption="theirs", flush_signal=True
            )
        self._detection = activity_detection or ActivityDetection()
        self._options = dict(options or {})
        self._said = _Said()
        """What the caller says, or has said without an answer."""
        self._trailing: _Said | None = None
        """What the reply that has just begun answers: words of it may still come …"""
        self._trailing_until_ms = 0.0
        """… until this, on the call's audio clock."""
        self._unwanted = False
        """The service makes a reply that was cancelled: nothing more of it is heard."""
        self._generated = False
        """The reply is complete, but for words that come late."""
        self._turn_ends = False
        """The service has made its turn, and thinks that it is being played."""
        self._last: UUID | None = None
        """The turn of the newest reply."""
        self._pending: list[dict[str, Any]] = []
        """What the model was to be told while it could not listen."""
        self._tools: dict[str, str] = {}
        """Names of the tools that it waits for."""
        self._answers: list[dict[str, Any]] = []
        self._continues = False
        """All tools have answered: it goes on without being asked."""
        self._handle = ""
        """The session can be resumed by it, and nothing has happened since."""
        self._faithful = True
        """What the session remembers was heard."""
        self._resumed = False
        self._seeding = False
        self._set_up = False

    # What is told to the service.

    def url_for(self, spec: SessionSpec) -> str:
        """Audio goes in texts."""
        rate = spec.input_format.sample_rate
        self._audio_in_text('{"realtimeInput":{"audio":{"data":"', f'","mimeType":"audio/pcm;rate={rate}"}}}}}}')
        return join(self._base_url, _PATH, self._query)

    def _greet(self) -> Iterable[str]:
        self._resumed = bool(self._handle) and self._faithful
        self._seeding = not self._resumed and bool(contents_of(self._spec.history()))
        self._set_up = False
        return (self._message("setup", merged(self._setup(self._spec), self._options)),)

    def _setup(self, spec: SessionSpec) -> dict[str, Any]:
        speech = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": spec.voice or self._voice}}}
        manual = spec.vad == "local"
        setup: dict[str, Any] = {
            "model": self._model if "/" in self._model else f"models/{self._model}",
            "generationConfig": {"responseModalities": ["AUDIO"], "speechConfig": speech},
            "inputAudioTranscription": {},
            "outputAudioTranscription": {},
            "realtimeInputConfig": {
                "automaticActivityDetection": {"disabled": True} if manual else self._detection.wire,
                "activityHandling": "START_OF_ACTIVITY_INTERRUPTS" if self._theirs else "NO_INTERRUPTION",
            },
            "sessionResumption": {"handle": self._handle} if self._resumed else {},
            # Else a session ends after 15 minutes.
            "contextWindowCompression": {"slidingWindow": {}},
        }
        if spec.prompt:
            setup["systemInstruction"] = {"parts": [{"text": spec.prompt}]}
        if spec.tools:
            setup["tools"] = tools_of(spec.tools)
        if self._seeding:
            setup["historyConfig"] = {"initialHistoryInClientContent": True}
        return setup

    def _message(self, kind: str, fields: dict[str, Any]) -> str:
        return msgspec.json.encode({kind: fields}).decode()

    def _tell(self, turns: Sequence[dict[str, Any]], *, complete: bool) -> None:
        """Put turns into the conversation; ``complete``: and have them answered."""
        self._handle = ""
        self._send(self._message("clientContent", {"turns": turns, "turnComplete": complete}))

    def _seed(self, items: Sequence[Item]) -> None:
        if self._resumed:
            self._tell_pending()
            return
        self._faithful = True
        self._pending.clear()  # it is in the history
        turns = contents_of(items)
        if self._seeding:
            self._tell(turns, complete=True)  # which nobody answers
        elif turns:
            self._renew()  # the first words were said meanwhile: how a history is told is part of the setup

    def add(self, item: Item) -> None:
        """See :meth:`S2S.add`."""
        self._pending += contents_of((item,))
        self._tell_pending()

    def _tell_pending(self) -> None:
        """Tell it now, if that does not interrupt a reply."""
        busy = self._reply is not None or self._unwanted or self._answering or self._continues
        if self._ready and self._pending and not busy:
            turns, self._pending = self._pending, []
            self._tell(turns, complete=False)

    def _send_respond(self, reply: Reply) -> None:
        del reply  # what comes next is it
        turns, self._pending = self._pending, []
        continues, self._continues = self._continues, False
        if turns or not continues:
            self._ask_for(turns or [text_turn(_NOTHING)])

    def _send_say(self, reply: Reply) -> None:
        turns, self._pending = self._pending, []
        self._ask_for([*turns, text_turn(reply.order)])

    def _ask_for(self, turns: Sequence[dict[str, Any]]) -> None:
        self._tell(turns, complete=True)
        if self._unwanted:
            self._set_timer("stops", _STOPS_S, self._stopped)

    def _send_cancel(self, reply: Reply) -> bool:
        del reply  # it cannot be stopped
        self._unwanted = not self._generated
        return False

    def cancel(self, heard: Playback) -> None:
        """See :meth:`S2S.cancel`."""
        if heard.uuid in self._parts:
            self._faithful = False
        super().cancel(heard)

    def _send_begin(self) -> None:
        self._tell_trailing()
        self._send(self._message("realtimeInput", {"activityStart": {}}))

    def _send_commit(self) -> None:
        self._send(self._message("realtimeInput", {"activityEnd": {}}))

    def _send_answer(self, call_id: str, result: str) -> None:
        self._answers.append(self._answer_of(call_id, self._tools.pop(call_id, ""), result))
        self._send_answers()

    def _send_answers(self) -> None:
        """All at once: it waits for all of them."""
        if self._answers and not self._answering:
            answers, self._answers = self._answers, []
            self._continues = True
            self._handle = ""
            self._send(self._message("toolResponse", {"functionResponses": answers}))

    def _answer_of(self, call_id: str, name: str, result: str) -> dict[str, Any]:
        return {"id": call_id, "name": name, "response": {"output": result}}

    def _forget(self) -> None:
        self._tell_trailing()
        if self._said.told:
            self._trailing, self._said = self._said, _Said()
            self._tell_trailing()
        self._said.text = ""  # it is heard again
        self._unwanted = self._generated = self._turn_ends = self._continues = False
        self._tools.clear()
        self._answers.clear()

    # What the service tells.

    def _receive(self, data: str | bytes) -> None:
        try:
            message = decode(data)
        except msgspec.DecodeError as exc:
            self.fail(RemoteProtocolError(f"{self.provider} sent a message that cannot be understood ({exc})"))
            return
        if message.setup_complete is not None and not self._set_up:
            self._set_up = True
            self._start_audio()
        if message.usage_metadata is not None:
            usage = message.usage_metadata.usage(self._model)
            self.emit(S2S.USAGE, ReplyUsage(usage=usage, uuid=self._last))
        if message.server_content is not None:
            self._on_content(message.server_content)
        if message.tool_call is not None:
            self._on_tools(message.tool_call.calls)
        self._on_session(message)

    def _on_session(self, message: ServerMessage) -> None:
        if message.tool_call_cancellation is not None:
            self._on_cancelled_tools(message.tool_call_cancellation.ids or [])
        update = message.session_resumption_update
        if update is not None:
            self._handle = (update.new_handle or "") if update.resumable else ""
        if message.go_away is not None:
            self._limit_session(message.go_away.left_s)

    def _on_content(self, content: ServerContent) -> None:
        if content.input_transcription is not None:
            self._on_words(content.input_transcription)
        if content.interrupted:
            self._on_interrupted()
        audio, words = content.audio, content.words
        if (audio or words) and not self._unwanted:
            self._on_speech(audio, words)
        if content.generation_complete:
            self._on_generated()
        if content.turn_complete:
            self._on_turn_complete()

    # The caller.

    def _on_words(self, heard: Transcription) -> None:
        if self._sent_ms > self._trailing_until_ms:
            self._tell_trailing()
        said = self._trailing or self._said
        if heard.text:
            said.start_ms = said.start_ms or self._sent_ms
            said.end_ms = self._sent_ms
            said.text += heard.text
            if said.text.strip():
                self.emit(S2S.INTERIM, said.utterance)
        if said is self._trailing:
            if heard.finished:
                self._tell_trailing()
        elif self._answering and self._reply is None and said.text and not said.told:
            self._set_timer("quiet", _QUIET_S, self._tell_turn)

    def _tell_turn(self) -> None:
        """The caller has finished; manual turns that the model has answered at once are all over."""
        said = self._said
        self._set_timer("quiet")
        if said.told:
            return
        said.told = True
        if not self._committed:
            self._turn(said.uuid)
        while self._committed:
            said.uuid = self._committed[0][2]
            self._turn(said.uuid)

    def _tell_trailing(self) -> None:
        """No more words come of what the caller has said."""
        self._set_timer("words")
        said, self._trailing = self._trailing, None
        if said is not None:
            self.emit(S2S.UTTERANCE, said.utterance)

    def _caller_speaks(self) -> bool:
        return super()._caller_speaks() or bool(self._said.text)

    # Replies.

    def _making(self) -> Reply | None:
        """The reply that something came of; ``None``: nobody wants to hear it."""
        reply = self._reply
        if reply is None:
            said = self._said
            uuid = self._committed[-1][2] if self._committed else said.uuid
            reply = self._began(uuid)
            self._last, self._handle, self._continues = uuid, "", False
            self._tell_turn()
            self._tell_trailing()
            self._trailing, self._said = said, _Said()
            self._trailing_until_ms = self._sent_ms + _TRAILING_MS
            self._set_timer("words", _TRAILING_S, self._tell_trailing)
        if reply is not None and self._reply is reply and not reply.cancelled:
            self._last = reply.uuid
            return reply
        self._unwanted, self._reply = True, None
        return None

    def _on_speech(self, audio: list[str], words: str) -> None:
        if self._generated and audio:
            self._over("completed")  # the next one begins
        if self._reply is None and not audio and (self._answering or self._turn_ends):
            return  # words that come too late for a reply that is over
        reply = self._making()
        if reply is None:
            return
        self._words(reply, "", words)
        for piece in audio:
            try:
                data = b64decode(piece, validate=True)
            except (Base64Error, ValueError) as exc:
                self.fail(RemoteProtocolError(f"{self.provider} sent audio that is not base64 ({exc})"))
                continue
            self._audio(reply, "", data)

    def _stopped(self) -> None:
        """The service does not make any more what nobody wants."""
        self._set_timer("stops")
        self._unwanted = False
        self._tell_pending()

    def _on_generated(self) -> None:
        self._turn_ends = True
        if self._unwanted:
            self._stopped()
        elif self._reply is not None:
            self._generated = True
            self._set_timer("late words", _LATE_WORDS_S, lambda: self._over("completed"))

    def _on_turn_complete(self) -> None:
        made, self._turn_ends = self._turn_ends, False
        if made:
            if self._generated:
                self._over("completed")
        elif self._unwanted:
            self._stopped()
        elif self._reply is not None:
            self._over("completed")
        elif (self._said.text or self._committed) and not self._answering and self._making() is not None:
            self._over("completed")  # it has heard the caller, and has nothing to say

    def _on_interrupted(self) -> None:
        """The service has stopped: it heard the caller, or we wanted something else."""
        self._turn_ends = True
        reply = self._reply
        if self._unwanted:
            self._stopped()
        elif reply is not None and reply.parts:
            self._generated = True
            if self._theirs:
                self.emit(S2S.FLUSH, reply.uuid)
            if self._reply is reply:
                self._over("cancelled" if self._theirs else "incomplete")
        elif reply is None and self._theirs and self._last is not None:
            self.emit(S2S.FLUSH, self._last)

    def _over(self, state: ReplyState) -> None:
        self._set_timer("late words")
        self._generated = False
        super()._over(state)
        self._tell_pending()

    # Tools.

    def _on_tools(self, calls: list[ToolCall]) -> None:
        reply = None if self._unwanted else self._making()
        if reply is None:  # it waits for them all the same
            answers = [self._answer_of(call.id, call.name, _NOT_RUN) for call in calls]
            self._send(self._message("toolResponse", {"functionResponses": answers}))
            return
        self._tools.update({call.id: call.name for call in calls})
        for call in calls:
            self._tool_asked(reply, call)
        if self._reply is reply:
            self._over("completed")

    def _on_cancelled_tools(self, ids: list[str]) -> None:
        for call_id in ids:
            self._tools.pop(call_id, None)
            if self._calls.pop(call_id, None) is not None:
                self._answering.discard(call_id)
                self.emit(S2S.TOOL_CANCELLED, call_id)
        self._answers = [answer for answer in self._answers if answer["id"] not in ids]
        self._send_answers()
        self._renew_if_quiet()

    # Connections.

    def _failed(self, error: ProviderError) -> None:
        reason = str(error).removeprefix(f"{self.provider}: ")
        if _KEY_TROUBLE.search(reason):
            error = AuthenticationError(self.provider, reason)
        elif self._resumed and not self._set_up:
            # The handle is too old, or not known any more: the history tells a new session what was said.
            self._stop_timers()
            self._handle, self._resumed = "", False
            self._open_socket()
            return
        super()._failed(error)
