"""A hook for what cleans the caller's audio before anybody listens to it: noise suppression, a gain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from dialog.errors import DialogError, UserCodeError
from dialog.message import AudioFormat, Message

__all__ = ["AudioFilter", "AudioFilterFactory", "CallerFilter"]


class AudioFilter(Protocol):
    """Works on the caller's audio of one call, on the event loop, 50 times a second.

    What takes longer than a fraction of a millisecond a frame delays every call of the process.
    """

    def process(self, data: bytes) -> bytes:
        """As many bytes as ``data`` has, in the same format; the next piece of the stream.

        A filter that must look ahead gives out what it got some time ago, silence at first.
        """
        ...


AudioFilterFactory: TypeAlias = Callable[[AudioFormat], AudioFilter]
"""Makes the filter of one call for the format of its line. A class that takes the format is one, for
instance :class:`~dialog.audio.level.LevelNormaliser`."""


class CallerFilter:
    """Runs a filter on a call's messages, and goes on without it once it fails.

    Args:
        make: Makes the filter.
        audio_format: Format of the line.
        failed: Is told, once, why the filter is no longer used.

    Raises:
        UserCodeError: ``make`` raised.
    """

    def __init__(
        self, make: AudioFilterFactory, audio_format: AudioFormat, failed: Callable[[DialogError], object]
    ) -> None:
        self._failed = failed
        try:
            self._filter: AudioFilter | None = make(audio_format)
        except DialogError:
            raise
        except Exception as exc:  # the user's code
            raise UserCodeError(f"the audio filter could not be made: {exc!r}") from exc

    def process(self, message: Message[bytes]) -> Message[bytes]:
        """The message with its audio filtered; the very same one if that changes nothing."""
        if self._filter is None:
            return message
        try:
            data = self._filter.process(message.data)
        except Exception as exc:  # the user's code: the call goes on with the audio as it is
            self._give_up(repr(exc), exc)
            return message
        if data is message.data:
            return message
        if len(data) != len(message.data):
            self._give_up(f"{len(data)} bytes came out of {len(message.data)}", None)
            return message
        return Message(uuid=message.uuid, data=data, at_ms=message.at_ms)

    def _give_up(self, what: str, cause: Exception | None) -> None:
        self._filter = None
        error = UserCodeError(f"the audio filter failed, the call goes on without it: {what}")
        error.__cause__ = cause
        self._failed(error)
