"""What was said in a call, as a model is told it: only what was heard, and every effect that happened.

Pure: nothing here waits, logs or knows a provider. A turn that is under way writes into its
:class:`Draft`, in which everything generated counts, because the turn's own next step builds on it.
When the line has told what was heard, :meth:`History.commit` cuts the draft down to that. Words
that nobody heard leave no trace; a tool that has started always does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Literal, NamedTuple, TypeAlias
from uuid import UUID

from dialog.errors import StateError
from dialog.llm.llm import Entry, Item, ToolCall, ToolResult

__all__ = ["UNKNOWN", "Draft", "Excerpt", "History", "Restored"]

_RUNNING = "still running; the result will follow"
_BACKGROUND = "started in the background; the result will follow"
UNKNOWN = "outcome unknown: verify before you repeat this"
"""What a model is told of a tool that had started, and of which nobody knows what became of it."""
_LATE = "(finished after the caller spoke again)"
_TITLE = "Summary of the conversation so far:\n"


class _Said:
    """Words of one part, as they came without a tool call between them."""

    __slots__ = ("part", "pieces")

    def __init__(self, part: int, text: str) -> None:
        self.part = part
        self.pieces = [text]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class _Called:
    """A tool that has started; ``told``: a model has read that it is still running."""

    __slots__ = ("background", "call", "result", "told")

    def __init__(self, call: ToolCall, *, background: bool) -> None:
        self.call = call
        self.background = background
        self.result: ToolResult | None = None
        self.told = False

    def answer(self) -> ToolResult:
        """Return the result, or what stands in for it."""
        if self.result is not None:
            return self.result
        content = _BACKGROUND if self.background else _RUNNING
        return ToolResult(id=self.call.id, name=self.call.name, content=content, state="running")


_Step = list[_Called]
"""Tools that one step of the model asked for together."""


class Draft:
    """What a turn has heard, said and done so far; made by :meth:`History.draft`.

    Every method may be called at any time, also after the draft was committed or dropped: words
    then count no more, tools still do.
    """

    __slots__ = (
        "_ended",
        "_history",
        "_nodes",
        "_previous",
        "_sealed",
        "_state",
        "_told",
        "heard",
        "number",
        "turn",
        "user_text",
    )

    def __init__(self, history: History, user_text: str) -> None:
        self.user_text: str = user_text
        """What the caller said, all utterances of the turn in one; empty when the agent began."""
        self.turn: UUID | None = None
        """Whose draft it is, for whoever writes down what becomes of it …"""
        self.number: int = 0
        """… and under which number; 0: under none."""
        self.heard: Mapping[int, tuple[str, bool]] = {}
        """Of each part that was heard: the words, and whether it was heard to its end."""
        self._history = history
        self._nodes: list[_Said | _Step] = []
        self._previous: Draft | None = None
        """The dropped turn whose question this one goes on with …"""
        self._told = ""
        """… and what of that question stands before it, for a tool had started."""
        self._state: Literal["open", "committed", "dropped", "discarded"] = "open"
        self._sealed = False  # a request was made of it: what comes now is another step
        self._ended: tuple[Item, ...] | None = None
        """Its items, once nothing changes them any more: every later request has them."""

    @property
    def open(self) -> bool:
        """Neither committed, dropped nor discarded yet."""
        return self._state == "open"

    @property
    def state(self) -> Literal["open", "committed", "dropped", "discarded"]:
        """What has become of it."""
        return self._state

    @property
    def told(self) -> str:
        """What stands before its own words of the caller's question, for a tool had started."""
        return self._told

    @property
    def history(self) -> History:
        """Whose turn it is."""
        return self._history

    def hear(self, user_text: str) -> None:
        """What the caller said is known only now."""
        text = " ".join(user_text.split())
        if text != self.user_text and self._state != "discarded":
            self.user_text = text.removeprefix(self._told).lstrip()
            self._ended = None
            self._history.version += 1
            self._changed()

    def begin(self) -> None:
        """The turn speaks only now: what happened while it waited comes before it."""
        if self.open:
            self._history._blocks.remove(self)
            self._history._blocks.append(self)

    def say(self, part: int, text: str) -> None:
        """Append source text to ``part``; after the end of the draft it is ignored."""
        if not text or not self.open:
            return
        last = self._nodes[-1] if self._nodes else None
        if isinstance(last, _Said) and last.part == part:
            last.pieces.append(text)
        else:
            self._nodes.append(_Said(part, text))

    def call(self, call: ToolCall, *, background: bool = False) -> None:
        """Note that a tool was started; to be called when it is, because from then on it is remembered.

        ``background``: the model is not to wait for it, and is told so.
        """
        self._ended = None
        last = self._nodes[-1] if self._nodes else None
        if isinstance(last, list) and not self._sealed and any(called.result is None for called in last):
            if all(called.call.id != call.id for called in last):
                last.append(_Called(call, background=background))
            return
        self._nodes.append([_Called(call, background=background)])
        self._sealed = False

    def result(self, result: ToolResult, *, again: bool = False) -> bool:
        """Note what a tool answered, and return whether that is news to the model.

        ``again``: it was run once more, for nobody knew what had become of it in another process.

        It is when a request has gone out in which the tool was still running. The history then
        keeps that and appends the result as a ``system`` entry; a turn of the agent's own should
        follow. A result without its call, or a second one, is ignored.
        """
        called = self._waiting_for(result)
        if called is None:
            return False
        if called.told:
            called.result = called.answer()
            self._changed()
            self._history.system(
                f"The tool {result.name} ({result.id}) has finished ({result.state}): {result.content}"
            )
            return True
        if not self.open:
            if not again:
                content = f"{result.content} {_LATE}".lstrip()
                result = ToolResult(id=result.id, name=result.name, content=content, state=result.state)
            self._history.version += 1
        called.result = result
        self._changed()
        return False

    def is_news(self, result: ToolResult) -> bool:
        """What :meth:`result` is going to return."""
        called = self._waiting_for(result)
        return called is not None and called.told

    def _waiting_for(self, result: ToolResult) -> _Called | None:
        if result.state == "running" or self._state == "discarded":
            return None
        return next((called for called in self._calls() if called.call.id == result.id and called.result is None), None)

    def _changed(self) -> None:
        """Something of it is otherwise than it was written down."""
        if not self.open:
            self._history._tell(self)

    def written(self) -> tuple[Item, ...]:
        """Return what the history has of it; nothing while it is open."""
        return () if self.open else tuple(self._own(asking=False))

    def items(self) -> tuple[Item, ...]:
        """Return the conversation for the next step of this turn: the history and all of this draft."""
        return self._history._items(self)

    @property
    def _kept(self) -> str:
        """What stays of the whole question if it is dropped."""
        return f"{self._told} {self.user_text}".strip() if self.started else self._told

    @property
    def started(self) -> bool:
        """Whether a tool was started, which dropping the draft does not undo."""
        return any(self._calls())

    def _calls(self) -> list[_Called]:
        return [called for node in self._nodes if isinstance(node, list) for called in node]

    def _own(self, *, asking: bool) -> Sequence[Item]:
        """Return the items of this draft alone; ``asking``: a model is about to read them."""
        if self._ended is None:
            items = self._items(asking=asking)
            if self.open or any(called.result is None for called in self._calls()):
                return items
            self._ended = tuple(items)
        self._sealed = self._sealed or asking
        return self._ended

    def _items(self, *, asking: bool) -> list[Item]:
        items: list[Item] = []
        if self.user_text and (self._state != "dropped" or self.started):
            items.append(Entry(role="user", text=self.user_text))
        offsets: dict[int, int] = {}  # how much of each part the nodes before this one hold
        words: Entry | None = None
        for node in self._nodes:
            if isinstance(node, list):
                _close(items, words)
                words = None
                items.extend(called.call for called in node)
                items.extend(called.answer() for called in node)
                for called in node:
                    called.told = called.told or (asking and called.result is None)
                continue
            text, complete = self._heard(node, offsets)
            if text.strip():
                if words is not None and words.interrupted:  # what comes after a cut is another utterance
                    _close(items, words)
                    words = None
                words = _join(words, text, interrupted=not complete)
            elif not complete and words is not None:
                words = _join(words, "", interrupted=True)
        _close(items, words)
        if asking:
            self._sealed = True
        return items

    def _heard(self, node: _Said, offsets: dict[int, int]) -> tuple[str, bool]:
        text = node.text
        if self._state == "open":
            return text, True
        start = offsets.get(node.part, 0)
        offsets[node.part] = start + len(text)
        heard, complete = self.heard.get(node.part, ("", False))
        if complete:
            return text, True
        # The heard words are a prefix of the part, which tool calls may have divided.
        mine = heard[start : start + len(text)]
        return mine, len(mine.rstrip()) >= len(text.rstrip())


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
        self._blocks: list[Draft | tuple[Item, ...]] = []
        self._dropped: Draft | None = None
        self.version: int = 0
        """Counts what changes what a model is told, the turns under way apart."""
        self.watcher: Callable[[Draft | tuple[Item, ...] | None], object] | None = None
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

    def blocks(self) -> tuple[Draft | tuple[Item, ...], ...]:
        """Turns, and what was written between them, in their order."""
        return tuple(self._blocks)

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
                draft = Draft(self, block.user_text)
                draft._told = block.told
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
        told = before._kept if before is not None else ""
        if not text.startswith(told):
            told = ""
        draft = Draft(self, text.removeprefix(told).lstrip())
        draft._previous, draft._told = before, told
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
            draft.heard = dict(heard)
            draft._state = "committed"
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
            draft._state = "dropped"
            self.version += 1
            if draft.user_text or draft._told:  # what the agent wanted to say by itself asks nothing
                self._dropped = draft
            self._tell(draft)

    def discard(self, draft: Draft) -> None:
        """End a turn that was begun before it was certain, as if it had never been: also its tools leave no trace.

        That is right for tools that change nothing, and only those may run in such a turn.

        Raises:
            StateError: The draft belongs to another history.
        """
        if self._own(draft):
            draft._state = "discarded"
            self._blocks.remove(draft)
            if self._dropped is None:
                self._dropped = draft._previous
            self._tell(draft)

    def request_items(self) -> tuple[Item, ...]:
        """Return the conversation as a model may be told it, turns under way with all they generated."""
        return self._items(None)

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
        if draft._history is not self:
            raise StateError("the draft belongs to another history")
        return draft.open

    def _items(self, draft: Draft | None) -> tuple[Item, ...]:
        items: list[Item] = []
        behind = False
        for block in self._blocks:
            if isinstance(block, tuple):
                items.extend(block)
            elif not (behind and block.open):  # a turn knows nothing of those that began after it
                items.extend(block._own(asking=True))
            behind = behind or block is draft
        return tuple(items)

    def _forget(self) -> None:
        if self._max_chars is None:
            return
        sizes = [sum(_size(item) for item in _ended(block)) for block in self._blocks]
        excess = sum(sizes) - self._max_chars
        kept: list[Draft | tuple[Item, ...]] = []
        for number, (block, size) in enumerate(zip(self._blocks, sizes, strict=True)):
            last = number == len(self._blocks) - 1
            if excess <= 0 or last or _is_open(block) or _is_instruction(block):
                kept.append(block)
            else:
                excess -= size
        if len(kept) != len(self._blocks):
            self._blocks = kept
            self.rewritten()

    def _tell(self, what: Draft | tuple[Item, ...] | None) -> None:
        if self.watcher is not None:
            self.watcher(what)


