"""The life of a call, which may have several streams: a machine without I/O.

::

    offered ──► live ──► moving ──► live …      our redirect took the stream away
       │         │  └───► lost ───► live …      the socket broke
       └─────────┴───────────┴────► ended       exactly once

A carrier says ``stop`` when the caller hangs up and when our own redirect takes the call away; a socket
that closes without it is a fault. Redirects are announced before they are requested, because the stop
may overtake the answer to the request.
"""

from __future__ import annotations

from math import inf
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from dialog.message import CallEnd, StreamStarted, StreamStopped
from dialog.voip.destinations import ANYWHERE, Destinations
from dialog.voip.voip import CallState

__all__ = [
    "DOUBT_S",
    "Accepted",
    "CallSettings",
    "Closed",
    "End",
    "HangingUp",
    "Happening",
    "Joined",
    "Lifecycle",
    "MoveKind",
    "Ordered",
    "Outcome",
    "Requested",
    "Resumed",
    "Returned",
    "Stopped",
    "Tick",
    "Withdrawn",
]

MoveKind = Literal["transfer", "digits", "consult"]
Resumed = Literal["", "transfer_failed", "digits_sent", "reconnected"]

DOUBT_S: Final = 2.0
"""So long after an answer was lost the stream may stop because the carrier has done what it was asked for."""


class CallSettings(Struct, frozen=True, kw_only=True):
    """Bounds of a call, in seconds unless named otherwise."""

    lead_ms: int = 300
    """Agent audio that is kept ahead at the carrier."""
    limit_ms: int = 60_000
    """Agent audio that may wait to be played."""
    never_connected_s: float = 60.0
    """How long a call may be offered without a stream (outbound: add the ring time)."""
    lost_s: float = 5.0
    """How long a broken stream may be away."""
    digits_s: float = 15.0
    """How long the stream may be away for sending digits, beside the time that pressing them takes."""
    transfer_s: float = 40.0
    """How long a transfer may take when nobody names a bound."""
    rejoin_s: float = 10.0
    """How long the carrier may take to open a stream that it was just told to open."""
    settle_s: float = 1.0
    """How long participants may take to dispose themselves after the end."""
    wrap_up_s: float = 300.0
    """How long callbacks (recording, transcription) are waited for after the end."""
    destinations: Destinations = ANYWHERE
    """Whom calls may be transferred to, placed to, consulted and written to."""


class Joined(Struct, frozen=True):
    """A stream has started; :meth:`Lifecycle.refusal` was asked before."""

    generation: int


class Stopped(Struct, frozen=True):
    """The carrier said that the stream is over."""


class Closed(Struct, frozen=True):
    """The socket closed."""


class Ordered(Struct, frozen=True):
    """We are about to ask for a redirect; it takes at most ``within_s``."""

    kind: MoveKind
    within_s: float


class Accepted(Struct, frozen=True):
    """The carrier accepted the redirect that was ordered; something follows ``within_s``."""

    kind: MoveKind
    within_s: float


class Withdrawn(Struct, frozen=True):
    """The carrier refused the redirect, or ``in_doubt``: it is not known what it did."""

    kind: MoveKind
    in_doubt: bool = False


class HangingUp(Struct, frozen=True):
    """We are about to hang up."""

    reason: str = "agent_hangup"


class Requested(Struct, frozen=True):
    """The carrier was told to open another stream."""


class Returned(Struct, frozen=True):
    """The caller is on the way back, and why."""

    resumed: Resumed


class End(Struct, frozen=True):
    """The call has ended, or must."""

    reason: str
    detail: str = ""


class Tick(Struct, frozen=True):
    """The deadline has come."""


Happening: TypeAlias = (
    Joined | Stopped | Closed | Ordered | Accepted | Withdrawn | HangingUp | Requested | Returned | End | Tick
)
Outcome: TypeAlias = StreamStarted | StreamStopped | CallEnd


class _Order(Struct, frozen=True):
    kind: MoveKind
    within_s: float
    accepted: bool = False
    until: float = inf
    """The carrier has not done it by then, and will not."""


