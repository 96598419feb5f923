"""What a turn says: its parts in program order, each on its way from text to the caller's ear."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from dialog.agent.heard import HeardMap, SpeechRate
from dialog.agent.shaping import Piece, Shaper
from dialog.agent.turns.settings import BargeIn, Endpointing
from dialog.audio.convert import Converter
from dialog.errors import StateError
from dialog.message import Message, Playback

__all__ = [
    "Heard",
    "Part",
    "PartOptions",
    "Speech",
    "SpeechQueue",
    "inside_speech",
    "outside_speech",
    "speech_of_its_own",
]

_LONG_SENTENCE = 1000
"""A sentence of more characters is not one: it is held where it is."""
_WORD_MS = 250.0
"""Who has heard less of a speech whose words are not known has heard no word."""
_LITTLE_MS = 3000.0
"""A voice that is given its next sentence when so much audio is left has it ready in time."""


_inside: ContextVar[tuple[Part, ...]] = ContextVar("dialog_inside_speech", default=())
"""Parts whose text the running code makes, or which wait for it: it is a tool that their stream has called."""


class Heard(Struct, frozen=True):
    """How a stretch of speech ended."""

    text: str
    """What the caller heard of it."""
    complete: bool
    why: Literal["played", "interrupted", "hung_up", "failed"]

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Heard {len(self.text)} chars, {self.why}>"


class Speech:
    """Something that was handed over to be said. ``await`` it to learn what of it was heard.

    Waiting for it raises :class:`asyncio.CancelledError` when its turn is dropped before anything of
    it was heard, and :class:`StateError` inside the stream that makes it, or that is spoken before it,
    and in the tools of that stream: it would wait for itself. Nobody has to wait.
    """

    def __init__(self) -> None:
        self._heard: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()
        self._text: list[str] = []
        self._behind = _inside.get()
        """Parts that sound before it, for it was made inside them."""

    @classmethod
    def dropped(cls, text: str) -> Speech:
        """Speech of a turn that was cancelled: it is never said."""
        speech = cls()
        speech._text.append(text)
        speech._resolve(None)
        return speech

    @classmethod
    def lost(cls, text: str) -> Speech:
        """Speech for a call that has ended: it is never heard."""
        speech = cls()
        speech._text.append(text)
        speech._resolve(Heard("", complete=False, why="hung_up"))
        return speech

    @property
    def text(self) -> str:
        """All that is to be said, as far as it is known."""
        return "".join(self._text)

    @property
    def heard(self) -> Heard | None:
        """What was heard, once it is certain."""
        if not self._heard.done() or self._heard.cancelled():
            return None
        return self._heard.result()

    def done(self) -> bool:
        """Whether it was heard, cut, lost or dropped."""
        return self._heard.done()

    async def settled(self) -> Heard | None:
        """Wait for it without an exception: what was heard, or ``None`` if it was dropped."""
        if not self._heard.done():
            await asyncio.wait((self._heard,))
        return self.heard

    def __await__(self) -> Generator[Any, None, Heard]:
        if not self._heard.done() and any(
            not part.sealed and (part.speech is self or part in self._behind) for part in _inside.get()
        ):
            raise StateError(
                "this speech would wait for itself: it ends only when the code that awaits it has returned; "
                "await what was dispatched before it, or do this after the reply"
            )
        # A waiter that is cancelled must not cancel the speech for the others.
        return asyncio.shield(self._heard).__await__()

    def _resolve(self, heard: Heard | None) -> None:
        if self._heard.done():
            return
        if heard is None:
            self._heard.cancel()
        else:
            self._heard.set_result(heard)


def inside_speech(part: Part) -> None:
    """From here on the running task, and what it starts, makes the text of ``part``."""
    _inside.set((*_inside.get(), part))


@contextmanager
def speech_of_its_own() -> Generator[None]:
    """In this block no speech waits for the running task."""
    token = _inside.set(())
    try:
        yield
    finally:
        _inside.reset(token)


def outside_speech() -> None:
    """From here on no speech waits for the running task."""
    _inside.set(())


class PartOptions(Struct, frozen=True, kw_only=True):
    """How a part is said, and how the caller is listened to meanwhile and after it."""

    allow_interrupt: bool = True
    barge_in: BargeIn | None = None
    """How the caller may cut it short; ``None``: as the settings say."""
    endpointing: Endpointing | None = None
    """How the end of the answer to it is told; ``None``: as the settings say."""
    mute_caller: bool = False
    """The caller is not listened to while it sounds."""
    filler: bool = False
    """It bridges a wait: it is in the transcript, not in history."""
    voice: str = ""
    """Who speaks it, as the TTS names its voices; empty: who speaks the turn."""
    model: bool = False
    """A model speaks it by itself: it comes as audio, and its text is what was said."""
    paraphrase: bool = False
    """Where no voice says it as it is written, a model that speaks may say it in its own words."""
    repeats: int = 0
    """So many characters of its text were heard before, in another part: history has them there."""


class Part:
    """One stretch of speech of a turn."""

    __slots__ = (
        "_text",
        "audio_done",
        "audio_ms",
        "captioned",
        "chars",
        "converter",
        "heard_map",
        "number",
        "options",
        "pending",
        "playback",
        "posted_chars",
        "posted_done",
        "recording",
        "sealed",
        "shaper",
        "sounds",
        "speech",
        "spent",
        "stop_at_ms",
        "truncated",
    )

    def __init__(
        self, number: int, shaper: Shaper, rate: SpeechRate, options: PartOptions, *, sounds: bool = True
    ) -> None:
        self.number: int = number
        self.sounds: bool = sounds
        """It is heard, not read."""
        self.options: PartOptions = options
        self.speech: Speech = Speech()
        self.shaper: Shaper = shaper
        self.pending: deque[Piece] = deque()
        """Pieces that the voice was not given yet."""
        self.heard_map: HeardMap = HeardMap(rate)
        self.sealed: bool = False
        """No more text comes."""
        self.captioned: int = 0
        """So many characters of its text were told while it sounds."""
        self.chars: int = 0
        """Characters of its text so far …"""
        self.spent: int = 0
        """… and up to where the voice was given them, or they are not spoken."""
        self.posted_chars: int = 0
        """Characters that the voice was given."""
        self.posted_done: bool = False
        self.audio_ms: float = 0.0
        self.audio_done: bool = False
        self.playback: Playback | None = None
        """The newest report of the line."""
        self.converter: Converter | None = None
        self.stop_at_ms: float | None = None
        """It is to end here, in milliseconds of its audio."""
        self.recording: bytearray | None = None
        """Audio in the line's format that is played instead of a voice's, as far as the line does not have it yet."""
        self.truncated: bool = False
        """There is text of it, or was to be, that the voice never says."""

    @property
    def allow_interrupt(self) -> bool:
        """Whether the caller may cut it short."""
        return self.options.allow_interrupt

    @property
    def final(self) -> bool:
        """Nothing more is going to be heard of it."""
        return self.playback is not None and self.playback.final

    @property
    def heard_whole(self) -> bool:
        """It was heard to its end. A voice that failed ends a part, too, and then nothing of it sounded."""
        if self.playback is None or self.playback.state != "played" or self.truncated:
            return False
        return self.audio_ms > 0 or not self.sounds or not self.speech.text.strip()

    @property
    def heard_ms(self) -> float:
        """Milliseconds of it that were heard."""
        return self.playback.heard_ms if self.playback else 0.0

    def ahead_ms(self, chars_per_s: float) -> float:
        """How much of it waits to be heard: audio, and text that will become audio at about this rate.

        Once little audio is left the rate is not asked: it may be wrong, and the line must not run dry.
        """
        if self.final:
            return 0.0
        waiting = self.audio_ms - self.heard_ms
        if self.audio_done or (self.audio_ms and waiting < _LITTLE_MS):
            return waiting
        return max(waiting, self.posted_chars * 1000.0 / chars_per_s - self.heard_ms)

    @property
    def was_heard(self) -> bool:
        """Some word of it was heard; of a model's own speech the words may come long after."""
        return bool(self.heard_text()) or (self.options.model and self.heard_ms >= _WORD_MS)

    def heard_text(self) -> str:
        """The words of it that were heard."""
        if self.heard_whole:
            return self.speech.text
        text = self.speech.text
        end = self.heard_map.heard(self.heard_ms, self.audio_ms if self.audio_done else None, text)
        return text[:end].rstrip()

    def add(self, text: str) -> None:
        """More text of this part."""
        self.speech._text.append(text)
        self.chars += len(text)
        self.pending.extend(self.shaper.feed(text))

    def seal(self) -> None:
        """No more text comes."""
        if not self.sealed:
            self.sealed = True
            self.pending.extend(self.shaper.flush())


