"""What was said in a call, as a model is told it: only what was heard, and every effect that happened.

Pure: nothing here waits, logs or knows a provider. A turn that is under way writes into its
:class:`~dialog.agent.draft.Draft`, in which everything generated counts, because the turn's own next step builds on it.
When the line has told what was heard, :meth:`History.commit` cuts the draft down to that. Words
that nobody heard leave no trace; a tool that has started always does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple, TypeAlias
from uuid import UUID

from dialog.agent.draft import Draft
from dialog.errors import StateError
from dialog.llm.llm import Entry, Item, ToolCall, ToolResult

__all__ = ["UNKNOWN", "Excerpt", "History", "Restored"]

UNKNOWN = "outcome unknown: verify before you repeat this"
"""What a model is told of a tool that had started, and of which nobody knows what became of it."""
_TITLE = "Summary of the conversation so far:\n"

_Block: TypeAlias = Draft | tuple[Item, ...]
"""A turn, or what was added as it is."""


class Restored(NamedTuple):
    """A turn that was under way in another process; see :meth:`History.restore`."""

    turn: UUID
    number: int
    user_text: str
    told: str


class History:
    """The conversation of one call, in its order.

    Whatever is called in whatever order, what :meth:`request_items` returns can be sent to a model:
    every tool call is followed by its result (the real one, or "still running"), no entry is empty,
    and no words of the assistant end in a space.

    Args:
        items: An earlier conversation to go on from, as it was stored: a call whose result is
            missing gets "outcome unknown", a result without its call is left out.
        max_chars: Forget the oldest turns, never instructions, when all texts together are longer.
    """

    def __init__(self, items: Iterable[Item] = (), *, max_chars: int | None = None) -> None:
        self._max_chars = max_chars
        self._blocks: list[_Block] = []
        self._dropped: Draft | None = None
        self.version: int = 0
        """Counts what changes what a model is told, the turns under way apart."""
        self.watcher: Callable[[_Block | None], object] | None = None
        """Told of every turn that has ended or changed since, of items that were added, and with ``None`` when
        more than that is otherwise."""
        self.add(*items)

    def system(self, text: str) -> None:
        """Append an instruction, or a fact that nobody said."""
        self.add(Entry(role="system", text=text))

    def instruct(self, text: str) -> None:
        """Put ``text`` in the place of the instructions that the conversation began with; empty: of none."""
        first = self._blocks[0] if self._blocks else None
        if isinstance(first, tuple) and _is_instruction(first):
            del self._blocks[0]
        if text:
            self._blocks.insert(0, (Entry(role="system", text=text),))
        self.version += 1
        self.rewritten()

    def developer(self, text: str) -> None:
        """Append an instruction of the application."""
        self.add(Entry(role="developer", text=text))

    def user(self, text: str) -> None:
        """Append words of the caller that no turn answers."""
        self.add(Entry(role="user", text=text))

    def assistant(self, text: str) -> None:
        """Append words that the caller heard, outside any turn."""
        self.add(Entry(role="assistant", text=text))

    def add(self, *items: Item) -> None:
        """Append items as they are, repaired where they break the rules of the class."""
        block = tuple(_repaired(items))
        if block:
            self._blocks.append(block)
            self.version += 1
            self._tell(block)
            self._forget()

    def blocks(self) -> tuple[_Block, ...]:
        """Turns, and what was written between them, in their order."""
        return tuple(self._blocks)

    def changed(self, draft: Draft) -> None:
        """A turn that has ended is otherwise than it was written down."""
        self._tell(draft)

    def move_to_end(self, draft: Draft) -> None:
        """A turn speaks only now: what happened meanwhile comes before it."""
        self._blocks.remove(draft)
        self._blocks.append(draft)

    def rewritten(self) -> None:
        """More has changed than one turn: tell whoever writes it down."""
        self._tell(None)

    def restore(self, blocks: Iterable[tuple[Item, ...] | Restored]) -> list[Draft]:
        """Take the place of another process's history; return a draft for each turn that was under way there.

        Instructions that this history begins with take the place of those. Of the drafts everything is still
        to be told: what they said and did, and what became of them.
        """
        first = next(iter(self._blocks), None)
        self._blocks = []
        self._dropped = None
        drafts: list[Draft] = []
        for block in blocks:
            if isinstance(block, Restored):
                draft = Draft(self, block.user_text, told=block.told)
                draft.turn, draft.number = block.turn, block.number
                drafts.append(draft)
                self._blocks.append(draft)
            elif block:
                self._blocks.append(block)
        if isinstance(first, tuple) and _is_instruction(first):
            if self._blocks and _is_instruction(self._blocks[0]):
                del self._blocks[0]
            self._blocks.insert(0, first)
        self.version += 1
        return drafts

    def draft(self, user_text: str | Sequence[str] = "") -> Draft:
        """Begin a turn that answers ``user_text``; several utterances become one entry.

        When the turn before was dropped after its tool had started, its question stays where it is,
        before the call, and is not repeated here.
        """
        text = user_text if isinstance(user_text, str) else " ".join(user_text)
        text = " ".join(text.split())
        before: Draft | None = None
        if text:
            before, self._dropped = self._dropped, None
        told = before.kept if before is not None else ""
        if not text.startswith(told):
            told = ""
        draft = Draft(self, text.removeprefix(told).lstrip(), told=told, previous=before)
        self._blocks.append(draft)
        return draft

    def commit(self, draft: Draft, heard: Mapping[int, tuple[str, bool]]) -> None:
        """End a turn: keep what was heard of it, and all its tools.

        Args:
            draft: Of this history; one that has ended already is left as it is.
            heard: For each part the source text that was heard and whether it was heard to its end.
                A part that is not in it was not heard.

        Raises:
            StateError: The draft belongs to another history.
        """
        if self._own(draft):
            draft.end("committed", heard)
            draft.own_items(asking=False)  # made now: while they are made for the next request, a caller waits
            self.version += 1
            self._tell(draft)
            self._forget()

    def drop(self, draft: Draft) -> None:
        """End a turn of which nothing was heard: no word of it stays, also not the caller's.

        The next turn answers those words again. But when a tool has started, question, call and
        result stay.

        Raises:
            StateError: The draft belongs to another history.
        """
        if self._own(draft):
            draft.end("dropped")
            self.version += 1
            if draft.user_text or draft.told:  # what the agent wanted to say by itself asks nothing
                self._dropped = draft
            self._tell(draft)

    def discard(self, draft: Draft) -> None:
        """End a turn that was begun before it was certain, as if it had never been: also its tools leave no trace.

        That is right for tools that change nothing, and only those may run in such a turn.

        Raises:
            StateError: The draft belongs to another history.
        """
        if self._own(draft):
            draft.end("discarded")
            self._blocks.remove(draft)
            if self._dropped is None:
                self._dropped = draft.previous
            self._tell(draft)

    def request_items(self) -> tuple[Item, ...]:
        """Return the conversation as a model may be told it, turns under way with all they generated."""
        return self.items_for(None)

    def items(self) -> tuple[Item, ...]:
        """Return what has happened: the ended turns only."""
        return tuple(item for block in self._blocks for item in _ended(block))

    @property
    def chars(self) -> int:
        """Characters of all texts of what has happened."""
        return sum(map(_size, self.items()))

    def oldest_turns(self, keep: int) -> Excerpt | None:
        """Return the turns before the newest ``keep``, which a summary could replace; ``None``: there are none.

        Every turn is whole, with its tool calls and their results. Instructions are never in it, nor a turn
        that is under way or has a tool at work, and what comes after that.
        """
        turns = [block for block in self._blocks if not (_is_instruction(block) and not _is_summary(block))]
        chosen: list[_Block] = []
        for block in turns[: max(0, len(turns) - keep)]:
            if _is_open(block) or block is self._dropped:
                break
            chosen.append(block)
        if all(map(_is_summary, chosen)):
            return None
        excerpt = Excerpt(chosen)
        return excerpt if excerpt.items else None

    def replace_turns(self, excerpt: Excerpt, summary: str) -> bool:
        """Put a summary where the turns of ``excerpt`` stand; tell whether it was done.

        It is not when some of them are gone meanwhile. Nothing changes of what has happened, so replies that
        are under way stay valid: :attr:`version` does not count this.
        """
        where = {id(block): number for number, block in enumerate(self._blocks)}
        old = {id(block) for block in excerpt._blocks}
        if not old <= where.keys():
            return False
        first = min(where[name] for name in old)
        instructions = tuple(item for block in excerpt._blocks for item in _done(block)[: _leading(block)])
        made: list[_Block] = [instructions] if instructions else []
        made.append((Entry(role="system", text=_TITLE + summary.strip()),))
        self._blocks[first:] = made + [block for block in self._blocks[first:] if id(block) not in old]
        self.rewritten()
        return True

    def _own(self, draft: Draft) -> bool:
        if draft.history is not self:
            raise StateError("the draft belongs to another history")
        return draft.open

    def items_for(self, draft: Draft | None) -> tuple[Item, ...]:
        """Return the conversation as the model of a turn is told it; ``None``: of none in particular."""
        items: list[Item] = []
        behind = False
        for block in self._blocks:
            if isinstance(block, tuple):
                items.extend(block)
            elif block.fixed is not None:  # nearly all of a long conversation
                items.extend(block.fixed)
            elif not (behind and block.open):  # a turn knows nothing of those that began after it
                items.extend(block.own_items(asking=True))
            behind = behind or block is draft
        return tuple(items)

    def _forget(self) -> None:
        if self._max_chars is None:
            return
        sizes = [sum(_size(item) for item in _ended(block)) for block in self._blocks]
        excess = sum(sizes) - self._max_chars
        kept: list[_Block] = []
        for number, (block, size) in enumerate(zip(self._blocks, sizes, strict=True)):
            last = number == len(self._blocks) - 1
            if excess <= 0 or last or _is_open(block) or _is_instruction(block):
                kept.append(block)
            else:
                excess -= size
        if len(kept) != len(self._blocks):
            self._blocks = kept
            self.rewritten()

    def _tell(self, what: _Block | None) -> None:
        if self.watcher is not None:
            self.watcher(what)


class Excerpt:
    """The oldest turns of a history, as they were; made by :meth:`History.oldest_turns`."""

    __slots__ = ("_blocks", "items")

    def __init__(self, blocks: Sequence[_Block]) -> None:
        self._blocks = tuple(blocks)
        self.items: tuple[Item, ...] = tuple(item for block in blocks for item in _done(block)[_leading(block) :])
        """What was said and done in them; instructions that they begin with are not among it."""

    @property
    def size(self) -> int:
        """Characters of all its texts."""
        return sum(map(_size, self.items))

    def __repr__(self) -> str:
        return f"<Excerpt of {len(self._blocks)} turns, {self.size} chars>"


def _done(block: _Block) -> Sequence[Item]:
    return block if isinstance(block, tuple) else block.own_items(asking=False)


def _is_summary(block: _Block) -> bool:
    """Whether it stands for turns; the next summary takes it in. It is told by its words, also in another process."""
    if not isinstance(block, tuple) or len(block) != 1:
        return False
    (item,) = block
    return isinstance(item, Entry) and item.role == "system" and item.text.startswith(_TITLE)


def _leading(block: _Block) -> int:
    """How many instructions an earlier conversation begins with, which are to stay."""
    if isinstance(block, Draft) or _is_summary(block):
        return 0
    return sum(
        1 for _ in takewhile(lambda item: isinstance(item, Entry) and item.role in ("system", "developer"), block)
    )


def _ended(block: _Block) -> Sequence[Item]:
    if isinstance(block, tuple):
        return block
    return () if block.open else block.own_items(asking=False)


def _is_open(block: _Block) -> bool:
    """Whether more may be written: also a tool of an ended turn that has not answered."""
    return isinstance(block, Draft) and (block.open or block.at_work)


def _is_instruction(block: _Block) -> bool:
    return isinstance(block, tuple) and all(
        isinstance(item, Entry) and item.role in ("system", "developer") for item in block
    )


def _size(item: Item) -> int:
    if isinstance(item, Entry):
        return len(item.text)
    return len(item.arguments) if isinstance(item, ToolCall) else len(item.content)


def _repaired(items: Iterable[Item]) -> list[Item]:
    """Return items with each call answered right behind it, and nothing empty or unasked for."""
    out: list[Item] = []
    step: list[ToolCall] = []
    results: dict[str, ToolResult] = {}

    def answer() -> None:
        for call in step:
            unknown = ToolResult(id=call.id, name=call.name, content=UNKNOWN, state="unknown")
            out.append(results.get(call.id, unknown))
        step.clear()
        results.clear()

    for item in items:
        if isinstance(item, ToolResult):
            if any(call.id == item.id for call in step):
                results.setdefault(item.id, item)
            continue
        if results or not isinstance(item, ToolCall):
            answer()
        if isinstance(item, ToolCall):
            if all(call.id != item.id for call in step):
                step.append(item)
                out.append(item)
        elif item.text.strip():
            if item.role == "assistant" and item.text != item.text.strip():
                item = Entry(role="assistant", text=item.text.strip(), interrupted=item.interrupted)  # noqa: PLW2901
            out.append(item)
    answer()
    return out