class Lifecycle:
    """Decides what each happening means for the call. Times are seconds of one clock."""

    def __init__(self, settings: CallSettings, now: float, generation: int = 0) -> None:
        """``generation``: of the stream that was lost, if the call was somewhere else before."""
        self.state: CallState = "lost" if generation else "offered"
        self.generation: int = generation
        """Generation of the newest stream."""
        self.deadline: float | None = now + (settings.rejoin_s if generation else settings.never_connected_s)
        """When to feed :class:`Tick`."""
        self._settings = settings
        self._order: _Order | None = None
        self._hanging_up = ""
        """Why we are about to hang up; empty while we are not."""
        self._resumed: Resumed = ""
        self._extended = False
        self._told = False
        """The carrier said that the newest stream is over."""

    @property
    def consulting(self) -> bool:
        """The caller waits for somebody who is asked."""
        return self.state == "moving" and self._order is not None and self._order.kind == "consult"

    def refusal(self, generation: int) -> str:
        """Why a stream of ``generation`` cannot join; empty when it can."""
        if self.state == "ended":
            return "the call has ended"
        if generation <= self.generation:
            return f"a stream of generation {self.generation} has been there already, {generation} comes too late"
        return ""

    def feed(self, happening: Happening, now: float) -> tuple[Outcome, ...]:
        """Take what happened at ``now``, and return what listeners must hear, in order."""
        if self.state == "ended":
            return ()
        settings = self._settings
        match happening:
            case Joined(generation):
                return self._join(generation)
            case Stopped():
                return self._leave(told=True, now=now)
            case Closed():
                return self._leave(told=False, now=now)
            case Ordered(kind, within_s):
                self._order = _Order(kind, within_s)
            case Accepted(kind, within_s):
                # What came of it may be over before the carrier's answer is here.
                if self._order is not None and self._order.kind == kind:
                    self._order = _Order(kind, within_s, accepted=True)
                    self._resumed = ""
                    if self.state != "live":
                        self.deadline = now + within_s
            case Withdrawn(kind, in_doubt):
                return self._withdraw(kind, in_doubt=in_doubt, now=now)
            case HangingUp(reason):
                self._hanging_up = reason
            case Requested():
                # Once per absence: a stream that cannot be opened must not keep the call for ever.
                if self.state in ("moving", "lost") and not self._extended:
                    self._extended = True
                    self._wait_until(now + settings.rejoin_s)
            case Returned(resumed):
                self._resumed = resumed
                if self.state in ("moving", "lost"):
                    self._order = None
                    self._wait_until(now + settings.rejoin_s)
            case End(reason, detail):
                return self._end(reason, detail)
            case Tick():
                if self.deadline is not None and now >= self.deadline:
                    return self._expire()
        return ()

    def _join(self, generation: int) -> tuple[Outcome, ...]:
        if self.refusal(generation):
            return ()
        resumed = self._resumed
        if not resumed and self.generation:
            kinds: dict[str, Resumed] = {
                "transfer": "transfer_failed",
                "consult": "transfer_failed",
                "digits": "digits_sent",
            }
            resumed = kinds[self._order.kind] if self._order and self._order.accepted else "reconnected"
        outcomes: list[Outcome] = []
        if self.state == "live":
            outcomes.append(StreamStopped(reason="moving" if self._order else "lost"))
        # A first stream may still come of what the carrier did before a transfer: it is this stream that goes.
        goes = self.state == "offered" and not resumed and self._order is not None and self._order.kind == "transfer"
        self.state = "live"
        self.generation = generation
        self.deadline = None
        if self._order is not None and self._order.accepted and not goes:
            self._order = None  # else the carrier is still being asked: likewise
        self._resumed = ""
        self._extended = False
        outcomes.append(StreamStarted(generation=generation, resumed=resumed))
        return tuple(outcomes)

    def _leave(self, *, told: bool, now: float) -> tuple[Outcome, ...]:
        if self.state != "live":
            return ()
        if self._hanging_up:
            return self._end(self._hanging_up)
        self._extended = False
        self._told = told
        order = self._order
        if order is not None and (told or order.until < inf):
            done = told and now <= order.until
            order = self._order = _Order(order.kind, order.within_s, accepted=True) if done else None
        if order is not None:
            self.state = "moving"
            self.deadline = now + order.within_s
            return (StreamStopped(reason="moving"),)
        if told:
            return self._end("caller_hangup")
        self.state = "lost"
        self.deadline = now + self._settings.lost_s
        return (StreamStopped(reason="lost"),)

    def _withdraw(self, kind: MoveKind, *, in_doubt: bool, now: float) -> tuple[Outcome, ...]:
        order = self._order
        if order is None or order.kind != kind or self._resumed:
            return ()  # or the carrier had accepted it, and was told to bring the call back
        self._order = None
        if self.state != "moving":
            if in_doubt:
                self._order = _Order(kind, order.within_s, until=now + DOUBT_S)
            return ()
        if not self._told:  # the socket broke while we asked
            self.state = "lost"
            self.deadline = now + self._settings.lost_s
            return ()
        if in_doubt:  # the stream stopped while we asked: the carrier has done it, and its answer was lost
            self._order = _Order(kind, order.within_s, accepted=True)
            return ()
        return self._end("caller_hangup")  # not because of us

    def _wait_until(self, when: float) -> None:
        self.deadline = when if self.deadline is None else max(self.deadline, when)

    def _expire(self) -> tuple[Outcome, ...]:
        if self._order is not None:
            if self._order.kind == "transfer":
                return self._end("transferred", "unconfirmed")
            if self._order.kind == "consult":
                return self._end("lost", "the caller has waited too long")
            return self._end("lost", "no stream followed the digits")
        if self.state == "offered":
            return self._end("never_connected", f"no stream within {self._settings.never_connected_s:g} s")
        return self._end("lost", "the stream did not come back")

    def _end(self, reason: str, detail: str = "") -> tuple[Outcome, ...]:
        was_live = self.state == "live"
        self.state = "ended"
        self.deadline = None
        self._order = None
        end = CallEnd(reason=reason, detail=detail)
        return (StreamStopped(reason="ended"), end) if was_live else (end,)
