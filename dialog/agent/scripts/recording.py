"""A message of the caller, recorded as an answering machine does."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from dialog.agent.scripts.waiting import Waiting
from dialog.audio.convert import Converter, negotiate
from dialog.audio.wav import StrPath, write_wav
from dialog.errors import CallHungUp, ConfigurationError
from dialog.message import AudioFormat, Message, SpeechEdge
from dialog.vad.local import LocalVAD
from dialog.vad.vad import VAD
from dialog.voip.voip import VoIP

__all__ = ["RecordedMessage", "record"]


class RecordedMessage(Struct, frozen=True):
    """What the caller said, and why no more was recorded."""

    audio: bytes
    """In :attr:`audio_format`."""
    audio_format: AudioFormat
    why: Literal["silence", "key", "max", "hung_up"]
    spoken: bool
    """A voice was heard."""

    @property
    def duration_s(self) -> float:
        """How long it is, in seconds."""
        return self.audio_format.ms(len(self.audio)) / 1000.0

    def write(self, path: StrPath) -> None:
        """Write it as a WAV file of 16-bit PCM.

        Raises:
            OSError: The file cannot be written.
        """
        plain = AudioFormat("s16le", self.audio_format.sample_rate)
        pcm = self.audio if self.audio_format == plain else Converter(self.audio_format, plain).process(self.audio)
        write_wav(path, pcm, plain.sample_rate)

    def __repr__(self) -> str:
        return f"<RecordedMessage {self.duration_s:.1f} s, {self.why}>"


class _Tape:
    """Keeps the caller's audio, and what a VAD hears in it."""

    def __init__(self, voip: VoIP, waiting: Waiting, max_s: float, terminator: str) -> None:
        self.audio = bytearray()
        self.spoken = False
        self.speaking = False
        self.quiet_from_s = 0.0
        """Since when nobody speaks, in seconds of the recording."""
        self.key = False
        self._format = voip.audio_format
        self._most = self._format.size(max_s * 1000.0)
        self._terminator = terminator
        self._waiting = waiting
        self._vad = LocalVAD()
        heard = negotiate(self._format, self._vad.formats)
        self._convert = None if heard == self._format else Converter(self._format, heard)
        self._vad.open(heard)
        self._vad.on(VAD.SPEECH, self._edge)

    @property
    def seconds(self) -> float:
        return self._format.ms(len(self.audio)) / 1000.0

    @property
    def full(self) -> bool:
        return len(self.audio) >= self._most

    def caller(self, message: Message[bytes]) -> None:
        if self.full or self.key:
            return
        self.audio += message.data[: self._most - len(self.audio)]
        data = message.data if self._convert is None else self._convert.process(message.data)
        self._vad.post(Message(uuid=message.uuid, data=data, at_ms=message.at_ms))
        self._waiting.wake()

    def digit(self, key: str) -> None:
        if key == self._terminator:
            self.key = True
            self._waiting.wake()

    def close(self) -> None:
        self._vad.dispose()

    def _edge(self, edge: SpeechEdge) -> None:
        self.speaking = edge.state == "started"
        self.spoken = True
        self.quiet_from_s = self.seconds


async def record(voip: VoIP, waiting: Waiting, *, max_s: float, silence_s: float, terminator: str) -> RecordedMessage:
    """Record what the caller says; see :meth:`ScriptCall.record`.

    Raises:
        ConfigurationError: A time is not positive.
        CallHungUp: The call ended; ``recorded`` has the message until then.
    """
    if max_s <= 0 or silence_s <= 0:
        raise ConfigurationError(f"max_s and silence_s must be positive, got {max_s} and {silence_s}")
    tape = _Tape(voip, waiting, max_s, terminator)

    def silent() -> bool:
        return not tape.speaking and tape.seconds - tape.quiet_from_s >= silence_s

    voip.on(VoIP.MESSAGE, tape.caller)
    voip.on(VoIP.DTMF, tape.digit)
    why: Literal["silence", "key", "max", "hung_up"]
    try:
        await waiting.until(lambda: tape.key or tape.full or silent())
        why = "key" if tape.key else "max" if tape.full else "silence"
    except CallHungUp as exc:
        exc.recorded = RecordedMessage(bytes(tape.audio), voip.audio_format, "hung_up", tape.spoken)
        raise
    finally:
        voip.off(VoIP.MESSAGE, tape.caller)
        voip.off(VoIP.DTMF, tape.digit)
        tape.close()
    return RecordedMessage(bytes(tape.audio), voip.audio_format, why, tape.spoken)
