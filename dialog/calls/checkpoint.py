"""Where a call stands: everything an agent in another process needs to go on with it.

A :class:`Checkpoint` is the fold of a call's journal. Whoever keeps the journal may fold it as it goes, or
only when it is needed::

    checkpoint = Checkpoint()
    for event in journal:
        checkpoint = fold(checkpoint, event)

Pure, and bounded: what was settled is in the history, of what is under way the newest is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dialog.calls import events as ev
from dialog.calls import journal as jn
from dialog.calls.journal import HistoryBlock, JournalEvent, Question
from dialog.calls.meter import METERED, CallMeter, MeterState
from dialog.errors import RemoteProtocolError
from dialog.message import Piece, Word

__all__ = ["VERSION", "Checkpoint", "Ending", "OpenCall", "OpenPart", "OpenTurn", "Spoken", "fold"]

VERSION: Final = 1
_MAX_TRAILING = 64
_MAX_QUESTIONS_CHARS = 4000
"""As turn taking does: of what waits for an answer the oldest words go."""


class Spoken(Struct, frozen=True, gc=False):
    """Text that a voice was given, and the times of words that it told after that."""

    pieces: tuple[Piece, ...]
    words: tuple[Word, ...]


class OpenPart(Struct, frozen=True, kw_only=True, gc=False, tag="part"):
    """A stretch of speech of a turn that is under way."""

    number: int
    text: str = ""
    allow_interrupt: bool = True
    filler: bool = False
    repeats: int = 0
    """So many characters at its start were heard in another turn, where the history has them."""
    spoken: tuple[Spoken, ...] = ()
    """With the line's report it tells what was heard; empty once that is known."""
    audio_ms: float = 0.0
    done: bool = False
    chars_per_s: float = 15.0
    final: bool = False
    """It is known what of it was heard:"""
    heard: str = ""
    complete: bool = False
    """It was heard to its end."""


class OpenCall(Struct, frozen=True, kw_only=True, gc=False, tag="call"):
    """A tool that was started for a turn."""

    call_id: str
    name: str
    arguments: str
    key: str = ""
    group: int = 0
    """Those of one number were asked for together."""
    result: str = ""
    state: str = ""
    """Empty: nobody knows what became of it."""

    def __repr__(self) -> str:
        return f"<OpenCall {self.call_id} {self.name} {self.state or 'in doubt'}>"


Step: TypeAlias = OpenPart | OpenCall


class OpenTurn(Struct, frozen=True, kw_only=True, gc=False):
    """A turn of which something is still open: what was heard of it, or what became of a tool."""

    turn: UUID
    block: int = 0
    """Its place in the history; 0: it has none yet."""
    questions: tuple[Question, ...] = ()
    user_text: str = ""
    told: str = ""
    speculative: bool = False
    asks: bool = False
    """The agent's own: the model is asked what to say."""
    greeting: bool = False
    written: bool = False
    """All its text is known."""
    cut: bool = False
    """It was given up: what was not heard is not wanted any more."""
    passed_on: bool = False
    """Another turn says what was not heard of it."""
    settled: bool = False
    """The history has it, all but the tools that still run."""
    dropped: bool = False
    """It was given up before anything of it was heard."""
    steps: tuple[Step, ...] = ()
    """What it says and does, in its order."""

    @property
    def parts(self) -> tuple[OpenPart, ...]:
        """What it says."""
        return tuple(step for step in self.steps if isinstance(step, OpenPart))

    @property
    def calls(self) -> tuple[OpenCall, ...]:
        """Tools that were started for it."""
        return tuple(step for step in self.steps if isinstance(step, OpenCall))

    @property
    def waiting(self) -> tuple[Question, ...]:
        """What it was to answer, to be answered again by a turn whose parts are counted on."""
        parts = max((part.number + 1 for part in self.parts), default=0)
        return tuple(
            replace(question, parts=max(parts, question.parts)) if question.turn == self.turn else question
            for question in self.questions
        )

    @property
    def in_doubt(self) -> tuple[OpenCall, ...]:
        """Tools that have started, and not told what became of them."""
        return tuple(call for call in self.calls if not call.state)


