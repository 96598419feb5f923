"""Models that speak OpenAI's realtime protocol: all of it but where they are and how a session is set up.

Source: OpenAI's API reference of the realtime API (general availability), and its SDK 3.57.
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from uuid import UUID, uuid4

import msgspec

from dialog.errors import AuthenticationError, ProviderError
from dialog.llm.llm import Item, ToolCall
from dialog.message import Playback, Utterance
from dialog.net.malformed import UNDECODABLE
from dialog.net.options import merged
from dialog.net.urls import QueryValue, join
from dialog.s2s.realtime_wire import KNOWN, Event, OutputItem, Response, Session, WireUsage, decode, item_of
from dialog.s2s.reply import Reply
from dialog.s2s.s2s import S2S, ReplyState, SessionSpec
from dialog.s2s.streaming import SocketS2S
from dialog.stt.openai_wire import TRANSCRIPTION, Error
from dialog.stt.turn_detection import ServerVAD, TurnDetection
from dialog.usage import ReplyUsage

__all__ = ["RealtimeS2S"]

logger = logging.getLogger(__name__)

_UPDATE, _RESPOND, _CANCEL, _CUT, _ITEM = (f"dialog_{what}" for what in ("session", "respond", "cancel", "cut", "item"))
"""Ids of our messages: errors say which of them they are about."""
_BUSY_CODE = "conversation_already_has_active_response"
_BUSY_TIMES = 2
_BUSY_S = 2.0
"""A reply that nobody awaits ends within this, or asking for another is tried all the same."""
_KEY_CODES = frozenset({"invalid_api_key", "authentication_error", "invalid_authentication"})
_LASTING_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "beta_api_shape_disabled", "model_not_found", "invalid_model"}
)
_NAME = "dialog_reply"
_NOT_ACTIVE = "no active response"
_STATES: dict[str, ReplyState] = {
    "completed": "completed",
    "cancelled": "cancelled",
    "incomplete": "incomplete",
    "failed": "failed",
}
_SHORTEST_SESSION_S = 60.0
"""A session that seems to end sooner is a clock that goes wrong."""


class _Said:
    """An utterance of the caller's, with its times on the call's audio clock."""

    __slots__ = ("end_ms", "final", "start_ms", "text", "uuid")

    def __init__(self, uuid: UUID) -> None:
        self.uuid = uuid
        self.start_ms = 0.0
        self.end_ms = 0.0
        self.text = ""
        self.final = False


class RealtimeS2S(SocketS2S):
    """A realtime model that speaks OpenAI's protocol; see :class:`~dialog.s2s.streaming.SocketS2S`.

    A subclass says what a session is set up with (:meth:`_session`).

    Args:
        api_key: The key.
        model: What uses are accounted to, until the service says what it is.
        turn_detection: How the caller's turns end.
        options: Further fields of the session; they win, level by level.
        query: Further query parameters.
        headers: Further headers of the handshake.
        shared: As the base class has them.
    """

    transcription_model: str = ""
    """What bills the caller's words."""
    echoes_metadata: ClassVar[bool] = False
    """A response has the metadata that it was asked for with."""

    def __init__(
        self,
        *,
        api_key: str,
        model: str,
        turn_detection: TurnDetection | None,
        options: Mapping[str, Any] | None,
        query: Mapping[str, QueryValue] | None,
        headers: Mapping[str, str] | None,
        **shared: Any,
    ) -> None:
        super().__init__(api_key=api_key, **shared)
        self._headers = {"Authorization": f"Bearer {api_key}", **(headers or {})}
        self._query = {"model": model, **(query or {})}
        self._model = model
        self._detection = turn_detection or ServerVAD()
        self._padding_ms, self._silence_ms = 300.0, 0.0
        """What the detector puts before speech, and what it waits for after it."""
        if isinstance(self._detection, ServerVAD):
            self._padding_ms = self._detection.prefix_padding_ms
            self._silence_ms = self._detection.silence_duration_ms
        self._options = dict(options or {})
        self._last_event = ""
        self._said: dict[str, _Said] = {}
        """Utterances of this session, by their items."""
        self._items: dict[str, tuple[Reply, int]] = {}
        """Parts of replies of this session that were not cut short, by their items."""
        self._cut_short: deque[str] = deque(maxlen=64)
        """Items that the session was told of."""
        self._wanted: dict[str, ToolCall] = {}
        """Tools of the reply that is being made."""
        self._told_codes: set[str] = set()
        self._asked_for = 0

    # What a service supplies.

    @abstractmethod
    def _session(self, spec: SessionSpec) -> dict[str, Any]:
        """The settings of a session, before the user's own."""

    def _settings_of(self, spec: SessionSpec) -> dict[str, Any]:
        return merged(self._session(spec), self._options)

    def _update_of(self, spec: SessionSpec) -> dict[str, Any]:
        """What of them changes with the agent."""
        session = self._settings_of(spec)
        return {name: session[name] for name in ("type", "instructions", "tools") if name in session}

    def _detector(self, spec: SessionSpec) -> dict[str, Any] | None:
        """What ends turns; ``None``: they are manual. Who speaks when is decided here: the service only tells."""
        if spec.vad == "local":
            return None
        return {**msgspec.to_builtins(self._detection), "create_response": False, "interrupt_response": False}

    # What is told to the service.

    def url_for(self, spec: SessionSpec) -> str:
        """Audio goes in texts; the settings follow in a message."""
        del spec
        self._sent.in_text('{"type":"input_audio_buffer.append","audio":"', '"}')
        return join(self._base_url, "/realtime", self._query)

    def _event(self, kind: str, event_id: str = _ITEM, **fields: Any) -> str:
        return msgspec.json.encode({"type": kind, "event_id": event_id, **fields}).decode()

    def _send_respond(self, reply: Reply) -> None:
        self._send(self._event("response.create", _RESPOND, response=self._named(reply)))

    def _send_say(self, reply: Reply) -> None:
        self._send(
            self._event("response.create", _RESPOND, response={"instructions": reply.order, **self._named(reply)})
        )

    def _named(self, reply: Reply) -> dict[str, Any]:
        """What its response is known by, whoever else asks for others."""
        self._asked_for += 1
        reply.name = str(self._asked_for)
        return {"metadata": {_NAME: reply.name}} if self.echoes_metadata else {}

    def _send_cancel(self, reply: Reply) -> bool:
        self._send(self._event("response.cancel", _CANCEL, **({"response_id": reply.id} if reply.id else {})))
        return True

    def _send_truncate(self, heard: Playback, uuid: UUID) -> None:
        for item, (reply, number) in tuple(self._items.items()):
            if reply.uuid != uuid or number < heard.part:
                continue
            del self._items[item]
            self._cut_short.append(item)
            heard_ms = min(heard.heard_ms, reply.audio_ms.get(number, 0.0)) if number == heard.part else 0.0
            if heard_ms > 0:
                self._send(
                    self._event(
                        "conversation.item.truncate", _CUT, item_id=item, content_index=0, audio_end_ms=int(heard_ms)
                    )
                )
            else:
                self._send(self._event("conversation.item.delete", _CUT, item_id=item))

    def _send_commit(self) -> None:
        self._send(self._event("input_audio_buffer.commit"))

    def _send_update(self) -> bool:
        self._send(self._event("session.update", _UPDATE, session=self._update_of(self._spec)))
        return True

    def add(self, item: Item) -> None:
        """See :meth:`S2S.add`."""
        if self._ready:
            self._send(self._event("conversation.item.create", item=item_of(item)))

    def _seed(self, items: Sequence[Item]) -> None:
        for item in items:
            self.add(item)

    def _send_answer(self, call_id: str, result: str) -> None:
        output = {"type": "function_call_output", "call_id": call_id, "output": result}
        self._send(self._event("conversation.item.create", item=output))

    def _forget(self) -> None:
        self._said.clear()
        self._items.clear()
        self._wanted.clear()
        self._told_codes.clear()
        self._last_event = ""

    # What the service tells.

    def _receive(self, data: str | bytes) -> None:
        try:
            event = decode(data)
        except UNDECODABLE as exc:
            self._undecodable(data, exc, KNOWN, "type")
            return
        if event.event_id and event.event_id == self._last_event:
            return  # told twice
        self._last_event = event.event_id
        kind = event.type
        if kind.startswith("response."):
            self._on_response(kind[len("response.") :], event)
        elif kind.startswith(TRANSCRIPTION):
            self._on_words(kind[len(TRANSCRIPTION) :], event)
        elif kind.startswith("input_audio_buffer."):
            self._on_caller(kind[len("input_audio_buffer.") :], event)
        elif kind == "session.created":
            self._created(event.session or Session())
        elif kind == "session.updated":
            if not self._ready:
                self._start_audio()
        elif kind == "error":
            self._on_error(event.error or Error())

    def _created(self, session: Session) -> None:
        left_s = (session.expires_at or 0.0) - time.time()
        if left_s < _SHORTEST_SESSION_S:  # it does not tell, or somebody's clock goes wrong
            left_s = self.capabilities.session_s or 0.0
        if left_s:
            self._limit_session(left_s)
        self._model = session.model or self._model
        self._send(self._event("session.update", _UPDATE, session=self._settings_of(self._spec)))

    # The caller.

    def _on_caller(self, kind: str, event: Event) -> None:
        if kind == "speech_started":
            said = self._utterance(event.item_id)
            said.start_ms = self._to_call(event.audio_start_ms + self._padding_ms)
            self._speech("started", said.start_ms)
        elif kind == "speech_stopped":
            said = self._utterance(event.item_id)
            said.end_ms = self._to_call(max(0.0, event.audio_end_ms - self._silence_ms), end=True)
            self._speech("stopped", said.end_ms)
        elif kind == "committed":
            said = self._utterance(event.item_id)
            if self._committed:
                said.uuid = self._committed[0][2]
            said.end_ms = said.end_ms or self._sent.until_ms
            self._turn(said.uuid)

    def _utterance(self, item: str) -> _Said:
        said = self._said.get(item)
        if said is None:
            said = self._said[item] = _Said(uuid4())
            if len(self._said) > 64:
                del self._said[next(iter(self._said))]
        return said

    def _on_words(self, kind: str, event: Event) -> None:
        said = self._utterance(event.item_id)
        if said.final:
            return
        if kind in ("delta", "updated"):
            more = event.delta or event.transcript or ""
            said.text = said.text + more if kind == "delta" else more
            self._interim(said)
        elif kind == "completed":
            said.text = event.transcript or ""
            if event.status == "in_progress":
                self._interim(said)
            else:
                self._final(said)
            if event.usage is not None and self.transcription_model:
                self.emit(S2S.USAGE, ReplyUsage(usage=event.usage.usage(self.transcription_model), uuid=said.uuid))
        elif kind == "failed":
            reason = f"could not transcribe an utterance: {event.error or Error()}"
            self.fail(ProviderError(self.provider, reason, retryable=True), retryable=True)
            said.text = ""
            self._final(said)

    def _interim(self, said: _Said) -> None:
        if said.text.strip():
            self.emit(S2S.INTERIM, self._of(said))

    def _final(self, said: _Said) -> None:
        said.final = True
        self.emit(S2S.UTTERANCE, self._of(said))

    def _of(self, said: _Said) -> Utterance:
        return Utterance(uuid=said.uuid, data=said.text.strip(), at_ms=said.start_ms, end_ms=said.end_ms)

    # Replies.

    def _on_response(self, kind: str, event: Event) -> None:
        if kind == "created":
            self._created_reply(event.response or Response())
            return
        if kind == "done":
            self._done(event.response or Response(), event.usage)
            return
        reply = self._reply
        if reply is None or event.response_id != reply.id:
            return  # of one that is over, or that nobody has asked for
        if kind == "output_audio.delta":
            self._on_audio(reply, event)
        elif kind == "output_audio_transcript.delta":
            self._words(reply, event.item_id, event.delta or "")
            self._note(reply, event.item_id)
        elif kind == "output_audio.done":
            self._part_done(reply, event.item_id)
        elif kind in ("output_item.added", "output_item.done") and event.item is not None:
            self._on_item(reply, event.item, done=kind.endswith("done"))
        elif kind == "function_call_arguments.done" and event.call_id and event.name:
            call = ToolCall(id=event.call_id, name=event.name, arguments=event.arguments or "{}")
            self._wanted.setdefault(call.id, call)

    def _created_reply(self, response: Response) -> None:
        reply = self._reply
        if reply is None or reply.id:
            return
        if not self.echoes_metadata or (response.metadata or {}).get(_NAME) == reply.name:
            reply.id = response.id
            self._wanted.clear()

    def _on_audio(self, reply: Reply, event: Event) -> None:
        data = self._unpacked(event.delta or "")
        if data:
            self._audio(reply, event.item_id, data)
            self._note(reply, event.item_id)

    def _note(self, reply: Reply, item: str) -> None:
        """The item is in the conversation: it may have to be cut short."""
        if not reply.cancelled and item not in self._items:
            self._items[item] = (reply, self._part_of(reply, item))
            if len(self._items) > 256:
                del self._items[next(iter(self._items))]

    def _on_item(self, reply: Reply, item: OutputItem, *, done: bool) -> None:
        if item.type != "function_call":
            if reply.cancelled and done and item.id not in self._items and item.id not in self._cut_short:
                self._send(self._event("conversation.item.delete", _CUT, item_id=item.id))  # nothing of it was heard
            return
        if done and item.status in (None, "completed") and item.call_id:
            call = ToolCall(id=item.call_id, name=item.name, arguments=item.arguments or "{}")
            self._wanted[call.id] = call

    def _done(self, response: Response, usage: WireUsage | None) -> None:
        reply = self._reply
        mine = reply is not None and reply.id == response.id
        used = usage or response.usage
        if used is not None and (used.input_tokens or used.output_tokens or used.billable_audio_seconds):
            uuid = reply.uuid if reply is not None and mine else None
            self.emit(S2S.USAGE, ReplyUsage(usage=used.usage(self._model), uuid=uuid))
        if reply is None or not mine:
            self._timers.stop("busy")
            self._next()  # which may have waited for this one
            return
        state = _STATES.get(response.status or "", "completed")
        if state == "failed":
            self.fail(
                ProviderError(self.provider, f"a reply failed: {response.failure}", retryable=True), retryable=True
            )
        if state == "completed":
            for item in response.output:
                self._on_item(reply, item, done=item.type == "function_call")
            for call in tuple(self._wanted.values()):
                self._tool_asked(reply, call)
        self._wanted.clear()
        self._over(state)

    def _busy(self, reply: Reply, reason: str) -> None:
        """The service makes a reply that nobody awaits: its end is waited for, but not for ever."""
        reply.id = ""
        self._asked.appendleft(reply)
        self._reply = None
        reply.refused += 1
        if reply.refused > _BUSY_TIMES:
            self._refused(ProviderError(self.provider, reason, retryable=True))
        else:
            self._timers.set("busy", _BUSY_S, self._next)

    # What is wrong.

    def _on_error(self, error: Error) -> None:
        """Most errors are about one message, and the session goes on."""
        code = str(error.code or error.type)
        reason = f"reports {error}"
        if code in _KEY_CODES or error.type in _KEY_CODES:
            self._refused(AuthenticationError(self.provider, reason))
        elif code == "session_expired":
            self._renew()
        elif code in _LASTING_CODES or not self._ready:
            self._refused(ProviderError(self.provider, reason, retryable=error.type == "server_error"))
        elif code == _BUSY_CODE and self._reply is not None:
            self._busy(self._reply, reason)
        elif error.event_id == _RESPOND:
            self.fail(ProviderError(self.provider, reason, retryable=True), retryable=True)
            self._over("failed")
        elif code == "input_audio_buffer_commit_empty":
            self._not_said()
        elif error.event_id == _CANCEL or code == "response_cancel_not_active" or _NOT_ACTIVE in str(error).lower():
            if self._reply is not None and self._reply.cancelled:
                self._over("cancelled")  # it had ended before it could be stopped
        elif error.event_id == _CUT or code.startswith(("item_truncate", "item_delete")):
            logger.info("%s: could not be told what was heard: %s", self.name, error)
        elif code not in self._told_codes:
            self._told_codes.add(code)
            self.fail(ProviderError(self.provider, reason, retryable=True), retryable=True)
