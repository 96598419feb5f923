"""A line for text on which speech takes its time: a word of the agent lasts as long as words do.

So a caller can interrupt after the third word, and silence begins where speech has ended.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Literal
from uuid import UUID

from dialog.audio.sound import Sound
from dialog.clock import Clock
from dialog.errors import NotSupportedError
from dialog.message import Alignment, Message, Playback, SentSMS, Word
from dialog.voip.bed import Layer
from dialog.voip.link import Command, CommandResult, Hangup, SendDigits, SendSMS, TransferTo
from dialog.voip.text import TextVoIP
from dialog.voip.voip import VoIP

__all__ = ["WORD_MS", "Spoken", "TextLine"]

WORD_MS = 400.0
"""How long a word sounds: 150 words a minute."""

_WHOLE_WORDS = re.compile(r".*\s", re.DOTALL)


class Spoken:
    """A part of a reply on its way to the caller's ear."""

    def __init__(self, turn: UUID, part: int) -> None:
        self.turn = turn
        self.part = part
        self.text: str = ""
        """All that the agent wants to say, as far as it is known."""
        self.words: int = 0
        """Whole words that are known."""
        self.heard_ms: float = 0.0
        self.began_at: float | None = None
        """When it began to sound, on the clock."""
        self.ended_at: float = 0.0
        self.state: Literal["waiting", "playing", "played", "cut", "lost"] = "waiting"
        self.complete: bool = False
        """No more text comes."""
        self.stop_ms: float | None = None
        """It ends here, unless it has ended before."""
        self._rest = ""

    @property
    def final(self) -> bool:
        """Nothing more of it is going to be heard."""
        return self.state in ("played", "cut", "lost")

    @property
    def heard_words(self) -> int:
        """Words that the caller has heard to their end."""
        return int(self.heard_ms / WORD_MS + 1e-6)

    @property
    def heard(self) -> str:
        """What the caller has heard of :attr:`text`."""
        if self.state == "played":
            return self.text.strip()
        return " ".join(self.text.split()[: self.heard_words])

    @property
    def length_ms(self) -> float:
        """How long its whole words sound."""
        return self.words * WORD_MS

    def add(self, text: str) -> tuple[Word, ...]:
        """More text; returns the words that it completes, with their times in the part."""
        self.text += text
        self._rest += text
        whole = _WHOLE_WORDS.match(self._rest)
        if text and whole is None:
            return ()
        size = len(self._rest) if not text or whole is None else whole.end()
        words, self._rest = self._rest[:size].split(), self._rest[size:]
        first, self.words = self.words, self.words + len(words)
        return tuple(
            Word(text=word, start_ms=number * WORD_MS, end_ms=(number + 1) * WORD_MS)
            for number, word in enumerate(words, first)
        )