class Ending(Struct, frozen=True, kw_only=True):
    """How the call is to end once the caller has heard what is said."""

    reason: str
    tel: str = ""
    back_within_s: float | None = None
    summary: str | None = None
    """What is told to whoever takes the call before they get it; ``None``: they are not asked."""

    def __repr__(self) -> str:
        return f"<Ending {self.reason}{', transfer' if self.tel else ''}>"


class Checkpoint(Struct, frozen=True, kw_only=True):
    """A call at one moment. It encodes to msgpack; times are seconds since an agent took the call."""

    version: int = VERSION
    seq: int = 0
    """Number of the next event."""
    elapsed_s: float = 0.0
    """When the last event was."""
    live_s: float | None = None
    """When media began to flow, which is when the longest duration begins."""
    started: ev.CallStarted | None = None
    """The call's first event."""
    agent: str = ""
    """Who has the call, named as its class is: the one that took it, or that it was handed over to."""
    history: tuple[HistoryBlock, ...] = ()
    blocks: int = 0
    """The highest number of a turn in the history."""
    turns: tuple[OpenTurn, ...] = ()
    """What is under way, in its order."""
    unanswered: tuple[Question, ...] = ()
    """What the caller has said and no turn answers yet."""
    trailing: tuple[UUID, ...] = ()
    """Utterances that were answered before their words were known: the newest."""
    owed: bool = False
    """The agent has something to tell that no turn tells yet: a late result, the rest of a reply."""
    greeted: bool = False
    """The greeting was said, or is being said."""
    warned: bool = False
    """The caller knows that the call comes near its longest duration."""
    ending: Ending | None = None
    state: bytes = b""
    """The user's own, as msgpack; empty: there is none."""
    meter: MeterState = MeterState()
    """What was counted so far."""
    ended: bool = False
    """Nothing is left to go on with."""

    def encode(self) -> bytes:
        """As msgpack."""
        return _encode(self)

    @staticmethod
    def decode(data: bytes) -> Checkpoint:
        """What :meth:`encode` made.

        Raises:
            RemoteProtocolError: It is none, or of a version that is not known here.
        """
        try:
            version = _decode_version(data).version
            if version == VERSION:
                return _decode(data)
        except (msgspec.MsgspecError, RecursionError) as exc:
            raise RemoteProtocolError(f"this is no checkpoint of a call: {exc}") from exc
        raise RemoteProtocolError(f"a checkpoint of version {version} cannot be read here, only of {VERSION}")

    def __repr__(self) -> str:
        return f"<Checkpoint at event {self.seq}, {len(self.history)} blocks, {len(self.turns)} turns under way>"


class _Version(Struct):
    version: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Checkpoint).decode
_decode_version = msgspec.msgpack.Decoder(_Version).decode


def fold(checkpoint: Checkpoint, event: JournalEvent) -> Checkpoint:
    """The checkpoint after ``event``. One that it has seen already changes nothing."""
    if event.seq < checkpoint.seq:
        return checkpoint
    step = _STEPS.get(type(event))
    changes: dict[str, Any] = step(checkpoint, event) if step is not None else {}
    if isinstance(event, METERED):
        meter = CallMeter(checkpoint.meter)
        meter.feed(cast("ev.CallEvent", event))
        changes["meter"] = meter.state
    return replace(checkpoint, seq=event.seq + 1, elapsed_s=max(checkpoint.elapsed_s, event.at_s), **changes)


# -- the call -----------------------------------------------------------------------------------------


def _call_started(_: Checkpoint, event: ev.CallStarted) -> dict[str, Any]:
    return {"started": event, "agent": event.agent}


def _call_resumed(_: Checkpoint, event: ev.CallResumed) -> dict[str, Any]:
    return {"agent": event.agent}


