"""What a script says: text, files and audio, one after the other, and what of it was heard."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from dialog.agent.recorded import Recorded
from dialog.agent.scripts.marks import Mark, Marks
from dialog.agent.scripts.waiting import Waiting, within
from dialog.agent.speech import Heard, PartOptions, Speech
from dialog.agent.turns.settings import BargeIn
from dialog.audio.convert import Converter
from dialog.audio.sound import Sound
from dialog.audio.wav import StrPath, read_wav
from dialog.errors import CallHungUp, LimitError
from dialog.message import AudioFormat
from dialog.participant import Participant
from dialog.voip.voip import VoIP

if TYPE_CHECKING:
    from dialog.agent.conversation import Conversation

__all__ = ["SayResult", "Speaking"]

_MAX_AHEAD_MS = 60_000.0
"""Posted audio that may wait to be played."""
_STOP_POLL_S = 0.02
"""A thread's event cannot be waited for on a loop: it is looked at so often."""
_LINE_TELLS_S = 0.1
"""A line that was cut off tells within this why."""


class SayResult(NamedTuple):
    """What became of something that was said."""

    last_spoken: str
    """What the caller heard of it."""
    interrupted: bool
    """The caller spoke over it or pressed a key, or it was stopped."""
    disconnected: bool
    """The line was taken away while it was said: this side ended the call, or the stream broke. What was not heard
    is said when the stream is back."""