_PLAIN = PartOptions()


class SpeechQueue:
    """The parts of one turn. Program order is spoken order.

    Text goes to the voice as it comes, while :meth:`pump` finds the gate open; the gate is only asked
    where a sentence has ended, so that a reply is never held in the middle of one.
    """

    __slots__ = (
        "_gate",
        "_new_part",
        "_next",
        "_open",
        "_opened",
        "_play",
        "_post",
        "_prepared",
        "_pumping",
        "_room",
        "_room_below",
        "_sentence",
        "_tell",
        "_untold",
        "backlog",
        "closed",
        "first",
        "granted",
        "on_text",
        "parts",
        "turn",
        "voice",
    )

    def __init__(
        self,
        turn: UUID,
        *,
        new_part: Callable[[int, PartOptions], Part],
        opened: Callable[[Part], None],
        tell: Callable[[Part], None],
        post: Callable[[Message[str]], None],
        play: Callable[[Part], bool],
        gate: Callable[[], bool],
        first: int = 0,
    ) -> None:
        """``first`` is the number of the first part; ``play`` tells whether the line has all of a recording."""
        self.turn = turn
        self.first: int = first
        self.parts: list[Part] = []
        self.granted: bool = False
        """The turn has the floor: what it says may sound."""
        self.closed = False
        """The turn was cut or dropped: no more text is taken."""
        self.voice: str = ""
        """Who speaks the parts that begin from now on, as far as they do not say; empty: the TTS's own voice."""
        self.on_text: Callable[[], None] | None = None
        """Called once, when the voice is given the first text that is no filler."""
        self._new_part = new_part
        self._opened = opened
        self._tell = tell
        self._untold: deque[Part] = deque()
        self._post = post
        self._play = play
        self._gate = gate
        self._open: Part | None = None
        self._prepared: Part | None = None
        """Made ahead."""
        self._next = 0
        """The first part whose text is not wholly posted."""
        self._sentence = 0
        """Characters of the sentence that the voice is being given."""
        self._pumping = False
        self.backlog: int = 0
        """Characters that wait for the voice."""
        self._room: asyncio.Future[None] | None = None
        self._room_below = 0

    def write(self, text: str) -> None:
        """Say ``text`` in the open part, which begins now if there is none."""
        if not text or self.closed:
            return
        if self._open is None:
            # The caller waits for the voice, and it for the text: everybody else learns of the part after it.
            self._open = self._open_part(_PLAIN)
            try:
                self.write_to(self._open, text)
            finally:
                self.tell()
        else:
            self.write_to(self._open, text)

    def prepare(self) -> None:
        """Make the part for the first text, while there is none yet: then nobody waits for it."""
        if not self.closed and not self.parts:
            self._prepared = self._new_part(self.first, _PLAIN)

    def unprepare(self) -> None:
        """What was made ahead does not fit any more."""
        self._prepared = None

    def seal(self) -> None:
        """End the open part."""
        if self._open is not None:
            part, self._open = self._open, None
            self.seal_part(part)

    def open_part(self, options: PartOptions) -> Part:
        """Begin a part after all others.

        Raises:
            StateError: The turn was cut or dropped already.
        """
        if self.closed:
            raise StateError(f"turn {self.turn} is over: it cannot say more")
        part = self._open_part(options)
        self.tell()
        return part

    def tell(self) -> None:
        """Tell of the parts that nobody was told of, which must happen before any audio of theirs."""
        while self._untold:
            self._tell(self._untold.popleft())

    def _open_part(self, options: PartOptions) -> Part:
        if self.voice and not options.voice:
            options = replace(options, voice=self.voice)
        number, prepared = self.first + len(self.parts), self._prepared
        self._prepared = None
        if prepared is not None and prepared.number == number and options is _PLAIN:
            part = prepared
        else:
            part = self._new_part(number, options)
        self.parts.append(part)
        if self.granted:
            self._begin(part)
        return part

    def _begin(self, part: Part) -> None:
        self._opened(part)
        self._untold.append(part)

    def write_to(self, part: Part, text: str) -> None:
        """Add text to a part of this turn that is not sealed."""
        if text and not part.sealed:
            self.backlog += len(text)
            part.add(text)
            self.pump()

    def seal_part(self, part: Part) -> None:
        """End a part."""
        if not part.sealed:
            part.seal()
            self.pump()

    def grant(self) -> None:
        """The turn has the floor."""
        if not self.granted:
            self.granted = True
            for part in self.parts:
                self._begin(part)
            self.tell()
            self.pump()

    @property
    def open_number(self) -> int:
        """The number of the part that the next :meth:`write` goes into."""
        return self._open.number if self._open is not None else self.first + len(self.parts)

    async def room(self, below: int) -> None:
        """Wait until fewer than ``below`` characters wait for the voice."""
        while self.backlog >= below:
            if self._room is None or self._room.done():
                self._room = asyncio.get_running_loop().create_future()
            self._room_below = below
            await asyncio.shield(self._room)

    def _spend(self, part: Part, until: int) -> None:
        """The text of a part up to ``until`` waits no more."""
        self.backlog -= until - part.spent
        part.spent = until
        if self._room is not None and not self._room.done() and self.backlog < self._room_below:
            self._room.set_result(None)

    def pump(self) -> None:
        """Give the voice what it may have now."""
        if not self.granted or self._pumping or self._next >= len(self.parts):
            return  # a voice that answers at once may bring us here again
        self._pumping = True
        try:
            while self._next < len(self.parts) and self._pump(self.parts[self._next]):
                continue
        finally:
            self._pumping = False

    def _pump(self, part: Part) -> bool:
        """Give the voice what it may have of a part; whether that was all."""
        own, voice = part.options.model, part.options.voice
        while part.pending:
            if not own and not 0 < self._sentence < _LONG_SENTENCE and not self._gate():
                return False
            piece = part.pending.popleft()
            part.heard_map.post(piece)
            part.posted_chars += len(piece.spoken)
            self._spend(part, piece.end)
            self._sentence = 0 if piece.ends_sentence else self._sentence + len(piece.spoken)
            if self.on_text is not None and not part.options.filler:
                on_text, self.on_text = self.on_text, None
                on_text()
            if not own:
                self._post(Message(uuid=self.turn, part=part.number, data=piece.spoken, voice=voice))
        if (part.recording is not None and not self._play(part)) or not part.sealed:
            return False
        self._spend(part, part.chars)  # the last of it may not be spoken at all
        self._next += 1
        self._sentence = 0
        if not part.posted_done:
            part.posted_done = True
            if not own:
                self._post(Message(uuid=self.turn, part=part.number, data="", done=True, voice=voice))
        return True

    def silence(self, part: Part) -> None:
        """Take no more text for a part and forget what the voice was not given."""
        self._forget_pending(part)
        part.posted_done = True

    def finish(self, part: Part) -> None:
        """Take no more text for a part, but let the voice say what it was given; to be pumped."""
        part.truncated = part.truncated or bool(part.pending) or not part.sealed
        self._forget_pending(part)

    @property
    def quiet(self) -> bool:
        """Nothing of it sounds, or is about to."""
        return all(part.final for part in self.parts)

    def _forget_pending(self, part: Part) -> None:
        part.sealed = True
        self._spend(part, part.chars)
        part.pending.clear()
        if part.recording is not None:
            part.recording.clear()
        if self._open is part:
            self._open = None