def _stream_changed(checkpoint: Checkpoint, event: ev.StreamChanged) -> dict[str, Any]:
    return {"live_s": event.at_s} if event.state == "live" and checkpoint.live_s is None else {}


def _handed_off(_: Checkpoint, event: ev.HandedOff) -> dict[str, Any]:
    return {"agent": event.to}


def _end_planned(_: Checkpoint, event: jn.EndPlanned) -> dict[str, Any]:
    ending = Ending(reason=event.reason, tel=event.tel, back_within_s=event.back_within_s, summary=event.summary)
    return {"ending": ending}


def _end_withdrawn(_: Checkpoint, __: jn.EndWithdrawn) -> dict[str, Any]:
    return {"ending": None}


def _transfer_changed(_: Checkpoint, event: ev.TransferChanged) -> dict[str, Any]:
    # Once the carrier is asked, nobody has to do it: the caller is on the way, or comes back.
    return {"ending": None} if event.state == "started" else {}


def _duration_warned(_: Checkpoint, __: jn.DurationWarned) -> dict[str, Any]:
    return {"warned": True}


def _state_saved(_: Checkpoint, event: jn.StateSaved) -> dict[str, Any]:
    return {"state": event.state}


def _call_ended(_: Checkpoint, __: ev.CallEnded) -> dict[str, Any]:
    return {"ended": True}


# -- what the caller said -----------------------------------------------------------------------------


def _caller_said(checkpoint: Checkpoint, event: ev.CallerSaid) -> dict[str, Any]:
    if not event.final or not event.text.strip():
        return {}
    if event.turn in checkpoint.trailing:
        return {}
    question = Question(
        turn=event.turn, text=event.text, start_ms=event.start_ms, end_ms=event.end_ms, speaker=event.speaker
    )
    return {"unanswered": _bounded((*checkpoint.unanswered, question))}


def _question_closed(checkpoint: Checkpoint, event: jn.QuestionClosed) -> dict[str, Any]:
    return {"unanswered": tuple(each for each in checkpoint.unanswered if each.turn != event.turn)}


def _bounded(questions: tuple[Question, ...]) -> tuple[Question, ...]:
    while len(questions) > 1 and sum(len(question.text) for question in questions) > _MAX_QUESTIONS_CHARS:
        questions = questions[1:]
    return questions


# -- turns --------------------------------------------------------------------------------------------


def _turn_begun(checkpoint: Checkpoint, event: jn.TurnBegun) -> dict[str, Any]:
    old = _find(checkpoint.turns, lambda turn: turn.turn == event.turn and not turn.dropped and not turn.settled)
    turn = replace(
        old if old is not None else OpenTurn(turn=event.turn),
        block=event.block,
        questions=event.questions,
        user_text=event.user_text,
        told=event.told,
        speculative=event.speculative,
        asks=event.asks,
    )
    turns = _put(checkpoint.turns, old, turn)
    changes: dict[str, Any] = {}
    if all(block.number != event.block for block in checkpoint.history):
        changes["history"] = (*checkpoint.history, HistoryBlock(number=event.block))
        changes["blocks"] = max(checkpoint.blocks, event.block)
    if not event.speculative:
        asked = {question.turn for question in event.questions}
        trailing = tuple(question.turn for question in event.questions if not question.text)
        if trailing:
            changes["trailing"] = (*checkpoint.trailing, *trailing)[-_MAX_TRAILING:]
        if asked:  # it goes on with the question of the one that was dropped before
            turns = tuple(
                replace(each, dropped=False) if each.dropped else each
                for each in turns
                if not each.dropped or each.in_doubt
            )
        changes["unanswered"] = tuple(each for each in checkpoint.unanswered if each.turn not in asked)
        if asked or event.asks:
            changes["owed"] = False
    return {**changes, "turns": turns}