class TextLine:
    """The other end of a :class:`~dialog.voip.text.TextVoIP`: see :class:`~dialog.voip.link.Link`.

    Args:
        clock: The time it plays in.
        aligned: Takes the times of words as they become known, as from a voice that tells them.
        progress: Called whenever something more was heard, or a part has come or ended.
    """

    def __init__(self, clock: Clock, aligned: Callable[[Alignment], object], progress: Callable[[], object]) -> None:
        self.voip: TextVoIP | None = None
        self.parts: list[Spoken] = []
        """All parts of the call, in the order in which they are spoken."""
        self.commands: list[Command] = []
        """What the agent asked the carrier for."""
        self._clock = clock
        self._aligned = aligned
        self._progress = progress
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        """Until when the part that plays was accounted for."""
        self._next = 0
        """The first part that is not final."""
        self._arming = False

    @property
    def quiet(self) -> bool:
        """Nothing is being said, and nothing waits to be."""
        return all(part.final for part in self.parts[self._next :])

    def begin(self, voip: TextVoIP) -> None:
        """Be the line of ``voip``; what is said before it is connected waits until then."""
        self.voip = voip
        voip.on(VoIP.STREAMING_STARTED, lambda _: self._arm())

    # What the agent says.

    def on_text(self, turn: UUID, part: int, text: str) -> None:
        """More text of a part; empty text ends it."""
        spoken = self._part(turn, part)
        words = spoken.add(text)
        if words:
            self._aligned(Alignment(uuid=turn, part=part, words=words))
            self._arm()

    def post(self, message: Message[bytes]) -> None:
        """A part begins or, with ``done``, ends."""
        spoken = self._part(message.uuid, message.part)
        if message.done:
            spoken.complete = True
        self._arm()

    def abort(self, uuid: UUID, *, part: int | None, after_ms: float | None) -> None:
        """Stop parts now, or once ``after_ms`` of them were heard."""
        self._play()
        for spoken in self.parts[self._next :]:
            if spoken.turn != uuid or part not in (None, spoken.part) or spoken.final:
                continue
            if after_ms is None or spoken.heard_ms >= after_ms:
                self._end(spoken, "cut")
            else:
                spoken.stop_ms = after_ms
        self._arm()

    def pause(self) -> None:
        """Fall silent."""
        self._play()
        self._paused = True
        self._arm()

    def resume(self, *, from_ms: float | None) -> None:
        """Go on, from ``from_ms`` of the part that was paused if it is given."""
        if not self._paused:
            return
        self._paused = False
        playing = self._playing()
        if playing is not None and from_ms is not None:
            playing.heard_ms = min(playing.heard_ms, from_ms)
        self._since = self._clock.now()
        self._arm()

    def set_bed(self, layer: Layer, sound: Sound | None, *, gain_db: float) -> None:
        """Nothing sounds behind text."""

    async def command(self, command: Command) -> CommandResult:
        """Do it, or remember it."""
        self.commands.append(command)
        if isinstance(command, Hangup):
            self._over(command.reason)
        elif isinstance(command, TransferTo):
            self._over("transferred")
        elif isinstance(command, SendSMS):
            return SentSMS(message_sid=f"text-{len(self.commands)}", status="queued", to=command.to)
        elif not isinstance(command, SendDigits):
            raise NotSupportedError(f"a text call cannot {type(command).__name__}")
        return None

    def download(self, url: str) -> AsyncIterator[bytes]:
        """There are no recordings."""
        raise NotSupportedError(f"a text call has no recordings ({url})")

    def close(self) -> None:
        """The call is over."""
        self.voip = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def lose(self) -> None:
        """The caller has hung up: what was not heard never will be."""
        self._play()
        for spoken in self.parts[self._next :]:
            if not spoken.final:
                self._end(spoken, "lost")
        self._arm()

    # How it sounds.

    def _over(self, reason: str) -> None:
        self.lose()
        if self.voip is not None:
            self.voip.close(reason)

    def _part(self, turn: UUID, part: int) -> Spoken:
        for spoken in reversed(self.parts):
            if (spoken.turn, spoken.part) == (turn, part):
                return spoken
        spoken = Spoken(turn, part)
        self.parts.append(spoken)
        return spoken

    def _playing(self) -> Spoken | None:
        """The part whose turn it is to sound."""
        while self._next < len(self.parts) and self.parts[self._next].final:
            self._next += 1
        return self.parts[self._next] if self._next < len(self.parts) else None

    def _play(self) -> None:
        """Account for the time that has passed."""
        now = self._clock.now()
        since, self._since = self._since, now
        playing = self._playing()
        if playing is not None and playing.state == "playing" and not self._paused:
            limit = playing.length_ms if playing.stop_ms is None else min(playing.stop_ms, playing.length_ms)
            playing.heard_ms = min(limit, playing.heard_ms + (now - since) * 1000.0)

    def _arm(self) -> None:
        """Begin what may begin, end what has ended, and wake up at the end of the word that sounds."""
        if self._arming:
            return  # the agent does something about what it was told: it is looked at below
        self._arming = True
        try:
            self._advance()
        finally:
            self._arming = False
        self._progress()

    def _advance(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while not self._paused and self.voip is not None and self.voip.state == "live":
            playing = self._playing()
            if playing is None or (not playing.words and not playing.complete):
                break
            if playing.state == "waiting":
                playing.state = "playing"
                playing.began_at = self._since = self._clock.now()
                if playing.words:
                    self._report(playing, "playing")
                continue  # what was told may have changed what plays
            self._play()
            if playing.stop_ms is not None and playing.heard_ms >= playing.stop_ms - 1e-6:
                self._end(playing, "cut")
            elif playing.heard_ms < playing.length_ms - 1e-6:
                word_end = (playing.heard_words + 1) * WORD_MS
                until = word_end if playing.stop_ms is None else min(word_end, playing.stop_ms)
                self._timer = self._clock.call_at(self._since + (until - playing.heard_ms) / 1000.0, self._tick)
                break
            elif playing.complete:
                self._end(playing, "played")
            else:
                break  # the voice is ahead of the text

    def _tick(self) -> None:
        self._timer = None
        self._play()
        playing = self._playing()
        if playing is not None and playing.state == "playing":
            self._report(playing, "playing")
        self._arm()

    def _end(self, spoken: Spoken, state: Literal["played", "cut", "lost"]) -> None:
        spoken.state = state
        spoken.ended_at = self._clock.now()
        self._report(spoken, state)

    def _report(self, spoken: Spoken, state: Literal["playing", "played", "cut", "lost"]) -> None:
        if self.voip is not None:
            self.voip.receive(
                VoIP.PLAYBACK,
                Playback(
                    uuid=spoken.turn,
                    part=spoken.part,
                    state=state,
                    heard_ms=spoken.heard_ms,
                    queued_ms=max(0.0, spoken.length_ms - spoken.heard_ms),
                    confirmed=True,
                ),
            )
