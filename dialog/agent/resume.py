"""Going on with a call after an outage: what the caller has heard, and what is still to be said.

Either an agent in another process had it, or the line was away while a reply sounded.

Pure, apart from the history that it fills. What is decided here:

* history ends at what was heard; the line's reports tell it;
* a question whose reply nobody has heard a word of is answered again;
* of a reply that was cut short by the outage, not by the caller, the rest is said: word for word where all of
  it is known, else the model is asked to go on;
* what a tool has answered counts; of one that had started and not answered the model is told that nobody
  knows, unless it may be run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple
from uuid import UUID

import msgspec

from dialog.agent.draft import Draft
from dialog.agent.heard import HeardMap, SpeechRate
from dialog.agent.history import UNKNOWN, History, Restored
from dialog.agent.shaping.sentences import sentence_ends
from dialog.calls.checkpoint import Checkpoint, OpenCall, OpenPart, OpenTurn
from dialog.calls.journal import Question
from dialog.llm.llm import ToolCall, ToolResult
from dialog.message import LineSnapshot, Playback

__all__ = ["NOTE", "Doubt", "Ended", "Rest", "Resumption", "Settled", "Unheard", "Unknown", "rest_of", "resume"]

NOTE = (
    "The connection was interrupted for a moment while you spoke. The caller has heard only what stands here. "
    "Go on from there in a natural way, and repeat nothing."
)
"""What the model is told that goes on with half a reply."""


class Ended(NamedTuple):
    """A part of which it is now known what was heard."""

    turn: UUID
    part: OpenPart
    heard: str
    state: Literal["played", "cut", "lost"]
    heard_ms: float


class Rest(NamedTuple):
    """Something that is still to be said."""

    turn: UUID
    """Whose it was."""
    text: str
    allow_interrupt: bool
    greeting: bool
    begun: bool
    """Some of that turn was heard."""
    repeats: int = 0
    """So many characters at the start of ``text`` the history has already."""


class Unheard(NamedTuple):
    """A part that was not heard to its end."""

    text: str
    heard: str
    allow_interrupt: bool = True
    repeats: int = 0
    """So many characters of it the history has already."""


def rest_of(
    turn: UUID, parts: Iterable[Unheard], *, greeting: bool, begun: bool, sentence: bool = False
) -> Rest | None:
    """What is still to be said of a turn; ``sentence``: from the start of the one that was cut."""
    texts: list[str] = []
    allow_interrupt, repeats = True, 0
    for part in parts:
        known = len(part.heard)
        start = max((end for end in sentence_ends(part.text) if end <= known), default=0) if sentence else known
        left = part.text[start:]
        if not part.text[known:].strip():
            continue
        if not texts:
            repeats = max(0, max(known, part.repeats) - start - (len(left) - len(left.lstrip())))
        texts.append(left.strip())
        allow_interrupt = allow_interrupt and part.allow_interrupt
    return Rest(turn, " ".join(texts), allow_interrupt, greeting, begun, repeats) if texts else None


class Doubt(NamedTuple):
    """A tool that is to be run again."""

    turn: UUID
    call: OpenCall
    draft: Draft


class Unknown(NamedTuple):
    """A tool of which nobody knows what became of it."""

    turn: UUID
    call: OpenCall


class Settled(NamedTuple):
    """A turn that is over now; ``owed``: the model has to say the rest of it."""

    turn: UUID
    draft: Draft | None
    owed: bool


class Resumption(NamedTuple):
    """How to go on."""

    ended: tuple[Ended, ...]
    settled: tuple[Settled, ...]
    rests: tuple[Rest, ...]
    questions: tuple[Question, ...]
    """What is to be answered, oldest first."""
    owed: bool
    """The model is to be asked, if no question asks it."""
    again: tuple[Doubt, ...]
    unknown: tuple[Unknown, ...]
    spent: tuple[tuple[UUID, int], ...]
    """How many parts turns had that may speak again."""


def resume(
    checkpoint: Checkpoint,
    snapshot: LineSnapshot,
    history: History,
    *,
    sounds: bool = True,
    has_model: bool = False,
    may_repeat: Callable[[str], bool] = lambda _: False,
) -> Resumption:
    """Fill ``history``, and tell how to go on.

    Args:
        checkpoint: Where the call stands.
        snapshot: What the line knows; of a part that it does not know nothing was heard.
        history: Of the agent that goes on; what is in it is replaced.
        sounds: It is a call with sound.
        has_model: Somebody can be asked to go on with half a reply.
        may_repeat: Whether a tool, by its name, may be run again.
    """
    return _Resuming(checkpoint, snapshot, sounds=sounds, has_model=has_model, may_repeat=may_repeat).into(history)


class _Resuming:
    def __init__(
        self,
        checkpoint: Checkpoint,
        snapshot: LineSnapshot,
        *,
        sounds: bool,
        has_model: bool,
        may_repeat: Callable[[str], bool],
    ) -> None:
        self._checkpoint = checkpoint
        self._playbacks = {(each.uuid, each.part): each for each in snapshot.playbacks}
        self._sounds = sounds
        self._has_model = has_model
        self._may_repeat = may_repeat
        self._ended: list[Ended] = []
        self._settled: list[Settled] = []
        self._rests: list[Rest] = []
        self._dropped: list[Question] = []
        self._again: list[Doubt] = []
        self._unknown: list[Unknown] = []
        self._owed = checkpoint.owed

    def into(self, history: History) -> Resumption:
        turns = {turn.block: turn for turn in self._checkpoint.turns if turn.block}
        blocks = [
            Restored(turns[block.number].turn, block.number, turns[block.number].user_text, turns[block.number].told)
            if block.number in turns
            else block.items
            for block in self._checkpoint.history
        ]
        drafts = {draft.number: draft for draft in history.restore(blocks)}
        for turn in self._checkpoint.turns:
            self._turn(turn, drafts.get(turn.block))
        return Resumption(
            ended=tuple(self._ended),
            settled=tuple(self._settled),
            rests=tuple(self._rests),
            questions=(*self._dropped, *self._checkpoint.unanswered),
            owed=self._owed,
            again=tuple(self._again),
            unknown=tuple(self._unknown),
            spent=self._spent(),
        )

    def _turn(self, turn: OpenTurn, draft: Draft | None) -> None:
        if turn.speculative:  # its question was not certain; it comes again, or waits already
            if draft is not None:
                draft.history.discard(draft)
            self._settled.append(Settled(turn.turn, draft, owed=False))
            return
        heard = {part.number: self._part(turn, part) for part in turn.parts}
        self._replay(turn, draft)
        words = any(heard[part.number][0].strip() for part in turn.parts if not part.filler)
        owed = False
        if draft is not None and turn.settled:
            self._end(draft, turn, heard, dropped=turn.dropped)
        elif not turn.cut and not words and turn.questions:
            known = [question for question in turn.waiting if question.text]
            self._dropped += known
            owed = not known  # what the caller said nobody knows any more
            if draft is not None:
                self._end(draft, turn, heard, dropped=True)
        else:
            if draft is not None:
                self._end(draft, turn, heard, dropped=False)
            if not turn.cut and not turn.passed_on:
                owed = self._go_on(turn, heard, words=words)
        self._owed = self._owed or owed
        self._settled.append(Settled(turn.turn, draft, owed=owed))

    def _part(self, turn: OpenTurn, part: OpenPart) -> tuple[str, bool]:
        if part.final:
            return part.heard, part.complete
        playback = self._playbacks.get((turn.turn, part.number))
        heard, whole = _heard(part, playback, sounds=self._sounds)
        state = playback.state if playback is not None else "lost"
        ms = playback.heard_ms if playback is not None else 0.0
        if part.text:
            final: Literal["played", "cut", "lost"] = state if state in ("played", "cut") else "lost"
            self._ended.append(Ended(turn.turn, part, heard, final, ms))
        return heard, whole

    def _replay(self, turn: OpenTurn, draft: Draft | None) -> None:
        """Tell the draft what the turn said and did."""
        if draft is None:
            return
        group = -1
        for step in turn.steps:
            if isinstance(step, OpenPart):
                if not step.filler:
                    draft.say(step.number, step.text[step.repeats :])
            elif step.group != group:
                group = step.group
                self._act(turn, draft, [each for each in turn.calls if each.group == group])

    def _act(self, turn: OpenTurn, draft: Draft, calls: list[OpenCall]) -> None:
        """Tell the draft of tools that were asked for together."""
        for call in calls:
            draft.call(ToolCall(id=call.call_id, name=call.name, arguments=call.arguments))
        for call in calls:
            if call.state:
                draft.result(_result(call, call.result, call.state))
            elif self._may_repeat(call.name):
                self._again.append(Doubt(turn.turn, call, draft))
            else:
                self._unknown.append(Unknown(turn.turn, call))
                draft.result(_result(call, UNKNOWN, "unknown"))

    def _go_on(self, turn: OpenTurn, heard: Mapping[int, tuple[str, bool]], *, words: bool) -> bool:
        """Say what was not heard of a turn, or tell whether the model has to."""
        if not turn.written and self._has_model and (turn.questions or turn.asks):
            return True
        left = [
            Unheard(part.text, heard[part.number][0], part.allow_interrupt, part.repeats)
            for part in turn.parts
            if not part.filler and not heard[part.number][1]
        ]
        rest = rest_of(turn.turn, left, greeting=turn.greeting, begun=words)
        if rest is not None:
            self._rests.append(rest)
        return False

    def _end(self, draft: Draft, turn: OpenTurn, heard: Mapping[int, tuple[str, bool]], *, dropped: bool) -> None:
        if dropped:
            draft.history.drop(draft)
        else:
            parts = [(part, *heard[part.number]) for part in turn.parts]
            draft.history.commit(draft, {part.number: (text[part.repeats :], whole) for part, text, whole in parts})

    def _spent(self) -> tuple[tuple[UUID, int], ...]:
        spent: dict[UUID, int] = {}
        for question in (*self._dropped, *self._checkpoint.unanswered):
            if question.parts:
                spent[question.turn] = question.parts
        for uuid, part in self._playbacks:
            spent[uuid] = max(spent.get(uuid, 0), part + 1)
        return tuple(spent.items())


def _heard(part: OpenPart, playback: Playback | None, *, sounds: bool) -> tuple[str, bool]:
    """The words of a part that were heard, and whether that is all of it."""
    if playback is None:
        return "", False
    if playback.state == "played" and part.done and (part.audio_ms > 0 or not sounds or not part.text.strip()):
        return part.text, True
    heard_map = HeardMap(SpeechRate(part.chars_per_s))
    for spoken in part.spoken:
        for piece in spoken.pieces:
            heard_map.post(piece)
        heard_map.align(spoken.words)
    end = heard_map.heard(playback.heard_ms, part.audio_ms if part.done else None, part.text)
    return part.text[:end].rstrip(), False


def _result(call: OpenCall, content: str, state: str) -> ToolResult:
    fields = {"type": "tool_result", "id": call.call_id, "name": call.name, "content": content, "state": state}
    return msgspec.convert(fields, ToolResult)