def _part_planned(checkpoint: Checkpoint, event: jn.PartPlanned) -> dict[str, Any]:
    old = _under_way(checkpoint, event.turn)
    turn = old if old is not None else OpenTurn(turn=event.turn)
    part = OpenPart(
        number=event.part,
        text=event.text,
        allow_interrupt=event.allow_interrupt,
        filler=event.filler,
        repeats=event.repeats,
    )
    turn = replace(turn, greeting=turn.greeting or event.greeting, steps=(*turn.steps, part))
    turns = _put(checkpoint.turns, old, turn)
    if event.goes_on is not None:
        turns = tuple(replace(each, passed_on=True) if each.turn == event.goes_on else each for each in turns)
    return {"turns": turns, "greeted": checkpoint.greeted or event.greeting}


def _speech_written(checkpoint: Checkpoint, event: jn.SpeechWritten) -> dict[str, Any]:
    def change(part: OpenPart) -> OpenPart:
        spoken = part.spoken
        if event.pieces or event.words:
            spoken = (*spoken, Spoken(event.pieces, event.words))
        return replace(
            part,
            text=part.text + event.text,
            spoken=spoken,
            audio_ms=event.audio_ms,
            done=event.done,
            chars_per_s=event.chars_per_s,
        )

    return _change_part(checkpoint, event.turn, event.part, change)


def _agent_said(checkpoint: Checkpoint, event: ev.AgentSaid) -> dict[str, Any]:
    def change(part: OpenPart) -> OpenPart:
        complete = event.state == "played" and event.heard == event.text
        return replace(part, text=event.text, spoken=(), final=True, heard=event.heard, complete=complete)

    return _change_part(checkpoint, event.turn, event.part, change)


def _turn_written(checkpoint: Checkpoint, event: jn.TurnWritten) -> dict[str, Any]:
    return _change_turn(checkpoint, event.turn, written=True)


def _turn_cut(checkpoint: Checkpoint, event: jn.TurnCut) -> dict[str, Any]:
    return _change_turn(checkpoint, event.turn, cut=True)


def _tool_started(checkpoint: Checkpoint, event: ev.ToolStarted) -> dict[str, Any]:
    turn = _under_way(checkpoint, event.turn)
    if turn is None:
        return {}
    group = max((call.group for call in turn.calls), default=-1)
    if all(call.state for call in turn.calls if call.group == group):
        group += 1  # what was asked for together starts together
    call = OpenCall(call_id=event.call_id, name=event.name, arguments=event.arguments, key=event.key, group=group)
    return {"turns": _put(checkpoint.turns, turn, replace(turn, steps=(*turn.steps, call)))}


def _tool_ended(checkpoint: Checkpoint, event: ev.ToolEnded) -> dict[str, Any]:
    def waits(turn: OpenTurn) -> bool:
        return turn.turn == event.turn and any(call.call_id == event.call_id for call in turn.in_doubt)

    changes: dict[str, Any] = {"owed": True} if event.late else {}
    turn = next((turn for turn in checkpoint.turns if waits(turn)), None)
    if turn is None:
        return changes
    steps = tuple(
        replace(step, result=event.result, state=event.state)
        if isinstance(step, OpenCall) and step.call_id == event.call_id and not step.state
        else step
        for step in turn.steps
    )
    return {**changes, "turns": _put(checkpoint.turns, turn, replace(turn, steps=steps))}


def _find(turns: tuple[OpenTurn, ...], wanted: Callable[[OpenTurn], bool]) -> OpenTurn | None:
    """The newest: a uuid may be used for a second turn."""
    return next((turn for turn in reversed(turns) if wanted(turn)), None)


def _under_way(checkpoint: Checkpoint, uuid: UUID) -> OpenTurn | None:
    return _find(checkpoint.turns, lambda turn: turn.turn == uuid)


def _put(turns: tuple[OpenTurn, ...], old: OpenTurn | None, new: OpenTurn) -> tuple[OpenTurn, ...]:
    if old is None:
        return (*turns, new)
    return tuple(new if turn is old else turn for turn in turns)


