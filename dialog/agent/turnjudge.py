"""The hook for a model that hears in the caller's voice whether they have finished."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from dialog.clock import Clock
from dialog.errors import DialogError, UserCodeError
from dialog.message import AudioFormat, Message

__all__ = ["AudioTurnModel", "TurnJudge"]

_HEARD_MS = 8000.0
"""What a model is given of an utterance: its end decides."""
_PATIENCE_S = 1.0
"""An answer that takes longer comes too late to be of use."""


class AudioTurnModel(Protocol):
    """Judges by the sound of it whether a caller who has fallen silent has finished.

    One may serve many calls. What computes for long belongs into a thread or a process of its own.
    """

    async def finished(self, audio: bytes, audio_format: AudioFormat) -> float:
        """The probability from 0 to 1, given the caller's last 8 s at most, up to the end of their voice.

        Args:
            audio: The caller's audio, newest last.
            audio_format: Its format, that of the line.
        """
        ...


class TurnJudge:
    """Keeps the caller's newest audio and asks the model whenever the voice stops.

    Args:
        model: The user's.
        audio_format: Of the line.
        clock: The call's.
        spawn: Starts a task that the agent owns.
        judged: Told the probability.
        failed: Told of a model that failed; the words alone decide then.
    """

    def __init__(
        self,
        model: AudioTurnModel,
        audio_format: AudioFormat,
        clock: Clock,
        *,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None] | None],
        judged: Callable[[float], None],
        failed: Callable[[DialogError], object],
    ) -> None:
        self._model = model
        self._format = audio_format
        self._clock = clock
        self._spawn = spawn
        self._judged = judged
        self._failed = failed
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._limit = audio_format.size(_HEARD_MS)
        self._task: asyncio.Task[None] | None = None

    def hear(self, message: Message[bytes]) -> None:
        """The caller's audio, 50 times a second."""
        self._frames.append(message.data)
        self._size += len(message.data)
        while self._size > self._limit:
            self._size -= len(self._frames.popleft())

    def started(self) -> None:
        """The voice goes on: an answer that is still awaited is of no use."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def stopped(self) -> None:
        """The voice has stopped."""
        self.started()
        self._task = self._spawn(self._ask(b"".join(self._frames)), "turn model")

    async def _ask(self, audio: bytes) -> None:
        try:
            async with asyncio.timeout(self._clock.real(_PATIENCE_S)):
                probability = float(await self._model.finished(audio, self._format))
        except Exception as exc:  # the user's code: a caller must not wait because it failed
            error = UserCodeError(f"the audio turn model failed, the words alone decide: {exc!r}")
            error.__cause__ = exc
            self._failed(error)
            return
        self._judged(probability)
