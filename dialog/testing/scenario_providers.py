"""Ears and a voice for scenarios: emulators that hear, and speak, exactly what the audio says.

The words are in the audio (:mod:`dialog.testing.scenario_sound`), so nobody has to tell the ears what
the caller is going to say, and what the caller heard of the voice can be read from the line.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Struct

from dialog.audio.g711 import mulaw_decode
from dialog.message import MULAW_8K, Utterance
from dialog.stt.deepgram import DeepgramSTT
from dialog.stt.stt import STT, STTCapabilities
from dialog.testing.cartesia import CartesiaEmulator
from dialog.testing.deepgram import DeepgramEmulator
from dialog.testing.scenario_sound import Cell, Letters, read_words, spell
from dialog.testing.server import Faults

__all__ = ["EagerDeepgramSTT", "Ears", "HearingDeepgram", "SpellingCartesia"]

_WINDOW_S = 0.02
_LOUD = 400
_ONSET_WINDOWS = 3
_VOICE_GONE_S = 0.3
"""Quiet after which the next sound is another start of speech."""


class Ears(Struct, frozen=True, kw_only=True):
    """How the emulated recogniser behaves; times in seconds of audio."""

    interim_s: float = 0.8
    """Between two interim results; the service takes about a second."""
    latency_s: float = 0.12
    """How far transcripts lag behind the audio; speech starts are told at once."""
    speech_final: bool = True
    """Says when an utterance ended by silence."""
    utterance_end: bool = True
    """Says when words stopped coming."""
    answer_finalize: bool = True
    """Answers when it is asked for what it has."""
    eager_s: float | None = None
    """Tells, after so much silence, that the turn has probably ended, and withdraws it when more comes."""


class HearingDeepgram(DeepgramEmulator):
    """Deepgram that reads the words from the audio; see :class:`Ears`."""

    def __init__(self, ears: Ears, *, faults: Faults | None = None) -> None:
        super().__init__(faults=faults, answer_finalize=ears.answer_finalize)
        self.ears = ears

    def recogniser(self, query: Mapping[str, str]) -> _Recogniser:
        """One that reads."""
        return _Recogniser(self, query)

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization", "").partition(" ")[2] != self.api_key:
            return self.refusal(401, request)
        recogniser = self.recogniser(dict(request.query))
        async with self.websocket(request) as socket:
            while (data := await socket.receive(60.0)) is not None:
                for message in recogniser.receive(data):
                    await socket.send(message)
                if recogniser.closed:
                    await socket.close()
        return socket.response


class _Said(Struct):
    text: str
    start_s: float
    end_s: float


class _Recogniser:
    """One connection: audio and commands in, messages out; no I/O. Time is audio time."""

    def __init__(self, emulator: HearingDeepgram, query: Mapping[str, str]) -> None:
        self.closed = False
        self._ears = emulator.ears
        endpointing = query.get("endpointing", "10")
        self._endpointing_s = None if endpointing == "false" else float(endpointing) / 1000
        self._utterance_end_s = float(query["utterance_end_ms"]) / 1000 if "utterance_end_ms" in query else None
        self._vad_events = query.get("vad_events") == "true"
        self._interims = query.get("interim_results") == "true"
        self._letters = Letters()
        self._audio = b""
        self._now = 0.0
        self._loud = 0
        self._quiet_s = 10.0
        self._voice = False
        self._spell: list[Cell] = []
        """Of the word that is being said."""
        self._words: list[_Said] = []
        """Not final yet."""
        self._segment_s = 0.0
        self._interim_at = emulator.ears.interim_s
        self._last_word_s: float | None = None
        """End of the last word, until UtteranceEnd was told."""
        self._eager = False
        self._late: deque[tuple[float, dict[str, Any]]] = deque()

    def receive(self, data: bytes | str) -> list[dict[str, Any]]:
        if isinstance(data, str):
            return self._command(data)
        out: list[dict[str, Any]] = []
        self._audio += data
        while len(self._audio) >= 160:
            window, self._audio = self._audio[:160], self._audio[160:]
            out += self._hear(window)
        return out

    def _command(self, text: str) -> list[dict[str, Any]]:
        kind = msgspec.json.decode(text, type=dict[str, Any]).get("type")
        if kind == "Finalize" and self._ears.answer_finalize:
            self._take_word()
            return [*self._overdue(), self._final(from_finalize=True)]
        if kind == "CloseStream":
            self.closed = True
            self._take_word()
            return [*self._overdue(), *([self._final()] if self._words else [])]
        return []

    def _overdue(self) -> list[dict[str, Any]]:
        late = [message for _, message in self._late]
        self._late.clear()
        return late

    def _hear(self, window: bytes) -> list[dict[str, Any]]:
        ears, out = self._ears, self._voice_edge(window)
        cells = self._letters.read(window, self._now * 1000)
        self._now += _WINDOW_S
        for cell in cells:
            last = self._spell[-1] if self._spell else None
            if last is not None and (cell.lane != last.lane or cell.index > last.index + 1):
                self._take_word()
            self._spell.append(cell)
            if self._eager:
                self._eager = False
                out.append({"type": "TurnResumed"})
        if self._spell and self._now - self._spell[-1].at_ms / 1000 > 0.2:
            self._take_word()
        said_s = self._words[-1].end_s if self._words else None
        wait = self._endpointing_s
        silent_s = min(self._quiet_s, self._now - said_s) if said_s is not None and not self._spell else 0.0
        if ears.eager_s is not None and said_s is not None and not self._eager and silent_s >= ears.eager_s:
            self._eager = True
            self._later(self._results(final=False), {"type": "EagerEndOfTurn"})
        if said_s is not None and wait is not None and silent_s >= wait and ears.speech_final:
            self._eager = False
            self._later(self._final(speech_final=True))
        elif (ended := self._gap_after()) is not None and ears.utterance_end:
            self._later({"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": round(ended, 3)})
        if self._now >= self._interim_at and self._interims:
            self._interim_at = self._now + ears.interim_s
            self._later(self._results(final=False))
        while self._late and self._late[0][0] <= self._now:
            out.append(self._late.popleft()[1])
        return out

    def _gap_after(self) -> float | None:
        """The end of the last word, once, when no other has come for long enough."""
        last, limit = self._last_word_s, self._utterance_end_s
        if last is None or limit is None or self._spell or self._now - last < limit:
            return None
        self._last_word_s = None
        return last

    def _voice_edge(self, window: bytes) -> list[dict[str, Any]]:
        pcm = array("h", mulaw_decode(window))
        loud = sum(map(abs, pcm[::4])) * 4 > _LOUD * len(pcm)
        self._quiet_s = 0.0 if loud else self._quiet_s + _WINDOW_S
        self._loud = self._loud + 1 if loud else 0
        if self._voice and self._quiet_s >= _VOICE_GONE_S:
            self._voice = False
            if not self._words and not self._spell and self._ears.speech_final:
                self._later(self._final(speech_final=True))  # it was a noise
        if self._voice or self._loud < _ONSET_WINDOWS:
            return []
        self._voice = True
        start = self._now - (_ONSET_WINDOWS - 1) * _WINDOW_S
        return [{"type": "SpeechStarted", "channel": [0, 1], "timestamp": round(start, 3)}] if self._vad_events else []

    def _take_word(self) -> None:
        for word in read_words(self._spell):
            self._words.append(_Said(word.text, word.start_ms / 1000, word.end_ms / 1000))
            self._last_word_s = word.end_ms / 1000
        self._spell.clear()

    def _later(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            self._late.append((self._now + self._ears.latency_s, message))

    def _final(self, *, speech_final: bool = False, from_finalize: bool = False) -> dict[str, Any]:
        message = self._results(final=True, speech_final=speech_final, from_finalize=from_finalize)
        self._words.clear()
        self._segment_s = self._now
        return message

    def _results(self, *, final: bool, speech_final: bool = False, from_finalize: bool = False) -> dict[str, Any]:
        words = [
            {
                "word": said.text.lower().strip(".,!?"),
                "start": round(said.start_s, 3),
                "end": round(said.end_s, 3),
                "confidence": 0.98,
                "punctuated_word": said.text,
            }
            for said in self._words
        ]
        alternative = {"transcript": " ".join(said.text for said in self._words), "confidence": 0.98, "words": words}
        return {
            "type": "Results",
            "channel_index": [0, 1],
            "start": round(self._segment_s, 4),
            "duration": round(self._now - self._segment_s, 4),
            "is_final": final,
            "speech_final": speech_final,
            "from_finalize": from_finalize,
            "channel": {"alternatives": [alternative]},
        }


class _Kind(Struct):
    type: str = ""


class EagerDeepgramSTT(DeepgramSTT):
    """Deepgram's client with the early ends of turns that :attr:`Ears.eager_s` makes its emulator tell."""

    capabilities: ClassVar[STTCapabilities] = msgspec.structs.replace(DeepgramSTT.capabilities, eager=True)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._newest: Utterance | None = None
        self.on(STT.INTERIM, self._remember)

    def _remember(self, utterance: Utterance) -> None:
        self._newest = utterance

    def _receive(self, data: str | bytes) -> None:
        super()._receive(data)
        kind = msgspec.json.decode(data, type=_Kind).type
        if self._newest is None or kind not in ("EagerEndOfTurn", "TurnResumed"):
            return
        if kind == "EagerEndOfTurn":
            self.emit(STT.EAGER, self._newest)
        else:
            self.emit(STT.EAGER_WITHDRAWN, self._newest.uuid)


class SpellingCartesia(CartesiaEmulator):
    """Cartesia whose audio spells the text: which word was heard when can be read from the line."""

    def audio(self, text: str, *, number: int = 0, encoding: str = "pcm_mulaw", rate: int = 8000) -> bytes:
        """The audio that context ``number`` gets for ``text``; other formats than the phone's are plain tones."""
        if encoding != "pcm_mulaw" or rate != 8000:
            return super().audio(text, number=number, encoding=encoding, rate=rate)
        audio = spell(text.replace("[", "("), lane=number, ms_per_char=self.ms_per_char)
        return audio[: MULAW_8K.size(len(text) * self.ms_per_char)]

    def text_of(self, number: int) -> str:
        """What context ``number`` was given to speak so far."""
        contexts = list(self.texts.values())
        return contexts[number] if number < len(contexts) else ""

    def part_of(self, number: int) -> tuple[UUID, int] | None:
        """The turn and part that context ``number`` belongs to: its id is made of them."""
        contexts = list(self.texts)
        if number >= len(contexts):
            return None
        turn, part, _ = contexts[number].split("-")
        return UUID(turn), int(part)