def _change_turn(checkpoint: Checkpoint, uuid: UUID, **changes: Any) -> dict[str, Any]:
    turn = _under_way(checkpoint, uuid)
    return {} if turn is None else {"turns": _put(checkpoint.turns, turn, replace(turn, **changes))}


def _change_part(
    checkpoint: Checkpoint, uuid: UUID, number: int, change: Callable[[OpenPart], OpenPart]
) -> dict[str, Any]:
    turn = _under_way(checkpoint, uuid)
    if turn is None:
        return {}
    steps = tuple(change(step) if isinstance(step, OpenPart) and step.number == number else step for step in turn.steps)
    return {"turns": _put(checkpoint.turns, turn, replace(turn, steps=steps))}


# -- history ------------------------------------------------------------------------------------------


def _history_written(checkpoint: Checkpoint, event: jn.HistoryWritten) -> dict[str, Any]:
    if not event.block and event.turn is None:
        return {"history": (*checkpoint.history, HistoryBlock(items=event.items))} if event.items else {}
    changes: dict[str, Any] = {"owed": True} if event.owed else {}
    turn = _find(checkpoint.turns, lambda turn: turn.turn == event.turn and turn.block == event.block)
    if turn is not None:
        changes["turns"] = _settled(checkpoint.turns, turn, event)
        if event.state == "dropped" and not turn.settled:
            # They wait again, before what the caller has said since.
            changes["unanswered"] = _bounded((*turn.waiting, *checkpoint.unanswered))
    if event.block:
        stays = any(each.block == event.block for each in changes.get("turns", checkpoint.turns))
        changes["history"] = tuple(
            HistoryBlock(number=block.number, items=event.items) if block.number == event.block else block
            for block in checkpoint.history
            if block.number != event.block or event.items or stays
        )
    return changes


def _settled(turns: tuple[OpenTurn, ...], turn: OpenTurn, event: jn.HistoryWritten) -> tuple[OpenTurn, ...]:
    """What is still to be known of a turn that the history has."""
    # The next question goes on with that of a turn that was dropped while a tool of it had started.
    dropped = event.state == "dropped" and (turn.dropped or not turn.settled)
    asked = dropped and (turn.calls or turn.told)
    if not turn.block or event.state == "discarded" or not (turn.in_doubt or asked):
        return tuple(each for each in turns if each is not turn)
    return _put(turns, turn, replace(turn, settled=True, dropped=dropped))


def _history_rewritten(checkpoint: Checkpoint, event: jn.HistoryRewritten) -> dict[str, Any]:
    numbers = {block.number for block in event.blocks}
    turns = tuple(turn if turn.block in numbers else replace(turn, block=0) for turn in checkpoint.turns)
    return {"history": event.blocks, "turns": turns, "blocks": max(checkpoint.blocks, *numbers, 0)}


_STEPS: dict[type, Callable[[Checkpoint, Any], dict[str, Any]]] = {
    ev.CallStarted: _call_started,
    ev.CallResumed: _call_resumed,
    ev.StreamChanged: _stream_changed,
    ev.TransferChanged: _transfer_changed,
    ev.HandedOff: _handed_off,
    ev.CallerSaid: _caller_said,
    ev.AgentSaid: _agent_said,
    ev.ToolStarted: _tool_started,
    ev.ToolEnded: _tool_ended,
    ev.CallEnded: _call_ended,
    jn.TurnBegun: _turn_begun,
    jn.PartPlanned: _part_planned,
    jn.SpeechWritten: _speech_written,
    jn.TurnWritten: _turn_written,
    jn.TurnCut: _turn_cut,
    jn.HistoryWritten: _history_written,
    jn.HistoryRewritten: _history_rewritten,
    jn.QuestionClosed: _question_closed,
    jn.EndPlanned: _end_planned,
    jn.EndWithdrawn: _end_withdrawn,
    jn.DurationWarned: _duration_warned,
    jn.StateSaved: _state_saved,
}
