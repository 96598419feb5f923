"""A model that hears and speaks, as ears and as a voice: what the engine's two sides take it for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal
from uuid import UUID, uuid4

from dialog.agent.voices import PartKey
from dialog.message import AudioFormat, Message, SpeechEdge
from dialog.s2s.s2s import S2S, Replied
from dialog.stt.stt import STT, STTCapabilities
from dialog.tts.tts import TTS, TTSCapabilities

__all__ = ["ModelEars", "ModelVoice"]


class ModelEars(STT):
    """Gives the caller's audio to the model, and tells when it hears a voice.

    Args:
        s2s: The model.
        open_session: Opens it for audio of this format; ``local``: turns are manual.
    """

    def __init__(self, s2s: S2S, open_session: Callable[[AudioFormat, Literal["provider", "local"]], None]) -> None:
        super().__init__()
        can = s2s.capabilities
        self._s2s = s2s
        self._open_session = open_session
        self.formats = s2s.formats  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  # as the model
        self.capabilities = STTCapabilities(  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
            speech_events=can.speech_events,
            speech_stops=can.speech_stops,
            interim_interval_ms=can.interim_interval_ms,
            manual_turns=can.manual_turns,
        )

    def open(self, audio_format: AudioFormat) -> None:
        """Open the model's session."""
        self._open_session(audio_format, "local" if self.manual_turns else "provider")
        self._s2s.on(S2S.VAD, self._heard_voice)

    def _heard_voice(self, edge: SpeechEdge) -> None:
        self.emit(STT.VAD, edge)

    def post(self, message: Message[bytes]) -> None:
        """The caller's audio, 50 times a second."""
        self._s2s.post(message)

    def finalize(self) -> None:
        """The caller has finished: the model is told so, if it does not find out by itself."""
        if self.manual_turns:
            self._s2s.commit(uuid4())

    def discard(self, before_ms: float) -> None:
        """What a model has heard it cannot forget."""

    def dispose(self) -> None:
        """Let go of the model, which is somebody else's."""
        self._s2s.off(S2S.VAD, self._heard_voice)
        super().dispose()


class ModelVoice(TTS):
    """Lets the model say what was written for it: word for word if it can, else in its own words."""

    def __init__(self, s2s: S2S) -> None:
        super().__init__()
        self._s2s = s2s
        self._verbatim = s2s.capabilities.verbatim
        self.formats = s2s.output_formats  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        self.capabilities = TTSCapabilities(text="sentences", parallel_parts=8)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        self._saying: dict[PartKey, bool] = {}
        """Parts that are said, and whether their audio has ended."""

    def open(self, audio_format: AudioFormat) -> None:
        """The session is opened by the ears."""

    def post(self, message: Message[str]) -> None:
        """Have a part said."""
        self._saying.setdefault((message.uuid, message.part), False)
        self._s2s.say(message, verbatim=self._verbatim)

    def abort(self, uuid: UUID, *, part: int | None = None) -> None:
        """Nothing more of it is wanted; the model is told once it is known what was heard."""

    def says(self, key: PartKey) -> bool:
        """Whether this part was written for the model."""
        return key in self._saying

    def take(self, message: Message[bytes]) -> None:
        """The model speaks such a part."""
        key = (message.uuid, message.part)
        if not self._saying[key]:
            self._saying[key] = message.done
            self.emit(TTS.MESSAGE, message)

    def said(self, replied: Replied) -> None:
        """The model has said a part, or cannot: its audio ends in any case."""
        assert replied.part is not None
        key = (replied.uuid, replied.part)
        if self._saying.get(key) is False:
            self._saying[key] = True
            self.emit(TTS.MESSAGE, Message(uuid=replied.uuid, part=replied.part, data=b"", done=True))

    def forget(self, uuid: UUID) -> None:
        """The turn is over, and so are its parts, also those that never sounded."""
        for key in [key for key in self._saying if key[0] == uuid]:
            del self._saying[key]