_Block: TypeAlias = Draft | tuple[Item, ...]
"""A turn, or what was added as it is."""


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
    return block if isinstance(block, tuple) else block._own(asking=False)


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


def _ended(block: Draft | tuple[Item, ...]) -> Sequence[Item]:
    if isinstance(block, tuple):
        return block
    return () if block.open else block._own(asking=False)


def _is_open(block: Draft | tuple[Item, ...]) -> bool:
    """Whether more may be written: also a tool of an ended turn that has not answered."""
    return isinstance(block, Draft) and (block.open or any(called.result is None for called in block._calls()))


def _is_instruction(block: Draft | tuple[Item, ...]) -> bool:
    return isinstance(block, tuple) and all(
        isinstance(item, Entry) and item.role in ("system", "developer") for item in block
    )


def _size(item: Item) -> int:
    if isinstance(item, Entry):
        return len(item.text)
    return len(item.arguments) if isinstance(item, ToolCall) else len(item.content)


def _join(words: Entry | None, text: str, *, interrupted: bool) -> Entry:
    """Add words to an assistant's entry; two parts are two utterances, so a space parts them."""
    if words is None:
        return Entry(role="assistant", text=text, interrupted=interrupted)
    gap = "" if not text or words.text[-1:].isspace() or text[0].isspace() else " "
    return Entry(role="assistant", text=words.text + gap + text, interrupted=words.interrupted or interrupted)


def _close(items: list[Item], words: Entry | None) -> None:
    if words is not None:
        items.append(Entry(role="assistant", text=words.text.strip(), interrupted=words.interrupted))


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
