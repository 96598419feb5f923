"""How turns end: heard out, cut, hushed or dropped; then history has what was heard, and they are forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from dialog.agent.host import Host
from dialog.agent.mouth import Mouth
from dialog.agent.scribe import Scribe
from dialog.agent.speech import Heard, Part
from dialog.agent.turn import Turn
from dialog.errors import UserCodeError
from dialog.voip.voip import VoIP

__all__ = ["Parting"]

_GRACE_S = 1.0
"""How long a cancelled inference may take to end before it is abandoned."""
_ON_THE_WAY_MS = 600.0
"""Of a part that sounds: what was played since the last report, and the line's lead."""
_SENTENCE_MS = 3000.0
"""How much longer a reply may sound that is let finish its sentence."""


class Parting:
    """Ends the turns of one call.

    Args:
        host: Told what was heard, and of interruptions.
        voip: The line, which is silenced.
        mouth: Has the turns.
        scribe: Notes it for another process.
        unmute: The caller is listened to again.
        forgotten: Told of every turn in which nothing more is going to happen.
    """

    def __init__(
        self,
        host: Host,
        voip: VoIP,
        mouth: Mouth,
        *,
        scribe: Scribe,
        unmute: Callable[[], None],
        forgotten: Callable[[Turn], None],
    ) -> None:
        self._host = host
        self._voip = voip
        self._mouth = mouth
        self._scribe = scribe
        self._unmute = unmute
        self._forgotten = forgotten
        self._stopped = False

    def all(self) -> None:
        """End every turn here and now: the engine lets go of the call."""
        self._stopped = True
        for turn in list(self._mouth.turns.values()):
            self._give_up(turn)
            self.settle(turn)

    def cut(self, turn: Turn, reason: str, *, at: Literal["now", "sentence"]) -> None:
        """The caller speaks over a turn: what was heard of it stays; with ``sentence`` it ends with the present one."""
        turn.cut, turn.broken = True, False
        self._scribe.cut(turn)
        for part in turn.speech.parts:
            part.stop_at_ms = None
        # A notice that is heard out all the same was not interrupted, unless more was to follow it.
        more = turn.task is not None and not turn.task.done()
        if more or any(not part.final and part.allow_interrupt for part in turn.speech.parts):
            self._host.interrupted(turn, reason)
        if at == "sentence":
            self._let_finish(turn)
        self._give_up(turn)
        self.finish(turn)

    def suspend(self, turn: Turn) -> None:
        """The line is down: say no more of a turn, and keep it until it is told whether it goes on."""
        turn.broken = True
        self._give_up(turn)
        self.finish(turn)

    def _let_finish(self, turn: Turn) -> None:
        """What the caller hears now may go on to the end of its sentence."""
        part = next((part for part in turn.speech.parts if not part.final), None)
        if part is None or not part.heard_ms or not part.allow_interrupt:
            return
        heard_ms, limit_ms = part.heard_ms, part.heard_ms + _SENTENCE_MS
        total_ms = part.audio_ms if part.audio_done else None
        # What is on its way to the caller is heard in any case: an end behind it is kept to the word.
        stop_ms = part.heard_map.sentence_end_ms(heard_ms + _ON_THE_WAY_MS, limit_ms, total_ms)
        if stop_ms is None:
            stop_ms = part.heard_map.sentence_end_ms(heard_ms, limit_ms, total_ms) or limit_ms
        part.stop_at_ms = stop_ms
        turn.speech.finish(part)
        self._stop_feeding(turn, part)
        self._voip.abort(turn.uuid, part=part.number, after_ms=stop_ms)

    def drop(self, turn: Turn) -> None:
        """Nothing of a turn was heard: it leaves no words."""
        turn.dropped = True
        if turn.speculative:
            self._host.speculated(turn, saved_s=None)
        self._give_up(turn)
        self.settle(turn)

    def _give_up(self, turn: Turn) -> None:
        """Stop a turn here and now, except for its parts that may not be interrupted."""
        again, turn.speech.closed = turn.speech.closed, True
        turn.ended = True
        task = turn.task
        if not again and task is not None and not task.done() and task is not asyncio.current_task():
            task.cancel()
            asyncio.get_running_loop().call_later(_GRACE_S, self._check_abandoned, task)
        self.hush(turn)

    def stop_part(self, turn: Turn, part: Part) -> None:
        """Nothing more of a part is going to be heard: read, shape and synthesise no more of it."""
        self._stop_feeding(turn, part)
        self._mouth.stop_part(turn, part)

    def _stop_feeding(self, turn: Turn, part: Part) -> None:
        for feeder, fed in turn.feeders.items():
            if fed is part and feeder is not asyncio.current_task():
                feeder.cancel()

    def _may_stop(self, turn: Turn, part: Part) -> bool:
        stays = not part.allow_interrupt or part.stop_at_ms is not None
        return not stays or turn.dropped or self._stopped

    def _check_abandoned(self, task: asyncio.Task[None]) -> None:
        if not task.done():
            self._host.failed(
                UserCodeError(f"{task.get_name()}: inference goes on {_GRACE_S:g} s after it was cancelled")
            )

    def finish(self, turn: Turn) -> None:
        """Close the books on a turn of which nothing more comes."""
        if turn.over and not turn.broken:
            self.settle(turn)
            self._forget(turn)

    def settle(self, turn: Turn) -> None:
        """Write into history what was heard, once; by estimate where the line has not told yet."""
        if turn.settled:
            return
        turn.settled = True
        if turn.speculative:
            turn.draft.history.discard(turn.draft)
        elif turn.dropped:
            turn.draft.history.drop(turn.draft)
        else:
            heard = {
                part.number: (part.heard_text()[part.options.repeats :], part.heard_whole) for part in turn.speech.parts
            }
            turn.draft.history.commit(turn.draft, heard)
        for part in turn.speech.parts:
            if not part.final and turn.dropped:
                part.speech._resolve(None)
        if turn.dropped or self._stopped:
            self._forget(turn)

    def _forget(self, turn: Turn) -> None:
        if not self._mouth.forget(turn):
            return
        for part in turn.speech.parts:
            self._release_part(turn, part)
        self._forgotten(turn)

    def _release_part(self, turn: Turn, part: Part) -> None:
        if part.options.mute_caller:
            self._unmute()
        if not part.speech.done():
            part.speech._resolve(None if turn.dropped else Heard(part.heard_text(), complete=False, why="hung_up"))

    def hush(self, turn: Turn) -> None:
        """Say no more of what a turn has said so far, as far as it may be interrupted; the turn goes on."""
        parts = [part for part in turn.speech.parts if not part.final]
        stopped = [part for part in parts if self._may_stop(turn, part)]
        for part in stopped:  # all of them, before the end of one makes room for the next
            self.stop_part(turn, part)
        turn.speech.seal()
        turn.speech.tell()  # the line ends only what it knows
        if len(stopped) == len(parts):
            self._voip.abort(turn.uuid)
        else:
            for part in reversed(stopped):  # from the end: the line must not begin with the next one
                self._voip.abort(turn.uuid, part=part.number)
        turn.speech.pump()

    def part_final(self, turn: Turn, part: Part, text: str, now: float) -> None:
        """The line has told the end of a part; ``text`` was heard of it."""
        playback = part.playback
        assert playback is not None
        if playback.heard_ms:
            turn.times["played"] = now
        if playback.state == "played":
            self._mouth.learn(part, playback.heard_ms)
        else:
            turn.broken = turn.broken or (playback.state == "lost" and not (turn.cut or turn.dropped or self._stopped))
            self.stop_part(turn, part)
        self._host.part_ended(turn, part, text)
        if turn.speech.quiet and turn.task is not None:
            self._mouth.awaited(turn)
        if not turn.dropped:
            whole = "played" if part.heard_whole else "interrupted" if turn.cut else "failed"
            why = {"played": whole, "cut": "interrupted", "lost": "hung_up"}[playback.state]
            part.speech._resolve(Heard(text, part.heard_whole, why))  # type: ignore[arg-type]
        self.finish(turn)
