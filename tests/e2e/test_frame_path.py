"""What a frame of the caller costs on its way from the carrier to the recogniser, in calls: on any machine the same."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from house import House

import dialog
from dialog.participant import Participant
from dialog.voip.aiosocket import _Socket
from dialog.voip.line import Line

PACKAGE = dialog.__path__[0]
MOST_CALLS = 20
"""Of our own functions, for a frame."""
MORE_CALLS = 4
"""For one frame in ten, which completes a block of the audio that is kept."""
FRAMES = 40
LATER = {"call_soon", "call_later", "call_at", "create_task", "create_future"}


class Profile:
    """Every call of a Python function inside of :meth:`_Socket.feed_data`, while it is :meth:`on`."""

    def __init__(self) -> None:
        self.costs: list[float] = []
        """Calls of our own functions for a frame: of each piece that came from the socket, which may hold several."""
        self.later: set[str] = set()
        """What the event loop was asked to do."""
        self.touched: set[type] = set()
        """Whose methods were called."""
        self.enough = asyncio.Event()
        self._depth = self._calls = self._frames = 0

    def _event(self, frame, event, _arg) -> None:
        code = frame.f_code
        if event == "call" and (self._depth or code is _Socket.feed_data.__code__):
            if not self._depth:
                self._calls = self._frames = 0
            self._depth += 1
            self._frames += code is Line.receive_audio.__code__
            if code.co_filename.startswith(PACKAGE):
                self._calls += 1
                if code.co_varnames[:1] == ("self",):
                    self.touched.add(type(frame.f_locals["self"]))
            elif code.co_name in LATER:
                self.later.add(code.co_name)
        elif event == "return" and self._depth:
            self._depth -= 1
            if not self._depth and self._frames:
                self.costs.append(self._calls / self._frames)
            if len(self.costs) == FRAMES:
                self.enough.set()

    @contextmanager
    def on(self) -> Iterator[None]:
        sys.setprofile(self._event)
        try:
            yield
        finally:
            sys.setprofile(None)


async def test_a_frame_takes_few_calls_begins_nothing_and_touches_slots_only():
    house, profile = House(scale=1.0), Profile()
    async with house.open(), house.dial() as caller:
        async with asyncio.timeout(10):
            await house.deepgram.until(lambda: len(house.deepgram.received(bytes)) > 5)
            with profile.on():
                await profile.enough.wait()
        await caller.hang_up()
    costs = sorted(profile.costs)
    assert costs[FRAMES // 2] <= MOST_CALLS
    assert costs[FRAMES * 9 // 10] <= MOST_CALLS + MORE_CALLS  # a ping, or a mark, may come with some
    assert not profile.later
    # Users make classes of their own from participants, which have a dictionary each.
    assert not [kind for kind in profile.touched if kind.__dictoffset__ and not issubclass(kind, Participant)]
