"""A turn that is under way: what it has heard, said and done, and what of it history keeps.

Pure: nothing here waits, logs or knows a provider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias
from uuid import UUID

from dialog.llm.llm import Entry, Item, ToolCall, ToolResult

if TYPE_CHECKING:
    from dialog.agent.history import History

__all__ = ["Draft"]

_RUNNING = "still running; the result will follow"
_BACKGROUND = "started in the background; the result will follow"
_LATE = "(finished after the caller spoke again)"

_State: TypeAlias = Literal["open", "committed", "dropped", "discarded"]


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
        "_sealed",
        "_state",
        "fixed",
        "heard",
        "number",
        "previous",
        "told",
        "turn",
        "user_text",
    )

    def __init__(self, history: History, user_text: str, *, told: str = "", previous: Draft | None = None) -> None:
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
        self.previous: Draft | None = previous
        """The dropped turn whose question this one goes on with …"""
        self.told: str = told
        """… and what of that question stands before it, for a tool had started."""
        self._state: _State = "open"
        self._sealed = False  # a request was made of it: what comes now is another step
        self._ended: tuple[Item, ...] | None = None
        """Its items, once nothing changes them any more …"""
        self.fixed: tuple[Item, ...] | None = None
        """… and a request was made of them: every later one has the same."""

    @property
    def open(self) -> bool:
        """Neither committed, dropped nor discarded yet."""
        return self._state == "open"

    @property
    def state(self) -> _State:
        """What has become of it."""
        return self._state

    @property
    def history(self) -> History:
        """Whose turn it is."""
        return self._history

    def hear(self, user_text: str) -> None:
        """What the caller said is known only now."""
        text = " ".join(user_text.split())
        if text != self.user_text and self._state != "discarded":
            self.user_text = text.removeprefix(self.told).lstrip()
            self._ended = self.fixed = None
            self._history.version += 1
            self._changed()

    def begin(self) -> None:
        """The turn speaks only now: what happened while it waited comes before it."""
        if self.open:
            self._history.move_to_end(self)

    def end(self, state: _State, heard: Mapping[int, tuple[str, bool]] | None = None) -> None:
        """What has become of it, says its history; ``heard``: see :meth:`History.commit`."""
        self._state = state
        self.heard = dict(heard or {})

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
        self._ended = self.fixed = None
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

    def leave(self) -> None:
        """The turn ends before its tools: what comes now stands before what they answer."""
        for called in self._calls():
            called.told = called.told or called.result is None

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
            self._history.changed(self)

    def written(self) -> tuple[Item, ...]:
        """Return what the history has of it; nothing while it is open."""
        return () if self.open else tuple(self.own_items(asking=False))

    def items(self) -> tuple[Item, ...]:
        """Return the conversation for the next step of this turn: the history and all of this draft."""
        return self._history.items_for(self)

    @property
    def kept(self) -> str:
        """What stays of the whole question if it is dropped."""
        return f"{self.told} {self.user_text}".strip() if self.started else self.told

    @property
    def started(self) -> bool:
        """Whether a tool was started, which dropping the draft does not undo."""
        return any(self._calls())

    def _calls(self) -> list[_Called]:
        return [called for node in self._nodes if isinstance(node, list) for called in node]

    @property
    def at_work(self) -> bool:
        """Whether a tool has not answered yet."""
        return any(called.result is None for called in self._calls())

    def own_items(self, *, asking: bool) -> Sequence[Item]:
        """Return the items of this draft alone; ``asking``: a model is about to read them."""
        if self._ended is None:
            items = self._items(asking=asking)
            if self.open or self.at_work:
                return items
            self._ended = tuple(items)
        if asking:
            self._sealed, self.fixed = True, self._ended
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


def _join(words: Entry | None, text: str, *, interrupted: bool) -> Entry:
    """Add words to an assistant's entry; two parts are two utterances, so a space parts them."""
    if words is None:
        return Entry(role="assistant", text=text, interrupted=interrupted)
    gap = "" if not text or words.text[-1:].isspace() or text[0].isspace() else " "
    return Entry(role="assistant", text=words.text + gap + text, interrupted=words.interrupted or interrupted)


def _close(items: list[Item], words: Entry | None) -> None:
    if words is not None:
        items.append(Entry(role="assistant", text=words.text.strip(), interrupted=words.interrupted))
