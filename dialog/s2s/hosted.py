"""The base of agents that a provider hosts: they answer and stop by themselves, and tell what was said as a whole.

A provider is a subclass that puts orders into messages (:meth:`HostedS2S._send_words`, :meth:`~HostedS2S._send_note`,
:meth:`~HostedS2S._send_answer`) and reports with a few calls: :meth:`~HostedS2S._caller_said`,
:meth:`~HostedS2S._sound`, :meth:`~HostedS2S._said`, :meth:`~HostedS2S._finished`, :meth:`~HostedS2S._interrupted`,
:meth:`~HostedS2S._tools_wanted`. Which reply something belongs to is decided here, since such services do not say: they
make one after the other.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar
from uuid import UUID, uuid4

import msgspec

from dialog.errors import ProviderError
from dialog.llm.llm import Entry, Item, ToolCall, ToolResult
from dialog.message import Utterance
from dialog.s2s.reply import Reply
from dialog.s2s.s2s import NOT_RUN, S2S, ReplyState
from dialog.s2s.streaming import SocketS2S
from dialog.usage import ReplyUsage, Usage

__all__ = ["HostedS2S"]

_NOTHING = "."
"""What is said to an agent that is only to answer: without any text it does not."""
_PATIENCE_S = 15.0
"""A reply that has not begun after this does not come."""
_TOOLS_S = 0.1
"""Further tools, and the end of what is said before them, come within this."""
_GRACE_S = 0.2
"""What comes so soon after the end of a reply belongs to it: tools that are wanted, or a sentence that was late."""
_METER_S = 10.0
"""A session is accounted for so often at least."""


class HostedS2S(SocketS2S):
    """An agent that a provider hosts; see :class:`~dialog.s2s.streaming.SocketS2S`."""

    billed_as: ClassVar[str]
    """What prices go by."""
    quiet_s: ClassVar[float] = _PATIENCE_S
    """A reply of which nothing came for so long is complete, if the service does not say so."""

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self._awaited: set[UUID] = set()
        """Turns that are answered without being asked."""
        self._typed: list[str] = []
        """What the caller did not say aloud, until an answer is asked for."""
        self._echo = ""
        """Words that were put into the caller's mouth: the service may repeat them before it answers."""
        self._has_begun = False
        """Something came of the reply that is made now."""
        self._has_words = False
        self._last: UUID | None = None
        """The turn of the newest reply that may still be heard."""
        self._tool_turn: UUID | None = None
        self._continues = False
        """A tool has answered: the agent goes on without being asked."""
        self._aside: Reply | None = None
        """What is said while a tool runs: nobody waits for its end."""
        self._metered_at: float | None = None
        """Up to when the session was accounted for."""

    # What a provider supplies.

    @abstractmethod
    def _send_words(self, text: str) -> None:
        """Let the agent answer this as if the caller had said it."""

    @abstractmethod
    def _send_note(self, text: str) -> None:
        """Tell the agent something that is not to be answered."""

    # What is told to the service.

    def _tell(self, kind: str, **fields: Any) -> None:
        self._send(msgspec.json.encode({"type": kind, **fields}).decode())

    def add(self, item: Item) -> None:
        """See :meth:`S2S.add`."""
        if not self._ready:
            return
        if isinstance(item, Entry) and item.role == "user":
            self._typed.append(item.text)
        else:
            for text in self._notes_of((item,)):
                self._send_note(text)

    def _notes_of(self, items: Sequence[Item]) -> Iterable[str]:
        """A conversation for somebody who can be told of it, but not given it: what was said, and by whom."""
        for item in items:
            if isinstance(item, ToolCall):
                continue  # its answer tells
            if isinstance(item, ToolResult):
                yield f"Your tool {item.name} answered: {item.content}"
                continue
            text = f"{item.text} …" if item.interrupted else item.text
            if item.role == "user":
                yield f"The caller said: {text}"
            elif item.role == "assistant":
                yield f"You said: {text}"
            else:
                yield text

    def _send_respond(self, reply: Reply) -> None:
        self._await_begin(reply)
        if reply.uuid in self._awaited:
            self._awaited.discard(reply.uuid)
            return
        typed, self._typed = self._typed, []
        continues, self._continues = self._continues, False
        if typed or not continues:
            self._put(" ".join(typed) or _NOTHING)

    def _send_say(self, reply: Reply) -> None:
        self._await_begin(reply)
        self._put(reply.order)

    def _put(self, text: str) -> None:
        self._echo = text
        self._send_words(text)

    def _await_begin(self, reply: Reply) -> None:
        expected = reply.uuid in self._awaited or self._continues
        state: ReplyState = "completed" if expected else "failed"  # it may choose to say nothing
        self._timers.set("patience", _PATIENCE_S, lambda: self._over(state))

    def _send_cancel(self, reply: Reply) -> bool:
        del reply  # it cannot be stopped: what comes of it is dropped until it is over
        return True

    def _await_end(self) -> None:
        if self._has_begun:
            super()._await_end()

    def answer(self, call_id: str, result: str) -> None:
        """See :meth:`S2S.answer`."""
        self._continues = self._continues or (self._ready and call_id in self._calls)
        super().answer(call_id, result)

    # What the service tells.

    def _start_audio(self) -> None:
        self._metered_at = self._loop.time()
        self._meter()
        super()._start_audio()

    def _caller_said(self, text: str, start_ms: float | None = None) -> None:
        """The caller has finished, and said this; it is answered now.

        Args:
            text: What was said.
            start_ms: Where it began, on the call's audio clock; ``None``: that is not known.
        """
        if text and text == self._echo:
            self._echo = ""
            return
        reply = self._reply
        if reply is not None and (self._has_begun or reply.part is None):
            self._over("completed" if self._has_begun else "cancelled")
        uuid, end_ms = uuid4(), self._sent.until_ms
        self._awaited.add(uuid)
        self._asked.appendleft(Reply(uuid))
        at_ms = end_ms if start_ms is None else start_ms
        self.emit(S2S.UTTERANCE, Utterance(uuid=uuid, data=text, at_ms=at_ms, end_ms=end_ms))
        self._turn(uuid)
        self._next()

    def _making(self) -> Reply:
        """The reply that something came of."""
        reply = self._reply
        if reply is None:
            turn = self._tool_turn if self._answering or self._continues else None
            uuid = turn or uuid4()
            reply = self._reply = Reply(uuid, cancelled=uuid in self._ended)
            self._aside = reply if turn is not None else None
        if not self._has_begun:
            self._has_begun, self._continues, self._echo = True, False, ""
            self._timers.stop("patience")
        if not reply.cancelled:
            self._last = reply.uuid
        return reply

    def _sound(self, data: bytes) -> None:
        """Audio came."""
        reply = self._making()
        self._timers.stop("ended")
        self._audio(reply, "", data)
        if "tools" in self._timers:
            self._await_tools()
        else:
            self._timers.set("quiet", self.quiet_s, lambda: self._over("completed"))

    def _said(self, text: str) -> None:
        """Words of the agent came, a sentence or more."""
        reply = self._making()
        self._timers.stop("ended")
        self._words(reply, "", f" {text}" if self._has_words else text)
        self._has_words = True

    def _finished(self) -> None:
        """The reply is complete, as far as is known."""
        if self._has_begun:
            self._timers.set("ended", _GRACE_S, lambda: self._over("completed"))

    def _interrupted(self) -> None:
        """The service has stopped: it hears the caller."""
        reply, last = self._reply, self._last
        self._last = None
        if last is not None and last not in self._ended:
            self.emit(S2S.FLUSH, last)
        if reply is not None and self._reply is reply and (self._has_begun or reply.part is None):
            self._over("cancelled")

    def _tools_wanted(self, calls: Sequence[ToolCall]) -> None:
        """The agent wants tools, and waits for them."""
        sounds = self._has_begun and "ended" not in self._timers
        reply = self._making()
        if reply is self._aside:
            self._aside = None  # somebody has to run them
        if reply.cancelled:
            for call in calls:  # it waits for them all the same
                self._send_answer(call.id, NOT_RUN)
            return
        self._tool_turn, self._continues = reply.uuid, False
        for call in calls:
            self._tool_asked(reply, call)
        if self.gathers_tools or sounds:
            self._await_tools()
        else:
            self._over("completed")

    gathers_tools: ClassVar[bool] = False
    """Each tool comes in a message of its own."""

    def _await_tools(self) -> None:
        self._timers.set("tools", _TOOLS_S, lambda: self._over("completed"))

    def _tools_unwanted(self, call_ids: Iterable[str]) -> None:
        super()._tools_unwanted(call_ids)
        self._renew_if_quiet()

    def _over(self, state: ReplyState) -> None:
        self._timers.stop("patience", "quiet", "tools", "ended")
        self._has_begun, self._has_words, self._echo = False, False, ""
        if self._reply is not None and self._metered_at is not None:
            self._account(self._reply.uuid)
        super()._over(state)

    def _end(self, reply: Reply, state: ReplyState) -> None:
        if reply is not self._aside:
            super()._end(reply, state)
            return
        self._aside = None
        for item in tuple(reply.parts):
            self._part_done(reply, item)

    # Sessions.

    def _forget(self) -> None:
        self._awaited.clear()
        self._typed.clear()
        self._echo = ""
        self._has_begun = self._has_words = self._continues = False
        self._aside = None

    def _meter(self) -> None:
        """What a session costs, its length tells."""
        self._account(None)
        self._timers.set("meter", _METER_S, self._meter)

    def _account(self, uuid: UUID | None) -> None:
        if self._metered_at is None:
            return
        now = self._loop.time()
        seconds, self._metered_at = now - self._metered_at, now
        if seconds > 0:
            self.emit(S2S.USAGE, ReplyUsage(usage=Usage(model=self.billed_as, session_s=seconds), uuid=uuid))

    def _lost(self) -> None:
        self._account(None)
        self._metered_at = None
        super()._lost()

    def _failed(self, error: ProviderError) -> None:
        self._account(None)
        self._metered_at = None
        super()._failed(error)

    def dispose(self) -> None:
        """See :meth:`SocketS2S.dispose`."""
        self._account(None)
        self._metered_at = None
        super().dispose()
