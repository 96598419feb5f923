"""Writes down what an agent in another process would need to go on with the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol
from uuid import UUID

from dialog.agent.draft import Draft
from dialog.agent.endings import Transfer
from dialog.agent.history import History
from dialog.agent.speech import Part, PartOptions
from dialog.agent.turn import Turn
from dialog.calls import journal as jn
from dialog.llm.llm import Item
from dialog.message import Utterance, Word

__all__ = ["JournalScribe", "Note", "Scribe"]

_STATES: dict[str, Literal["kept", "dropped", "discarded"]] = {"dropped": "dropped", "discarded": "discarded"}


class Note(Protocol):
    """Makes an entry of the journal, with its number and time."""

    def __call__(self, entry: Callable[..., Any], /, **fields: Any) -> object: ...  # noqa: D102


class Scribe:
    """Writes nothing down: the call has no journal, and ends with its process."""

    def watch(self, history: History) -> None:
        """Write down what becomes of ``history`` from now on."""

    def rewritten(self) -> None:
        """Write down the whole history."""

    def begun(self, turn: Turn) -> None:
        """A turn has the floor, or is begun early; to be called again once that is certain."""

    def planned(self, turn: Turn, number: int, text: str, options: PartOptions, *, goes_on: UUID | None = None) -> None:
        """A turn is about to get a part whose text is known."""

    def opened(self, turn: Turn, part: Part) -> None:
        """A part is about to be made known to the line."""

    def aligned(self, turn: Turn, part: Part, words: tuple[Word, ...]) -> None:
        """The voice has told when it says its words."""

    def spoke(self, turn: Turn, part: Part) -> None:
        """Audio of a part is about to go to the line."""

    def acts(self, turn: Turn) -> None:
        """Tools are about to start: what was said before them is written down before."""

    def complete(self, turn: Turn) -> None:
        """All text of a turn is known."""

    def cut(self, turn: Turn) -> None:
        """A turn is given up."""

    def over(self, turn: Turn) -> None:
        """Nothing more happens in a turn."""

    def closed(self, utterance: Utterance) -> None:
        """Something that the caller said is not going to be answered."""

    def near_end(self) -> None:
        """The caller is told that the call comes near its longest duration."""

    def ending(self, reason: str, transfer: Transfer | None) -> None:
        """The call is to end once what is said was heard."""

    def stays(self) -> None:
        """The call is not to end after all."""

    def state(self, state: bytes) -> None:
        """The user's state may have changed."""

    def settled(self, draft: Draft | None, turn: UUID, *, owed: bool = False) -> None:
        """A turn of another process is over; ``owed``: the model has to say the rest of it."""


class _Known:
    """What the journal has of a part."""

    __slots__ = ("chars", "done", "pieces", "words")

    def __init__(self) -> None:
        self.chars = 0
        self.pieces = 0
        self.words: tuple[Word, ...] = ()
        """They wait to be written down."""
        self.done = False


