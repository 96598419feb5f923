"""Replies of a realtime model, one after the other: what was asked for, what is made, and what nobody wants any more.

No socket is needed for it: a subclass turns orders into messages, and reports what came of them.
"""

from __future__ import annotations

from abc import abstractmethod
from base64 import b64decode
from collections import deque
from collections.abc import Iterable
from typing import ClassVar
from uuid import UUID

from dialog.errors import LimitError, RemoteProtocolError
from dialog.llm.llm import ToolCall
from dialog.message import AudioFormat, Message, Playback
from dialog.s2s.reply import Reply
from dialog.s2s.s2s import S2S, Replied, ReplyState, SessionSpec, ToolAsked
from dialog.s2s.timers import Timers

__all__ = ["ReplyingS2S"]

_STOPPING_S = 2.0
"""A cancelled reply of which nothing comes for so long has ended, whether or not the provider says so."""
_REMEMBERED = 64
_MOST_ASKED = 32


class ReplyingS2S(S2S):
    """Asks for replies and numbers their parts; drops what was cancelled, whatever still comes of it."""

    provider: ClassVar[str]
    """Its name in errors, logs and factories."""

    def __init__(self) -> None:
        super().__init__()
        self._spec = SessionSpec()
        self._ready = False
        """There is a session that takes orders."""
        self._timers = Timers()
        self._reply: Reply | None = None
        """The one that the provider makes now."""
        self._asked: deque[Reply] = deque()
        """Those that were asked for and are made after it."""
        self._ended: deque[UUID] = deque(maxlen=_REMEMBERED)
        """Turns whose reply was cancelled: what still comes for them unasked is not wanted."""
        self._parts: dict[UUID, int] = {}
        """How many parts each turn has had."""
        self._calls: dict[str, UUID] = {}
        """Tools that this session has asked for."""
        self._answering: set[str] = set()
        """Of them, those that were not answered yet."""
        self._texts: dict[tuple[UUID, int], str] = {}
        """What is to be said, until it is known to its end."""

    # What a subclass supplies.

    @property
    @abstractmethod
    def _given_up(self) -> bool:
        """There is no session, and there will be none."""

    @abstractmethod
    def _at_rest(self) -> None:
        """A reply is over, and perhaps no other is to be made."""

    @abstractmethod
    def _send_respond(self, reply: Reply) -> None:
        """Ask for a reply."""

    @abstractmethod
    def _send_say(self, reply: Reply) -> None:
        """Ask for ``reply.text`` to be said, word for word if ``reply.verbatim``."""

    @abstractmethod
    def _send_cancel(self, reply: Reply) -> bool:
        """Stop a reply; ``False``: the provider will say nothing more of it, it has ended."""

    def _send_truncate(self, heard: Playback, uuid: UUID) -> None:
        """Tell how much was heard of a part of the turn."""

    @abstractmethod
    def _send_answer(self, call_id: str, result: str) -> None:
        """Tell what a tool has answered."""

    # What the engine calls.

    @property
    def output_format(self) -> AudioFormat:
        """What the session was opened with."""
        return self._spec.output_format

    def respond(self, uuid: UUID) -> None:
        """See :meth:`S2S.respond`."""
        self._ask(Reply(uuid))

    def say(self, message: Message[str], *, verbatim: bool) -> None:
        """See :meth:`S2S.say`."""
        key = (message.uuid, message.part)
        text = self._texts.pop(key, "") + message.data
        if not message.done:
            self._texts[key] = text
        elif text.strip():
            self._ask(Reply(message.uuid, text=text, part=message.part, verbatim=verbatim))
        else:
            self.emit(S2S.MESSAGE, Message(uuid=message.uuid, part=message.part, data=b"", done=True))
            self.emit(S2S.REPLIED, Replied(uuid=message.uuid, state="completed", part=message.part))

    def answer(self, call_id: str, result: str) -> None:
        """See :meth:`S2S.answer`."""
        self._answering.discard(call_id)
        if self._ready and self._calls.pop(call_id, None) is not None:
            self._send_answer(call_id, result)

    def cancel(self, heard: Playback) -> None:
        """See :meth:`S2S.cancel`."""
        uuid = heard.uuid
        for key in [key for key in self._texts if key[0] == uuid]:
            del self._texts[key]
        for asked in [asked for asked in self._asked if asked.uuid == uuid]:
            self._asked.remove(asked)
            self._end(asked, "cancelled")
        if uuid not in self._ended:
            self._ended.append(uuid)
        reply = self._reply
        if reply is not None and reply.uuid == uuid and not reply.cancelled:
            reply.cancelled = True
            self._end(reply, "cancelled")
            if not (self._ready and self._send_cancel(reply)):
                self._over("cancelled")
            else:
                self._await_end()
        if self._ready and self.capabilities.truncate:
            self._send_truncate(heard, uuid)

    # What a provider reports.

    def _began(self, uuid: UUID | None = None) -> Reply | None:
        """The provider begins a reply: the one that was asked for, else one of its own as turn ``uuid``."""
        if self._reply is None and uuid is not None:
            self._reply = Reply(uuid, cancelled=uuid in self._ended)
        return self._reply

    def _part_of(self, reply: Reply, item: str) -> int:
        """The number of the part that the provider calls ``item``."""
        number = reply.parts.get(item)
        if number is None:
            number = reply.part if reply.part is not None and not reply.parts else self._parts.get(reply.uuid, 0)
            self._parts[reply.uuid] = max(number + 1, self._parts.get(reply.uuid, 0))
            if len(self._parts) > _REMEMBERED:
                del self._parts[next(iter(self._parts))]
            reply.parts[item] = number
        return number

    def _audio(self, reply: Reply, item: str, data: bytes) -> None:
        """Audio of a part came."""
        if reply.cancelled:
            self._await_end()
            return
        number = self._part_of(reply, item)
        at_ms = reply.audio_ms.get(number, 0.0)
        reply.audio_ms[number] = at_ms + self._spec.output_format.ms(len(data))
        self.emit(S2S.MESSAGE, Message(uuid=reply.uuid, part=number, data=data, at_ms=at_ms))

    def _unpacked(self, text: str) -> bytes:
        """Audio that came as base64; what is none is reported, and silence."""
        try:
            return b64decode(text, validate=True)
        except ValueError as exc:
            self.fail_once(RemoteProtocolError(f"{self.provider} sent audio that is not base64 ({exc})"))
            return b""

    def _words(self, reply: Reply, item: str, text: str) -> None:
        """Words of a part came."""
        if not reply.cancelled and text:
            self.emit(S2S.REPLY, Message(uuid=reply.uuid, part=self._part_of(reply, item), data=text))

    def _part_done(self, reply: Reply, item: str) -> None:
        """A part is complete."""
        number = reply.parts.get(item)
        if number is None or number in reply.done:
            return
        reply.done.add(number)
        if not reply.cancelled:
            at_ms = reply.audio_ms.get(number, 0.0)
            self.emit(S2S.MESSAGE, Message(uuid=reply.uuid, part=number, data=b"", at_ms=at_ms, done=True))

    def _await_end(self) -> None:
        """A cancelled reply is made all the same: once nothing more comes of it, it is over."""
        self._timers.set("stopping", _STOPPING_S, lambda: self._over("cancelled"))

    def _tool_asked(self, reply: Reply, call: ToolCall) -> None:
        """The model wants a tool."""
        if not reply.cancelled:
            self._calls[call.id] = reply.uuid
            self._answering.add(call.id)
            self.emit(S2S.TOOL_CALL, ToolAsked(uuid=reply.uuid, call=call))

    def _tools_unwanted(self, call_ids: Iterable[str]) -> None:
        """The model does not wait for these tools any more."""
        for call_id in call_ids:
            if self._calls.pop(call_id, None) is not None:
                self._answering.discard(call_id)
                self.emit(S2S.TOOL_CANCELLED, call_id)

    def _over(self, state: ReplyState) -> None:
        """The provider has ended the reply."""
        reply, self._reply = self._reply, None
        self._timers.stop("stopping")
        if reply is not None and not reply.cancelled:
            self._end(reply, state)
        self._next()
        self._at_rest()

    # One reply after the other.

    @property
    def _replying(self) -> bool:
        """Something is made, to be made, or waits for a tool."""
        return self._reply is not None or bool(self._asked or self._answering)

    def _ask(self, reply: Reply) -> None:
        if reply.uuid in self._ended:
            self._ended.remove(reply.uuid)
        if self._given_up:
            self._end(reply, "failed")
            return
        if len(self._asked) >= _MOST_ASKED:
            limit = f"{self.provider}: {_MOST_ASKED} replies wait to be made, the oldest is given up"
            self._end(self._asked.popleft(), "failed")
            self.fail(LimitError(limit))
        self._asked.append(reply)
        self._next()

    def _next(self) -> None:
        """Ask for the next reply, if none is being made."""
        if not self._ready or self._reply is not None or not self._asked:
            return
        self._reply = reply = self._asked.popleft()
        if reply.text:
            self._send_say(reply)
        else:
            self._send_respond(reply)

    def _end(self, reply: Reply, state: ReplyState) -> None:
        if state != "cancelled":
            for item in tuple(reply.parts):
                self._part_done(reply, item)
        self.emit(S2S.REPLIED, Replied(uuid=reply.uuid, state=state, part=reply.part))

    # Sessions.

    def _forget_tools(self) -> None:
        """A new session waits for none."""
        self._calls.clear()
        self._answering.clear()

    def _lose_reply(self) -> None:
        """The session is gone: what it had not begun to say is asked for again."""
        reply, self._reply = self._reply, None
        if reply is None or reply.cancelled:
            return
        if reply.parts or reply.tries:
            self._end(reply, "failed")
        else:
            reply.tries += 1
            reply.id = ""
            self._asked.appendleft(reply)

    def _take_replies(self) -> list[Reply]:
        """All that were to be made, which nobody will make."""
        replies = [*([self._reply] if self._reply is not None else []), *self._asked]
        self._reply = None
        self._asked.clear()
        return [reply for reply in replies if not reply.cancelled]