class Speaking:
    """The side of a script's call that speaks."""

    def __init__(self, agent: Participant, conversation: Conversation) -> None:
        self._agent = agent
        self._conversation = conversation
        self._engine = conversation.engine
        self._voip = conversation.voip
        self._clock = conversation.voip.clock
        self._loop = asyncio.get_running_loop()
        self._waiting = Waiting(agent, conversation)
        self._said: list[Speech] = []
        """What is on its way to the caller, in its order."""
        self._audio: Recorded | None = None
        """What :meth:`post_audio` adds to."""
        self._marks = Marks()
        self._ours = False
        """This side has ended the call."""

    async def say(
        self,
        text: str,
        *,
        allow_interrupt: bool = True,
        barge_in: BargeIn | None = None,
        voice: str = "",
        stop: asyncio.Event | threading.Event | None = None,
    ) -> SayResult:
        """Say ``text`` and wait until it was heard, or cut short.

        Args:
            text: What to say.
            allow_interrupt: The caller may cut it short, by speaking or with a key.
            barge_in: What the caller's voice does to it, if not what the settings say.
            voice: Who says it, as the TTS names its voices.
            stop: Cuts it short when it is set, whether or not the caller may.

        Raises:
            CallHungUp: The call has ended; ``last_spoken`` has what was heard.
            CallNotAnswered: It has ended, and nobody had answered it.
            SpeechFailed: The voice could not say it.
        """
        options = PartOptions(allow_interrupt=allow_interrupt, barge_in=barge_in, voice=voice)
        while True:
            await self._line_up()
            result = await self._spoken(self._begin(text, options), stop)
            if result is not None:
                return result

    async def play(
        self,
        sound: StrPath | Sound,
        *,
        text: str = "",
        allow_interrupt: bool = True,
        barge_in: BargeIn | None = None,
        stop: asyncio.Event | threading.Event | None = None,
    ) -> SayResult:
        """Play a WAV file, or a :class:`~dialog.audio.sound.Sound` once, and wait for it as :meth:`say` does.

        Args:
            sound: 16-bit PCM, mu-law or A-law; of any length, converted to the call's format.
            text: The words in it: for transcript and history, and for ``last_spoken``.
            allow_interrupt: See :meth:`say`.
            barge_in: See :meth:`say`.
            stop: See :meth:`say`.

        Raises:
            CallHungUp: See :meth:`say`.
            OSError: The file cannot be read.
            UnsupportedFormat: It holds something else, or its rate cannot be converted.
            MissingExtra: It has another rate than the call, and numpy is not installed.
        """
        data = await asyncio.to_thread(_audio_for, sound, self._voip)
        options = PartOptions(allow_interrupt=allow_interrupt, barge_in=barge_in)
        while True:
            await self._line_up()
            recorded = self._record_part(options, text)
            recorded.write(data)
            recorded.end()
            result = await self._spoken(recorded.speech, stop)
            if result is not None:
                return result

    def post_text(self, text: str, *, allow_interrupt: bool = True, barge_in: BargeIn | None = None) -> None:
        """Say ``text`` after what is being said, and return at once; :meth:`wait_played` waits for it."""
        options = PartOptions(allow_interrupt=allow_interrupt, barge_in=barge_in)
        self._on_loop(partial(self._begin_unless_over, text, options))

    def post_audio(self, audio: bytes) -> None:
        """Play ``audio`` after what is being said, and return at once; the next piece goes on where it ends.

        Args:
            audio: Whole samples in the call's own format, ``call.voip.audio_format``.

        Raises:
            LimitError: More than a minute waits to be played.
            ValueError: It ends in the middle of a sample.
        """
        if len(audio) % self._voip.audio_format.sample_bytes:
            raise ValueError(f"{len(audio)} bytes end in the middle of a sample")
        recorded = self._audio
        if recorded is not None and self._voip.audio_format.ms(recorded.waiting + len(audio)) > _MAX_AHEAD_MS:
            raise LimitError(f"more than {_MAX_AHEAD_MS / 1000:g} s of posted audio wait to be played")
        self._on_loop(partial(self._add_audio, audio))

    async def wait_played(self, timeout_s: float | None = None) -> bool:
        """Wait until all that was posted and said was heard; ``False``: some of it never was.

        Raises:
            CallHungUp: The call has ended.
            SpeechFailed: The voice could not say some of it.
            Timeout: It takes longer than ``timeout_s``.
        """
        self._end_audio()
        waiting = list(self._said)
        async with within(self._clock.real(timeout_s) if timeout_s is not None else None, "all to be heard"):
            heard = [await self._waiting.run(speech.settled(), speaking=True) for speech in waiting]
        if any(each is not None and each.why == "failed" for each in heard):
            raise self._waiting.speech_failed()
        return all(each is not None and each.complete for each in heard)

    def mark(self, name: str) -> Mark:
        """Remember this point: the end of all that was posted and said so far."""
        mark = Mark(name)
        self._on_loop(partial(self._set_mark, mark))
        return mark

    async def wait_mark(self, mark: str | Mark, timeout_s: float | None = None) -> bool:
        """Wait until all before ``mark`` was really heard; ``False``: it was cut short.

        A name means the newest mark that has it now: another mark of that name never ends this wait.

        Raises:
            StateError: There is no mark of that name.
            CallHungUp: The call has ended.
            SpeechFailed: The voice is gone.
            Timeout: It takes longer than ``timeout_s``.
        """
        found = self._marks.find(mark) if isinstance(mark, str) else mark
        if found.played is not None:
            return found.played
        limit = self._clock.real(timeout_s) if timeout_s is not None else None
        async with within(limit, f"the mark {found.name!r}"):
            return await self._waiting.run(found.settled(), speaking=True)

    def request_clear(self) -> None:
        """Say no more of what is being said and waits to be, as far as it may be interrupted; without waiting."""
        self._on_loop(self._engine.abort)

    # -- inside -----------------------------------------------------------------------------------

    async def _line_up(self) -> None:
        """Wait until there is a line, which goes on first with what it lost; before the first one there is no need."""
        await self._waiting.until(lambda: self._voip.state not in ("lost", "moving"))

    def _begin(self, text: str, options: PartOptions) -> Speech:
        """Queue ``text``, after posted audio."""
        self._end_audio()
        self._waiting.check(speaking=True)
        self._conversation.acted()  # what the script has learnt so far is kept before it goes on
        return self._keep(self._engine.dispatch_message(text, options))

    def _begin_unless_over(self, text: str, options: PartOptions) -> None:
        if not self._waiting.over:
            self._end_audio()
            self._keep(self._engine.dispatch_message(text, options))

    def _keep(self, speech: Speech) -> Speech:
        self._said = [each for each in self._said if not each.done()]
        self._said.append(speech)
        return speech

    def _record_part(self, options: PartOptions, text: str = "") -> Recorded:
        self._end_audio()
        self._waiting.check()
        recorded = self._engine.dispatch_audio(options, text)
        if recorded is None:
            self._waiting.check()
            raise self._waiting.not_active()
        self._keep(recorded.speech)
        return recorded

    def _add_audio(self, audio: bytes) -> None:
        if self._waiting.over:
            return
        if self._audio is None or not self._audio.open:
            self._audio = None
            self._audio = self._record_part(PartOptions())
        self._audio.write(audio)

    def _end_audio(self) -> None:
        if self._audio is not None:
            audio, self._audio = self._audio, None
            audio.end()

    async def _spoken(self, speech: Speech, stop: asyncio.Event | threading.Event | None) -> SayResult | None:
        """Wait for ``speech``; ``None``: the line took it away before it was said, and it has to be said again."""
        watch = None if stop is None else asyncio.ensure_future(self._watch(stop, speech))
        try:
            heard = await self._heard_of(speech)
        except asyncio.CancelledError:
            self._engine.stop_speech(speech)  # whoever wanted it said is gone
            raise
        finally:
            if watch is not None:
                watch.cancel()
                await asyncio.wait((watch,))
        stopped = watch is not None and not watch.cancelled() and watch.result()
        if heard is None:
            cleared = stopped or self._voip.state == "live"
            return SayResult("", interrupted=True, disconnected=False) if cleared else None
        if heard.why == "hung_up":
            await self._settle_line()
            if self._voip.end is not None and not self._ours:
                raise self._waiting.hung_up(self._voip.end, heard.text)
            return SayResult(heard.text, interrupted=False, disconnected=True)
        if heard.why == "failed" and not stopped:
            raise self._waiting.speech_failed()
        return SayResult(heard.text, interrupted=stopped or not heard.complete, disconnected=False)

    async def _heard_of(self, speech: Speech) -> Heard | None:
        try:
            return await self._waiting.run(speech.settled(), speaking=True)
        except CallHungUp:
            end = self._voip.end
            await asyncio.sleep(0)  # what the line tells of the part comes with the end
            heard = speech.heard
            if end is None or (heard is not None and heard.why == "played"):
                raise
            if self._ours:
                return Heard("" if heard is None else heard.text, complete=False, why="hung_up")
            raise self._waiting.hung_up(end, "" if heard is None else heard.text) from None

    async def _watch(self, stop: asyncio.Event | threading.Event, speech: Speech) -> bool:
        """Cut ``speech`` short once ``stop`` is set; whether that was done."""
        if isinstance(stop, asyncio.Event):
            await stop.wait()
        else:
            while not stop.is_set():  # noqa: ASYNC110  # it belongs to threads
                await asyncio.sleep(_STOP_POLL_S)
        if speech.done():
            return False
        self._engine.stop_speech(speech)
        return True

    async def _settle_line(self) -> None:
        """A line that was cut off: wait until it is known whether that was the end of the call."""
        until = self._clock.now() + _LINE_TELLS_S
        await self._waiting.until(
            lambda: self._voip.end is not None or self._voip.state in ("lost", "moving"), lambda: until
        )

    def _set_mark(self, mark: Mark) -> None:
        self._marks.add(mark)
        if self._waiting.over:
            mark.settle(played=False)
            return
        if self._agent.spawn(self._marks.follow(mark, self._reached()), f"mark {mark.name}") is None:
            mark.settle(played=False)

    def _reached(self) -> Coroutine[Any, Any, bool]:
        """Waits until all that was posted and said so far was heard; whether it was."""
        audio, said = self._audio, [speech for speech in self._said if not speech.done()]
        ms = 0.0
        if audio is not None and audio.open:
            said = [speech for speech in said if speech is not audio.speech]
            ms = audio.handed_ms + self._voip.audio_format.ms(audio.waiting)

        async def reached() -> bool:
            heard = [await speech.settled() for speech in said]
            played = all(each is not None and each.complete for each in heard)
            if ms and audio is not None:
                playback = await self._voip.wait_played(*audio.key, ms=ms)
                played = played and playback.heard_ms >= ms - 1.0
            return played

        return reached()

    def _on_loop(self, work: Callable[[], object]) -> None:
        """Do ``work`` on the call's loop: now, if this is its thread."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            work()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(work)


def _audio_for(sound: StrPath | Sound, voip: VoIP) -> bytes:
    if isinstance(sound, Sound):
        return sound.fitted(voip.audio_format).data
    pcm, sample_rate = read_wav(sound)
    source = AudioFormat("s16le", sample_rate)
    if source == voip.audio_format:
        return pcm
    convert = Converter(source, voip.audio_format)
    return convert.process(pcm) + convert.flush()
