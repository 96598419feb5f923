"""What voices share that speak a part while its text is still coming: :class:`StreamingTTS`.

A provider speaks in contexts of its own: what it calls a context, or one conversation on a socket, or
a row of HTTP requests. A part takes one when there is a free slot, and may need several, one after
another: they die by rules of the provider, and with the connection. Here is what follows from that
(slots, order, restarts from the first unspoken word, cancelling, time-outs, exactly one ``done``);
:mod:`dialog.tts.sockets` and :mod:`dialog.tts.http` bring the two kinds of connection; a provider's
module knows its messages.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import ClassVar
from uuid import UUID

from dialog.errors import ConfigurationError, ProviderError, RemoteProtocolError, StateError, UnsupportedFormat
from dialog.message import MULAW_8K, Alignment, AudioFormat, Message
from dialog.net.contexts import Contexts, PartKey
from dialog.recent import Recent
from dialog.tts.parts import SpokenPart
from dialog.tts.tts import TTS
from dialog.usage import ReplyUsage, Usage

__all__ = ["StreamingTTS"]

_TRIES = 3
_RETRY_S = 0.25
_MUTE_PARTS = 2
"""After so many parts in a row that ended without a sound the voice has failed for good."""
_KEEP_ENDED = 256


class StreamingTTS(TTS):
    """Speaks parts through contexts of a provider.

    A subclass starts the connection (:meth:`_start`), writes text (:meth:`_write`), cancels
    (:meth:`_cancel`), and tells what came with :meth:`_audio`, :meth:`_announce`,
    :meth:`_context_done`, :meth:`_context_failed`, :meth:`_context_released`, :meth:`_admit` (a
    connection is there), :meth:`_lost` and :meth:`_failed`.

    Args:
        api_key: What the provider knows the account by.
        slots: How many contexts may be open at once.
        timeout_s: How long a part whose text is complete may go without a sign of life.
        release_s: How long a cancelled context still takes its slot if the provider says nothing.
        model: What usage is reported of; the provider's name where it has but one.

    Raises:
        ConfigurationError: No key, or no slot.
    """

    provider: ClassVar[str]
    """Name for errors."""
    refusals: ClassVar[int] = 0
    """How often a request that the provider refused for good is made again all the same."""

    def __init__(self, *, api_key: str, slots: int, timeout_s: float, release_s: float = 2.0, model: str = "") -> None:
        if not api_key:
            raise ConfigurationError(f"{type(self).__name__} needs an api_key")
        if slots < 1:
            raise ConfigurationError(f"{type(self).__name__} needs at least one parallel part, got {slots}")
        if timeout_s <= 0:
            raise ConfigurationError(f"{type(self).__name__} needs timeout_s > 0, got {timeout_s}")
        super().__init__()
        self._model = model or self.provider
        self._contexts = Contexts(slots, timeout_s=timeout_s, release_s=release_s)
        self._parts: dict[PartKey, SpokenPart] = {}
        self._ended: Recent[PartKey, None] = Recent(_KEEP_ENDED)
        self._opened = False
        self._gone = False
        """No part can be spoken any more."""
        self._format = MULAW_8K
        self._timer: asyncio.TimerHandle | None = None
        self._mute = 0
        """Parts in a row that never made a sound."""

    # The provider's half.

    @abstractmethod
    def _start(self) -> None:
        """Start connecting and return."""

    @property
    @abstractmethod
    def _connected(self) -> bool:
        """Whether what is written now reaches the provider."""

    @abstractmethod
    def _write(self, context: str, part: SpokenPart, text: str, *, first: bool) -> None:
        """Send text to a context, which with ``first`` begins; no more follows if ``part.closed``."""

    @abstractmethod
    def _cancel(self, context: str) -> None:
        """Tell the provider to stop; what it still sends for the context is dropped anyway."""

    def _expired(self, part: SpokenPart, now: float) -> bool:  # noqa: ARG002
        """Whether the part's context takes no more text by now."""
        return False

    def _unreleased(self, context: str) -> None:
        """A cancelled context was not ended by the provider in time; its slot is free all the same."""

    # What participants call.

    def open(self, audio_format: AudioFormat) -> None:
        """Start connecting and return.

        Raises:
            UnsupportedFormat: ``audio_format`` is none of :attr:`formats`.
            StateError: It is open already.
        """
        if audio_format not in self.formats:
            raise UnsupportedFormat(f"{self.provider}: {audio_format} is none of {self.formats}")
        if self._opened:
            raise StateError(f"{self.name}.open was called twice")
        self._opened = True
        self._format = audio_format
        self._loop = asyncio.get_running_loop()
        self._start()

    def post(self, message: Message[str]) -> None:
        """Queue text of a part and return; ``done`` says that no more follows for the part.

        Raises:
            StateError: Called before :meth:`open`.
        """
        if not self._opened:
            raise StateError(f"{self.name}.post was called before open")
        key = (message.uuid, message.part)
        if self._disposed or not (message.data or message.done):
            return
        part = self._parts.get(key)
        if part is None:
            if key in self._ended:
                return
            part = self._parts[key] = SpokenPart(key, message.voice)
        part.take(message.data, done=message.done)
        if self._gone or not part.speakable:
            # Nothing to say, or nobody to say it: the part ends as soon as its text does.
            if part.done and self._contexts.context(key) is None:
                self._finish(part)
                return
            if self._gone:
                return
        self._speak(part)

    def abort(self, uuid: UUID, *, part: int | None = None) -> None:
        """Stop a turn, or one part of it: nothing more is emitted for it. Unknown ones are ignored."""
        for key in [key for key in self._parts if key[0] == uuid and part in (None, key[1])]:
            self._remove(self._parts[key])
        self._admit()

    def dispose(self) -> None:
        """End for good: what is being spoken is dropped, connections are closed in the background."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for part in self._parts.values():
            if part.retry is not None:
                part.retry.cancel()
            self._report_usage(part)
        self._parts.clear()
        super().dispose()

    # Text on its way out.

    def _speak(self, part: SpokenPart) -> None:
        """Send what the part's context does not have yet; get it one if it has none."""
        context = self._contexts.context(part.key)
        if context is None:
            if part.speakable and part.retry is None:
                self._contexts.wait(part.key)
                self._admit()
            return
        if part.closed or (part.sent == len(part.text) and not part.done):
            return
        now = self._loop.time()
        if self._expired(part, now):
            # Nothing more comes from there; what it has spoken is known by the timings, if there are any.
            self._leave(part, context, now)
            self._announce(part, all_=True)
            part.restart()
            self._go_on(part)
            return
        self._send(context, part, now)

    def _send(self, context: str, part: SpokenPart, now: float) -> None:
        first = not part.sent
        part.last_text = now
        self._write(context, part, part.unsent(), first=first)
        if part.closed:
            self._contexts.expect(part.key, now)
            self._arm()

    def _leave(self, part: SpokenPart, context: str, now: float) -> None:  # noqa: ARG002
        """An expired context is used no more; the provider has ended it by itself."""
        self._contexts.finish(context)

    def _admit(self) -> None:
        """Let the parts that waited longest speak, as far as there are slots."""
        if not self._opened or self._disposed or not self._connected:
            return
        now = self._loop.time()
        for key, context in self._contexts.admit(now):
            self._send(context, self._parts[key], now)

    # What came.

    def _audio(self, part: SpokenPart, data: bytes, now: float) -> None:
        """Audio of a part came; it may end within a sample."""
        at_ms = part.audio_ms
        audio = part.audio(data, self._format, now)
        if audio:
            self._mute = 0
            uuid, number = part.key
            self.emit(TTS.MESSAGE, Message(uuid=uuid, part=number, data=audio, at_ms=at_ms))
            self._announce(part)

    def _announce(self, part: SpokenPart, *, all_: bool = False) -> None:
        """Emit the timings of words whose audio is here; the others may yet be spoken by another context."""
        words = part.spoken(all_=all_)
        if part.skewed:
            told = "tells times of words that are outside their audio; the nearest that can be are taken"
            self.fail_once(RemoteProtocolError(f"{self.provider} {told}"))
        if words and self._parts.get(part.key) is part:  # a listener may just have aborted it
            uuid, number = part.key
            self.emit(TTS.ALIGNMENT, Alignment(uuid=uuid, part=number, words=words))

    def _context_done(self, part: SpokenPart, context: str) -> None:
        """The provider has sent all of a context, and ended it."""
        self._contexts.finish(context)
        self._announce(part, all_=True)
        if part.closed:
            self._finish(part)
            return
        part.finish_context()
        self._go_on(part)
        self._admit()

    def _context_failed(self, part: SpokenPart, context: str, error: ProviderError) -> None:
        """Try again what was not spoken, as far as that is known; else the part ends here."""
        self._contexts.fail(context)
        # A refusal of the request itself may be tried once more: the context may just have expired.
        if part.tries >= (_TRIES if error.retryable else self.refusals) or part.uncertain:
            self._give_up(part, error)
            return
        self.fail(error, retryable=error.retryable)
        part.tries += 1
        part.restart()
        part.retry = self._loop.call_later(_RETRY_S * 2 ** (part.tries - 1), self._retry, part)
        self._admit()

    def _no_part(self, context: str) -> None:
        """Audio came for a context of no part: it is dropped, and wrong only where a cancelled one must be over."""
        if self._contexts.stray(context):
            told = "sends audio of a context that is over, or was cancelled long before; it is dropped"
            self.fail_once(RemoteProtocolError(f"{self.provider} {told}"))

    def _context_released(self, context: str) -> None:
        """The provider has ended a context of no part: its slot is free, if it had one."""
        self._contexts.finish(context)
        self._admit()

    def _lost(self) -> None:
        """The connection is gone, with all its contexts."""
        cut = [part for part in self._parts.values() if self._contexts.context(part.key) is not None]
        self._contexts.reset()
        for part in cut:
            part.tries += 1
            if part.tries > _TRIES or (part.uncertain and part.closed):
                reason = "no timings tell how much" if part.uncertain else f"the connection broke {part.tries} times"
                missing = f"lost the end of part {part.key[1]} of turn {part.key[0]}, and {reason}"
                self._give_up(part, ProviderError(self.provider, missing, retryable=True))
                continue
            part.restart()
            if not part.speakable:
                self._contexts.cancel(part.key, self._loop.time())  # nothing to wait for
                self._go_on(part)

    def _failed(self, error: ProviderError) -> None:
        """There will be no connection any more: every part ends."""
        self._gone = True
        self.fail(error, fatal=True, retryable=error.retryable)
        for part in tuple(self._parts.values()):
            part.forgive()
            self._finish(part)

    # How parts go on and end.

    def _retry(self, part: SpokenPart) -> None:
        part.retry = None
        self._go_on(part)

    def _go_on(self, part: SpokenPart) -> None:
        """The part has no context: get it one for the rest of its text, or end it."""
        if self._parts.get(part.key) is not part:
            return
        if part.speakable:
            self._contexts.wait(part.key)
            self._admit()
        elif part.done:
            self._finish(part)

    def _give_up(self, part: SpokenPart, error: ProviderError) -> None:
        """End a part in an error. A voice that says nothing would leave the caller in silence turn after turn."""
        if not part.voice:  # else it may be the name that is wrong
            self._mute = self._mute + 1 if not part.audio_ms else 0
        part.forgive()
        gone = self._mute >= _MUTE_PARTS
        self.fail(error, fatal=gone, retryable=error.retryable and not gone)
        self._finish(part)

    def _finish(self, part: SpokenPart) -> None:
        """End a part as every part ends: with one ``done``."""
        if self._remove(part):
            uuid, number = part.key
            self.emit(TTS.MESSAGE, Message(uuid=uuid, part=number, data=b"", at_ms=part.audio_ms, done=True))
            self._admit()

    def _remove(self, part: SpokenPart) -> bool:
        if self._parts.pop(part.key, None) is None:
            return False
        if part.retry is not None:
            part.retry.cancel()
        context = self._contexts.cancel(part.key, self._loop.time())
        if context is not None:
            self._cancel(context)
            self._arm()
        self._report_usage(part)
        self._contexts.forget(part.key)
        self._ended[part.key] = None
        return True

    def _report_usage(self, part: SpokenPart) -> None:
        """Services bill the characters that they are given to speak, also those that nobody hears."""
        if part.characters or part.audio_ms:
            made_s = round(part.audio_ms / 1000.0, 3)
            usage = Usage(model=self._model, characters=part.characters, output_audio_s=made_s)
            self.emit(TTS.USAGE, ReplyUsage(usage=usage, uuid=part.key[0]))

    def _arm(self) -> None:
        deadline = self._contexts.deadline
        if deadline is None or (self._timer is not None and self._timer.when() <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        for context in self._contexts.release(now):
            self._unreleased(context)
        for key in self._contexts.expire(now):
            silent = f"no sign of life of part {key[1]} of turn {key[0]} for {self._contexts.timeout_s:g} s"
            self._give_up(self._parts[key], ProviderError(self.provider, silent, retryable=True))
        self._admit()
        self._arm()
