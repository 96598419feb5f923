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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from msgspec import Struct
from msgspec.structs import replace

from dialog.errors import AuthenticationError, ConfigurationError, ProviderError
from dialog.llm.llm import Item
from dialog.message import PCM_16K, PCM_24K, AudioFormat, Playback
from dialog.net.options import merged
from dialog.net.reconnect import Backoff
from dialog.net.urls import QueryValue, join
from dialog.s2s.gemini_protocol import GeminiProtocol
from dialog.s2s.gemini_wire import ServerMessage, contents_of, tools_of
from dialog.s2s.s2s import S2SCapabilities, SessionSpec

__all__ = ["ActivityDetection", "GeminiLiveS2S"]

Sensitivity: TypeAlias = Literal["high", "low"]

DEFAULT_MODEL = "gemini-3.8-live"
DEFAULT_VOICE = "Kore"
DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com"
_PATH = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
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


class GeminiLiveS2S(GeminiProtocol):
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
        theirs = interruption == "theirs"
        super().__init__(
            model=model,
            theirs=theirs,
            api_key=api_key,
            base_url=base_url,
            queue_size_limit=queue_size_limit,
            backoff=backoff,
        )
        # Not in the query: addresses are logged by proxies.
        self._headers = {"x-goog-api-key": api_key, **(headers or {})}
        self._query = dict(query or {})
        self._voice = voice
        if theirs:
            self.capabilities = replace(  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  # as it is set
                type(self).capabilities, interruption="theirs", flush_signal=True
            )
        self._detection = activity_detection or ActivityDetection()
        self._options = dict(options or {})
        self._handle = ""
        """The session can be resumed by it, and nothing has happened since."""
        self._faithful = True
        """What the session remembers was heard."""
        self._resumed = False
        self._seeding = False
        self._set_up = False

    # Sessions.

    def url_for(self, spec: SessionSpec) -> str:
        """Audio goes in texts."""
        rate = spec.input_format.sample_rate
        self._sent.in_text('{"realtimeInput":{"audio":{"data":"', f'","mimeType":"audio/pcm;rate={rate}"}}}}}}')
        return join(self._base_url, _PATH, self._query)

    def _greet(self) -> Iterable[str]:
        if not self._faithful:
            self._handle = ""
        self._resumed = bool(self._handle)
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
        if spec.system:
            setup["systemInstruction"] = {"parts": [{"text": spec.system}]}
        if spec.tools:
            setup["tools"] = tools_of(spec.tools)
        if self._seeding:
            setup["historyConfig"] = {"initialHistoryInClientContent": True}
        return setup

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

    def cancel(self, heard: Playback) -> None:
        """See :meth:`S2S.cancel`."""
        if heard.uuid in self._parts:
            self._faithful = False
        super().cancel(heard)

    def _went_on(self) -> None:
        self._handle = ""

    def _on_session(self, message: ServerMessage) -> None:
        if message.setup_complete is not None and not self._set_up:
            self._set_up = True
            self._start_audio()
        update = message.session_resumption_update
        if update is not None:
            self._handle = (update.new_handle or "") if update.resumable else ""
        if message.go_away is not None:
            self._limit_session(message.go_away.left_s)

    def _failed(self, error: ProviderError) -> None:
        reason = str(error).removeprefix(f"{self.provider}: ")
        if _KEY_TROUBLE.search(reason):
            error = AuthenticationError(self.provider, reason)
        elif self._resumed and not self._set_up:
            # The handle is too old, or not known any more: the history tells a new session what was said.
            self._timers.stop_all()
            self._handle, self._resumed = "", False
            self._open_socket()
            return
        super()._failed(error)