class JournalScribe(Scribe):
    """Writes down what the fold of a journal needs, and always before it has an effect.

    Args:
        note: Makes an entry.
        block: The highest number that turns in the history have so far.
        state: The user's state as it was written down last.
    """

    def __init__(self, note: Note, *, block: int = 0, state: bytes = b"") -> None:
        self._note = note
        self._block = block
        self._state = state
        self._history: History | None = None
        self._known: dict[tuple[UUID, int], _Known] = {}

    def watch(self, history: History) -> None:
        """See :class:`Scribe`."""
        self._history = history
        history.watcher = self._on_history

    def rewritten(self) -> None:
        """See :class:`Scribe`."""
        self._on_history(None)

    def begun(self, turn: Turn) -> None:
        """See :class:`Scribe`."""
        draft = turn.draft
        if not draft.number:
            self._block += 1
            draft.number = self._block
        questions = tuple(
            jn.Question(
                turn=each.uuid,
                text=each.data,
                start_ms=each.at_ms,
                end_ms=each.end_ms,
                speaker=", ".join(each.speakers),
            )
            for each in turn.utterances
        )
        self._note(
            jn.TurnBegun,
            turn=turn.uuid,
            block=draft.number,
            questions=questions,
            user_text=draft.user_text,
            told=draft.told,
            speculative=turn.speculative,
            asks=turn.reply is not None,
        )

    def planned(self, turn: Turn, number: int, text: str, options: PartOptions, *, goes_on: UUID | None = None) -> None:
        """See :class:`Scribe`."""
        known = self._known.setdefault((turn.uuid, number), _Known())
        known.chars = len(text)
        self._note(
            jn.PartPlanned,
            turn=turn.uuid,
            part=number,
            text=text,
            allow_interrupt=options.allow_interrupt,
            filler=options.filler,
            greeting=turn.greeting,
            goes_on=goes_on,
            repeats=options.repeats,
        )

    def opened(self, turn: Turn, part: Part) -> None:
        """See :class:`Scribe`."""
        if (turn.uuid, part.number) not in self._known:
            self.planned(turn, part.number, part.speech.text, part.options)

    def aligned(self, turn: Turn, part: Part, words: tuple[Word, ...]) -> None:
        """See :class:`Scribe`."""
        known = self._known.get((turn.uuid, part.number))
        if known is None:
            return
        known.words += words
        if part.audio_ms > 0:  # they are of audio that may be heard by now
            self.spoke(turn, part)

    def spoke(self, turn: Turn, part: Part) -> None:
        """See :class:`Scribe`."""
        known = self._known.get((turn.uuid, part.number))
        if known is None or turn.speculative:
            return
        text = part.speech.text
        pieces = tuple(part.heard_map.pieces[known.pieces :])
        done = part.audio_done and not known.done
        if not (pieces or known.words or done or len(text) > known.chars):
            return
        words, known.words = known.words, ()
        more = text[known.chars :]
        known.chars, known.done = len(text), part.audio_done
        known.pieces += len(pieces)
        self._note(
            jn.SpeechWritten,
            turn=turn.uuid,
            part=part.number,
            text=more,
            pieces=pieces,
            words=words,
            audio_ms=part.audio_ms,
            done=part.audio_done,
            chars_per_s=part.heard_map.chars_per_s,
        )

    def acts(self, turn: Turn) -> None:
        """See :class:`Scribe`."""
        for part in turn.speech.parts:
            if not part.final:
                self.spoke(turn, part)

    def complete(self, turn: Turn) -> None:
        """See :class:`Scribe`."""
        self.acts(turn)
        self._note(jn.TurnWritten, turn=turn.uuid)

    def cut(self, turn: Turn) -> None:
        """See :class:`Scribe`."""
        self._note(jn.TurnCut, turn=turn.uuid)

    def over(self, turn: Turn) -> None:
        """See :class:`Scribe`."""
        for part in turn.speech.parts:
            self._known.pop((turn.uuid, part.number), None)

    def closed(self, utterance: Utterance) -> None:
        """See :class:`Scribe`."""
        self._note(jn.QuestionClosed, turn=utterance.uuid)

    def near_end(self) -> None:
        """See :class:`Scribe`."""
        self._note(jn.DurationWarned)

    def ending(self, reason: str, transfer: Transfer | None) -> None:
        """See :class:`Scribe`."""
        if transfer is None:
            self._note(jn.EndPlanned, reason=reason)
        else:
            self._note(
                jn.EndPlanned,
                reason=reason,
                tel=transfer.tel,
                back_within_s=transfer.back_within_s,
                summary=transfer.summary,
            )

    def stays(self) -> None:
        """See :class:`Scribe`."""
        self._note(jn.EndWithdrawn)

    def state(self, state: bytes) -> None:
        """See :class:`Scribe`."""
        if state != self._state:
            self._state = state
            self._note(jn.StateSaved, state=state)

    def settled(self, draft: Draft | None, turn: UUID, *, owed: bool = False) -> None:
        """See :class:`Scribe`."""
        if draft is None:  # it had never had the floor
            self._note(jn.HistoryWritten, turn=turn, owed=owed)
        else:
            self._written(draft, owed=owed)

    def _on_history(self, what: Draft | tuple[Item, ...] | None) -> None:
        if isinstance(what, Draft):
            self._written(what)
        elif what is not None:
            self._note(jn.HistoryWritten, items=what)
        elif self._history is not None:
            blocks = [
                jn.HistoryBlock(number=block.number, items=block.written())
                if isinstance(block, Draft)
                else jn.HistoryBlock(items=block)
                for block in self._history.blocks()
                if not isinstance(block, Draft) or block.number or not block.open
            ]
            self._note(jn.HistoryRewritten, blocks=tuple(blocks))

    def _written(self, draft: Draft, *, owed: bool = False) -> None:
        # A turn that goes on for an agent which has handed over may write into a history that is not the call's.
        mine = draft.history is self._history
        self._note(
            jn.HistoryWritten,
            block=draft.number if mine else 0,
            turn=draft.turn,
            state=_STATES.get(draft.state, "kept"),
            items=draft.written() if mine else (),
            owed=owed,
        )
