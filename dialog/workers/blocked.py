"""Tells where an event loop is blocked: every call of the process waits for that line."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import traceback

__all__ = ["LoopWatch"]

logger = logging.getLogger(__name__)

_BEAT_S = 0.1
_FRAMES = 12
"""So many of the innermost frames are shown: the others are how the program was started."""


class LoopWatch:
    """Logs the stack of the event loop's thread when it has not come round for ``limit_s``, once per blockage.

    It is made and closed on the loop; a thread watches. ``abandoned_s``: blocked for so long, a process whose parent
    is gone ends: it cannot notice that itself, and nobody else looks after it.
    """

    def __init__(self, limit_s: float = 0.5, *, abandoned_s: float | None = None) -> None:
        self.limit_s = limit_s
        self.blockages = 0
        """How often the loop was blocked for longer than the limit."""
        self._abandoned_s = abandoned_s
        self._parent = os.getppid()
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._seen = time.monotonic()
        self._stop = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._beat()
        self._thread = threading.Thread(target=self._watch, name="loop watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; the thread is gone within a moment."""
        self._stop.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        self._seen = time.monotonic()
        self._timer = self._loop.call_later(_BEAT_S, self._beat)

    def _watch(self) -> None:
        told = 0.0
        while not self._stop.wait(self.limit_s / 4):
            seen = self._seen
            blocked_s = time.monotonic() - seen - _BEAT_S
            if self._abandoned_s is not None and blocked_s >= self._abandoned_s and os.getppid() != self._parent:
                os._exit(1)
            if blocked_s < self.limit_s or seen == told:
                continue
            told = seen
            self.blockages += 1
            frame = sys._current_frames().get(self._thread_id)
            stack = "".join(traceback.format_stack(frame, limit=_FRAMES)) if frame is not None else "unknown"
            logger.error(
                "the event loop has been blocked for %.1f s; every call of this process waits here:\n%s",
                blocked_s,
                stack,
            )
