"""Who takes a call that is placed: a person, or a machine; and what is done then.

The carrier listens while the conversation begins, and tells when it knows. A verdict that does not come
in time is replaced by an assumption, so that nothing waits for it.
"""

from __future__ import annotations

import asyncio
from typing import Final, Literal, get_args

from msgspec import Struct

from dialog.checks import check_choice
from dialog.errors import CarrierError, ConfigurationError
from dialog.message import AnsweredBy, CallEnd, CallProgress
from dialog.participant import Participant
from dialog.voip.voip import VoIP

__all__ = ["AnswerWatch", "Answering", "MachineDetection"]

_EARLY_S: Final = 6.0
_GREETING_S: Final = 45.0
_LONGEST_S: Final = 59.0

Then = Literal["go_on", "hang_up", "leave_message"]


class MachineDetection(Struct, frozen=True, kw_only=True):
    """What to do if a machine takes the call.

    Raises:
        ConfigurationError: A message is missing or too much, or a value is out of its range.
    """

    when_machine: Then = "hang_up"
    """``leave_message``: say :attr:`message` after the beep, and hang up. ``go_on``: only tell."""
    message: str = ""
    """What is said to a machine."""
    verdict_s: float | None = None
    """How long the verdict is waited for, counted from the answer, at most 59 s: 6 s unless given, 45 s where a
    machine's greeting has to be heard out first."""
    assume: Literal["human", "machine"] = "human"
    """What is taken for true if there is no verdict by then, or the carrier does not know."""

    def __post_init__(self) -> None:
        check_choice("when_machine", self.when_machine, get_args(Then))
        check_choice("assume", self.assume, ("human", "machine"))
        if (self.when_machine == "leave_message") != bool(self.message.strip()):
            raise ConfigurationError('MachineDetection: when_machine="leave_message" and message go together')
        if self.verdict_s is not None and not 0 < self.verdict_s <= _LONGEST_S:
            raise ConfigurationError(f"verdict_s must be above 0 and at most {_LONGEST_S:g}, got {self.verdict_s:g}")

    @property
    def hears_out(self) -> bool:
        """The verdict on a machine comes when its greeting is over."""
        return self.when_machine == "leave_message"

    @property
    def wait_s(self) -> float:
        """How long the verdict is waited for."""
        return self.verdict_s or (_GREETING_S if self.hears_out else _EARLY_S)

    def __repr__(self) -> str:
        return f"<MachineDetection {self.when_machine} within {self.wait_s:g} s>"


class Answering:
    """Decides who took a call, exactly once. Pure: ``tick`` it at :attr:`deadline`."""

    def __init__(self, detection: MachineDetection | None) -> None:
        self.deadline: float | None = None
        self._detection = detection
        self._decided = False
        self._told = False
        """The carrier has given its verdict."""

    def answered(self, now: float) -> AnsweredBy | None:
        """Somebody, or something, took the call."""
        if self._decided or self.deadline is not None:
            return None
        if self._detection is None:
            self._decided = self._told = True
            return AnsweredBy(who="unknown")
        self.deadline = now + self._detection.wait_s
        return None

    def verdict(self, who: Literal["human", "machine", "fax", "unknown"], *, greeting_over: bool) -> AnsweredBy | None:
        """The carrier knows; it may tell before anything else, more than once, and too late."""
        detection = self._detection
        if detection is None or self._told:
            return None
        self._told = True
        if self._decided:
            return AnsweredBy(who=who, greeting_over=greeting_over, late=True)
        self._decided, self.deadline = True, None
        if who == "unknown":
            return self._judged(detection.assume, greeting_over=greeting_over, assumed=True)
        return self._judged(who, greeting_over=greeting_over, assumed=False)

    def tick(self, now: float) -> AnsweredBy | None:
        """Time has passed."""
        if self.deadline is None or now < self.deadline:
            return None
        assert self._detection is not None
        self._decided, self.deadline = True, None
        return self._judged(self._detection.assume, greeting_over=False, assumed=True)

    def _judged(self, who: Literal["human", "machine", "fax"], *, greeting_over: bool, assumed: bool) -> AnsweredBy:
        assert self._detection is not None
        then: Then = "go_on" if who == "human" else self._detection.when_machine
        if who == "fax" and then == "leave_message":
            then = "hang_up"
        return AnsweredBy(
            who=who,
            greeting_over=greeting_over,
            assumed=assumed,
            then=then,
            message=self._detection.message if then == "leave_message" else "",
        )


class AnswerWatch(Participant):
    """Tells a call's VoIP who has taken it, and hangs up on machines that are to be hung up on."""

    def __init__(self, voip: VoIP, detection: MachineDetection | None) -> None:
        super().__init__()
        self._voip = voip
        self._detection = detection
        self._answering = Answering(detection)
        self._timer: asyncio.TimerHandle | None = None
        voip.on(VoIP.PROGRESS, self._on_progress)
        voip.on(VoIP.ENDED, self._on_ended)

    @property
    def hears_out(self) -> bool:
        """The verdict on a machine is wanted when its greeting is over."""
        return self._detection is not None and self._detection.hears_out

    def verdict(self, who: Literal["human", "machine", "fax", "unknown"], *, greeting_over: bool) -> None:
        """The carrier's."""
        if not self._disposed:
            self._tell(self._answering.verdict(who, greeting_over=greeting_over))

    def dispose(self) -> None:
        """Watch no more."""
        self._disarm()
        super().dispose()

    def _on_progress(self, progress: CallProgress) -> None:
        if progress.state == "answered":
            self._tell(self._answering.answered(self._voip.clock.now()))

    def _on_ended(self, _: CallEnd) -> None:
        self.dispose()

    def _expired(self) -> None:
        self._timer = None
        self._tell(self._answering.tick(self._voip.clock.now()))

    def _tell(self, answered_by: AnsweredBy | None) -> None:
        self._disarm()
        if self._answering.deadline is not None:
            self._timer = self._voip.clock.call_at(self._answering.deadline, self._expired)
        if answered_by is None or self._voip.end is not None:
            return
        self._voip.receive(VoIP.ANSWERED_BY, answered_by)
        if answered_by.then == "hang_up":
            # A task of the VoIP: the end of the call, which it brings about, ends this watch.
            self._voip.spawn(self._hang_up(), "hanging up on a machine")

    async def _hang_up(self) -> None:
        try:
            await self._voip.hangup(reason="machine")
        except CarrierError:
            return  # the VoIP tells of it, and the media is closed all the same

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
