"""Timers by name: each is set, set anew or stopped, and all of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Timers"]


class Timers:
    """Timers of one owner, on the running event loop."""

    def __init__(self) -> None:
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._handles

    def __len__(self) -> int:
        return len(self._handles)

    def set(self, name: str, delay_s: float, do: Callable[[], object]) -> None:
        """Call ``do`` in ``delay_s``, and not when ``name`` was to be called before."""
        self.stop(name)

        def ring() -> None:
            self._handles.pop(name, None)
            do()

        self._handles[name] = asyncio.get_running_loop().call_later(delay_s, ring)

    def stop(self, *names: str) -> None:
        """Do not call these."""
        for name in names:
            handle = self._handles.pop(name, None)
            if handle is not None:
                handle.cancel()

    def stop_all(self) -> None:
        """Call nothing any more."""
        self.stop(*self._handles)
