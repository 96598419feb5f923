"""The event loop of a program, and its garbage collector: what a process that holds calls should set."""

from __future__ import annotations

import asyncio
import gc
import sys
from importlib import import_module

__all__ = ["calm_collector", "new_event_loop"]


def calm_collector() -> None:
    """Let the garbage collector pause a process of many calls less; for its ``main``, after its imports.

    Everything that is loaded now is taken out of later collections, and the thresholds fit a program
    that makes many short-lived objects and hardly any cycles. What is left of calls that are over is
    collected when there are about a hundred of them, since everybody waits for as long as that takes: for
    five hundred it was longer than what is ahead at the carriers, and all lines had a gap at once.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 10, 3)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A new loop of the fastest kind there is: uvloop, where it is installed.

    For ``asyncio.Runner(loop_factory=…)`` or ``web.run_app(loop=…)``.
    """
    if sys.platform != "win32":
        try:
            loop: asyncio.AbstractEventLoop = import_module("uvloop").new_event_loop()
        except ModuleNotFoundError:
            pass
        else:
            return loop
    return asyncio.new_event_loop()
