"""Joins the two halves of a call inside one process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

from dialog.audio.sound import Sound
from dialog.clock import Clock
from dialog.errors import StateError
from dialog.message import AudioFormat, Message
from dialog.scope import CallScope
from dialog.voip.bed import BedLane, Layer
from dialog.voip.line import Line, Tap, Wire, tell
from dialog.voip.lineops import LineOp, Overflow, Report
from dialog.voip.link import Command, CommandResult
from dialog.voip.part import Tombstones
from dialog.voip.playout import Playout
from dialog.voip.voip import VoIP

__all__ = ["DirectLink"]


class DirectLink:
    """The :class:`~dialog.voip.link.Link` whose Line is an object in the same process.

    There is always a playout: while no stream is there it only keeps what is posted, and the next
    stream starts with it. So every part that was ever posted gets its one final report, from the
    playout that had it.
    """

    def __init__(
        self,
        audio_format: AudioFormat,
        scope: CallScope,
        *,
        clock: Clock,
        lead_ms: float,
        limit_ms: float,
        command: Callable[[Command], Awaitable[CommandResult]],
        download: Callable[[str], AsyncIterator[bytes]],
        on_close: Callable[[], object],
    ) -> None:
        """``on_close`` is called when the VoIP was disposed."""
        self._format = audio_format
        self._scope = scope
        self._clock = clock
        self._lead_ms = lead_ms
        self._limit_ms = limit_ms
        self._command = command
        self._download = download
        self._on_close = on_close
        self._tombstones = Tombstones()
        self._bed = BedLane(audio_format)
        self._playout = self._new_playout()
        self._line: Line | None = None
        self._voip: VoIP | None = None
        self._ended = False

    @property
    def line(self) -> Line | None:
        """The live stream."""
        return self._line

    @property
    def queued_ms(self) -> float:
        """The agent's audio that waits to be sent, in milliseconds."""
        return self._playout.queued_ms

    def attach(self, voip: VoIP) -> None:
        """Name the VoIP that this link serves; called once, right after its construction."""
        self._voip = voip

    def join(self, wire: Wire, *, offset_ms: float, taps: list[Tap]) -> Line:
        """Connect a stream in the place of the one before; :meth:`Line.start` lets it play."""
        assert self._voip is not None
        self.leave()
        line = Line(
            wire,
            self._playout,
            self._voip,
            self._scope,
            clock=self._clock,
            offset_ms=offset_ms,
            taps=taps,
            on_close=lambda: self._left(line),
        )
        self._line = line
        return line

    def leave(self) -> None:
        """The stream is over: what it had not played is lost."""
        if self._line is not None:
            self._line.close()

    def finish(self) -> None:
        """The call is over: what waits is lost, and so is what still comes."""
        if self._ended:
            return
        self._ended = True
        self.leave()
        self._tell(self._playout.close(self._clock.now()))

    # The VoIP's side.

    def post(self, message: Message[bytes]) -> None:
        """See :class:`~dialog.voip.link.Link`."""
        if self._line is not None:
            self._line.post(message)
        else:
            self._tell(self._playout.post(message, self._clock.now()))

    def abort(self, uuid: UUID, *, part: int | None, after_ms: float | None) -> None:
        """See :class:`~dialog.voip.link.Link`."""
        if self._line is not None:
            self._line.abort(uuid, part=part, after_ms=after_ms)
        else:
            self._tell(self._playout.abort(uuid, part, after_ms, self._clock.now()))

    def pause(self) -> None:
        """See :class:`~dialog.voip.link.Link`."""
        if self._line is not None:
            self._line.pause()
        else:
            self._tell(self._playout.pause(self._clock.now()))

    def resume(self, *, from_ms: float | None) -> None:
        """See :class:`~dialog.voip.link.Link`."""
        if self._line is not None:
            self._line.resume(from_ms=from_ms)
        else:
            self._tell(self._playout.resume(from_ms, self._clock.now()))

    def set_bed(self, layer: Layer, sound: Sound | None, *, gain_db: float) -> None:
        """See :class:`~dialog.voip.link.Link`."""
        if self._line is not None:
            self._line.set_bed(layer, sound, gain_db=gain_db)
        else:
            self._tell(self._playout.set_bed(layer, sound, gain_db, self._clock.now()))

    async def command(self, command: Command) -> CommandResult:
        """See :class:`~dialog.voip.link.Link`."""
        return await self._command(command)

    def download(self, url: str) -> AsyncIterator[bytes]:
        """See :class:`~dialog.voip.link.Link`."""
        return self._download(url)

    def close(self) -> None:
        """The VoIP was disposed."""
        self._on_close()

    def let_go(self) -> None:
        """Nothing of the call is left: what only this link holds together is freed now.

        A call is a few hundred objects, and those of many calls would stop all others while they are collected.
        """
        self._voip = None
        self._command, self._on_close = _refuse, _nothing

    def _left(self, line: Line) -> None:
        if self._line is line:
            self._line = None
            self._playout = self._new_playout()

    def _new_playout(self) -> Playout:
        return Playout(
            self._format,
            lead_ms=self._lead_ms,
            limit_ms=self._limit_ms,
            tombstones=self._tombstones,
            bed=self._bed,
        )

    def _tell(self, ops: list[LineOp]) -> None:
        voip = self._voip
        if voip is None:
            return
        with self._scope.entered():
            for op in ops:  # a playout without a stream has nothing else to do
                if isinstance(op, Report | Overflow):
                    tell(voip, op)


async def _refuse(command: Command) -> CommandResult:
    raise StateError(f"{type(command).__name__} after nothing of the call is left")


def _nothing() -> None:
    """Nobody is to be told."""
