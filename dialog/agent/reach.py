"""What costs money waits until a call that is placed rings at the other end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from dialog.agent.driver import as_failure
from dialog.errors import DialogError
from dialog.message import CallProgress
from dialog.voip.voip import VoIP

__all__ = ["Reach"]


class Reach:
    """Opens providers, and gives them text, in order: at once, or when the phone at the other end rings.

    Nobody may answer for a minute, or at all; providers close an idle connection before, and some charge for it.
    """

    __slots__ = ("_failed", "_reached", "_voip", "_waiting")

    def __init__(self, voip: VoIP, failed: Callable[[DialogError], object]) -> None:
        self._voip = voip
        self._failed = failed
        self._waiting: deque[Callable[[], object]] = deque()
        self._reached = voip.progress != "dialling"
        if not self._reached:
            voip.on(VoIP.PROGRESS, self._on_progress)

    @property
    def reached(self) -> bool:
        """Whether what :meth:`when_reached` is given is done at once from now on."""
        return self._reached and not self._waiting

    def when_reached(self, action: Callable[[], object]) -> None:
        """Do it now, or once the phone rings; then what it raises is told of as a failure."""
        if self.reached:
            action()
        else:
            self._waiting.append(action)

    def close(self) -> None:
        """The call is let go of: what waits is not done any more."""
        self._voip.off(VoIP.PROGRESS, self._on_progress)
        self._reached = True
        self._waiting.clear()

    def _on_progress(self, progress: CallProgress) -> None:
        if self._reached or progress.state == "dialling":
            return
        self._reached = True
        while self._waiting:
            action = self._waiting[0]
            try:
                action()
            except Exception as exc:  # a provider's, or the user's: the others are opened all the same
                self._failed(as_failure("a provider could not be opened", exc))
            if self._waiting:
                self._waiting.popleft()
