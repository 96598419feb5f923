"""Two recognisers on one call: the first drives it, the second is only compared with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, ClassVar

from msgspec import Struct

from dialog.audio.convert import Converter, negotiate
from dialog.errors import DialogError, UserCodeError
from dialog.message import AudioFormat, Failure, Message, Utterance
from dialog.participant import Event, Participant
from dialog.stt.stt import STT
from dialog.usage import ReplyUsage, Usage

__all__ = ["Comparison", "TeeSTT"]

logger = logging.getLogger(__name__)

_PASSED_ON: tuple[Event[Any], ...] = (
    STT.MESSAGE,
    STT.INTERIM,
    STT.VAD,
    STT.EAGER,
    STT.EAGER_WITHDRAWN,
    STT.USAGE,
    Participant.ERROR,
)


class Comparison(Struct, frozen=True, kw_only=True):
    """What the secondary recogniser has to tell: an utterance, that it failed, or what it used."""

    source: str
    """Its name."""
    utterance: Utterance | None = None
    """What it heard. Its times are on the same clock as the primary's; its uuid is its own."""
    failure: Failure | None = None
    """What went wrong; if it is fatal, nothing more comes from there but what it used."""
    usage: Usage | None = None
    """What it used since the last time; it is not among what the call used."""


class TeeSTT(STT):
    """Lets a second recogniser hear the same call, for comparison.

    To whoever listens it is the primary: the same events, the same errors. The secondary gets the same
    audio in a format of its own, and what it hears comes as :attr:`COMPARISON`. Whatever goes wrong
    with it goes wrong there: it is let go, and the call does not notice.

    ::

        stt = TeeSTT(DeepgramSTT(api_key=…), other)
        stt.on(TeeSTT.COMPARISON, compared.append)

    Args:
        primary: The recogniser that drives the call.
        secondary: The one that is tried. Both belong to the tee, which disposes of them.
    """

    COMPARISON: ClassVar[Event[Comparison]] = Event("comparison")
    """The secondary heard an utterance, or failed."""

    def __init__(self, primary: STT, secondary: STT) -> None:
        super().__init__()
        self._primary = primary
        self._secondary: STT | None = secondary
        self._disposing: STT = secondary
        self._convert: Converter | None = None
        # It can do what its primary can.
        self.formats = primary.formats  # type: ignore[misc]
        self.capabilities = primary.capabilities  # type: ignore[misc]
        for event in _PASSED_ON:
            primary.on(event, partial(self.emit, event))
        self._try(self._listen, secondary)

    @property
    def identity(self) -> Hashable:
        """See :attr:`Renewable.identity`: that of the primary."""
        return self._primary.identity

    def open(self, audio_format: AudioFormat) -> None:
        """Start connecting both and return; raises what the primary raises."""
        self._primary.manual_turns = self.manual_turns
        self._primary.own_speech = self.own_speech
        self._primary.open(audio_format)
        self._try(self._open_secondary, audio_format)

    def post(self, message: Message[bytes]) -> None:
        """Queue caller audio for both and return; raises what the primary raises."""
        self._primary.post(message)
        if self._convert is not None:
            self._try(self._post_secondary, message)

    def finalize(self) -> None:
        """Ask the primary for what was said so far. The secondary ends its utterances by itself."""
        self._primary.finalize()

    def discard(self, before_ms: float) -> None:
        """Let both forget what was said before ``before_ms`` on the call's audio clock."""
        self._primary.discard(before_ms)
        if self._secondary is not None:
            self._try(self._secondary.discard, before_ms)

    def dispose(self) -> None:
        """End both for good."""
        self._let_go()
        try:
            self._primary.dispose()  # it tells what it used
        finally:
            super().dispose()

    async def wait_disposed(self, timeout_s: float = 2.0) -> None:
        """Wait, at most ``timeout_s``, until both have ended."""
        await asyncio.gather(
            super().wait_disposed(timeout_s),
            self._primary.wait_disposed(timeout_s),
            self._secondary_disposed(timeout_s),
        )

    # -- the secondary, whose failures are nobody's ------------------------------------------------

    def _listen(self, secondary: STT) -> None:
        secondary.on(STT.MESSAGE, self._heard)
        secondary.on(Participant.ERROR, self._on_failure)
        secondary.on(STT.USAGE, self._on_usage)

    def _open_secondary(self, audio_format: AudioFormat) -> None:
        if self._secondary is not None:
            own = negotiate(audio_format, self._secondary.formats)
            self._secondary.own_speech = self.own_speech
            self._secondary.open(own)
            self._convert = Converter(audio_format, own)

    def _post_secondary(self, message: Message[bytes]) -> None:
        convert = self._convert
        if convert is None or self._secondary is None:
            return
        if not convert.identity:
            data = convert.process(message.data)
            message = Message(uuid=message.uuid, data=data, part=message.part, at_ms=message.at_ms, done=message.done)
        self._secondary.post(message)

    def _try(self, call: Callable[..., object], *arguments: Any) -> None:
        try:
            call(*arguments)
        except (Exception, asyncio.CancelledError) as exc:  # a guest: nothing of it may reach the call
            error = exc if isinstance(exc, DialogError) else UserCodeError(f"{_name(self._disposing)} raised {exc!r}")
            if error is not exc:
                error.__cause__ = exc
            self._gave_up(Failure(source=_name(self._disposing), error=error, fatal=True))

    def _heard(self, utterance: Utterance) -> None:
        if self._secondary is not None:
            self.emit(TeeSTT.COMPARISON, Comparison(source=_name(self._secondary), utterance=utterance))

    def _on_failure(self, failure: Failure) -> None:
        if failure.fatal:
            self._gave_up(failure)
        elif self._secondary is not None:
            self.emit(TeeSTT.COMPARISON, Comparison(source=failure.source, failure=failure))

    def _on_usage(self, used: ReplyUsage) -> None:
        self.emit(TeeSTT.COMPARISON, Comparison(source=_name(self._disposing), usage=used.usage))

    def _gave_up(self, failure: Failure) -> None:
        """Once: whatever it does afterwards, nobody listens."""
        if self._secondary is None:
            return
        self._let_go()
        logger.warning("%s is compared with no longer: %s", failure.source, failure.error)
        self.emit(TeeSTT.COMPARISON, Comparison(source=failure.source, failure=failure))

    def _let_go(self) -> None:
        secondary, self._secondary, self._convert = self._secondary, None, None
        if secondary is not None:
            self._try(secondary.dispose)

    async def _secondary_disposed(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._disposing.wait_disposed(timeout_s)
        except Exception as exc:  # a guest, also at its end
            logger.warning("%s did not end well: %r", _name(self._disposing), exc)


def _name(stt: STT) -> str:
    return type(stt).__name__
