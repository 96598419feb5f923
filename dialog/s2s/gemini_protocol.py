"""What happens on a session of the Gemini Live API: who says what, and what of it is one turn or one reply.

The service numbers nothing: an utterance is over when the model begins to answer it, and a reply is what it makes
until it says that it is done.

Source: Google's reference of the Live API (``v1beta``, WebSockets), its guide to ``gemini-3.8-live``, and its SDK
google-genai 3.6.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import msgspec

from dialog.errors import RemoteProtocolError
from dialog.llm.llm import Item, ToolCall
from dialog.message import Utterance
from dialog.net.malformed import UNDECODABLE
from dialog.s2s.gemini_wire import ServerContent, ServerMessage, Transcription, contents_of, decode, text_turn
from dialog.s2s.reply import Reply
from dialog.s2s.s2s import NOT_RUN, S2S, ReplyState
from dialog.s2s.streaming import SocketS2S
from dialog.usage import ReplyUsage

__all__ = ["GeminiProtocol"]

_NOTHING = "."
"""What a turn says that only wants an answer: one without any text is refused."""
_TRAILING_MS = 700.0
"""Words of the caller that come so soon after a reply has begun belong to what it answers; of the caller's audio …"""
_TRAILING_S = 1.0
"""… and as long are they awaited."""
_LATE_WORDS_S = 0.5
"""Words of the model may come so long after it has said that it is done."""
_STOPS_S = 1.0
"""A model that makes something else leaves it within this when it is asked for a reply."""
_QUIET_S = 1.0
"""While the model waits for tools it says nothing: words that stop for so long are the end of an utterance."""


class _Said:
    """An utterance of the caller's, with its times on the call's audio clock."""

    __slots__ = ("end_ms", "start_ms", "text", "told", "uuid")

    def __init__(self) -> None:
        self.uuid: UUID = uuid4()
        self.text = ""
        self.start_ms = 0.0
        self.end_ms = 0.0
        self.told = False
        """That it is over."""

    @property
    def utterance(self) -> Utterance:
        """As far as it is known."""
        return Utterance(uuid=self.uuid, data=self.text.strip(), at_ms=self.start_ms, end_ms=self.end_ms)


class GeminiProtocol(SocketS2S):
    """A model that speaks the protocol of Gemini Live; see :class:`~dialog.s2s.streaming.SocketS2S`.

    A subclass says how sessions are set up (``_greet``), begun (``_seed``) and left (:meth:`_on_session`).

    Args:
        model: What uses are accounted to.
        theirs: The service decides that the caller interrupts a reply.
        shared: As the base class has them.
    """

    def __init__(self, *, model: str, theirs: bool, **shared: Any) -> None:
        super().__init__(**shared)
        self._model = model
        self._theirs = theirs
        self._said = _Said()
        """What the caller says, or has said without an answer."""
        self._trailing: _Said | None = None
        """What the reply that has just begun answers: words of it may still come …"""
        self._trailing_until_ms = 0.0
        """… until this, on the call's audio clock."""
        self._unwanted = False
        """The service makes a reply that was cancelled: nothing more of it is heard."""
        self._generated = False
        """The reply is complete, but for words that come late."""
        self._turn_ends = False
        """The service has made its turn, and thinks that it is being played."""
        self._last: UUID | None = None
        """The turn of the newest reply."""
        self._pending: list[dict[str, Any]] = []
        """What the model was to be told while it could not listen."""
        self._tools: dict[str, str] = {}
        """Names of the tools that it waits for."""
        self._answers: list[dict[str, Any]] = []
        self._continues = False
        """All tools have answered: it goes on without being asked."""

    # What a subclass supplies.

    @abstractmethod
    def _on_session(self, message: ServerMessage) -> None:
        """The service tells something of the session itself."""

    @abstractmethod
    def _went_on(self) -> None:
        """The conversation went on: what the service has kept of it so far is not all of it."""

    # What is told to the service.

    def _message(self, kind: str, fields: dict[str, Any]) -> str:
        return msgspec.json.encode({kind: fields}).decode()

    def _tell(self, turns: Sequence[dict[str, Any]], *, complete: bool) -> None:
        """Put turns into the conversation; ``complete``: and have them answered."""
        self._went_on()
        self._send(self._message("clientContent", {"turns": turns, "turnComplete": complete}))

    def add(self, item: Item) -> None:
        """See :meth:`S2S.add`."""
        self._pending += contents_of((item,))
        self._tell_pending()

    def _tell_pending(self) -> None:
        """Tell it now, if that does not interrupt a reply."""
        busy = self._reply is not None or self._unwanted or self._answering or self._continues
        if self._ready and self._pending and not busy:
            turns, self._pending = self._pending, []
            self._tell(turns, complete=False)

    def _send_respond(self, reply: Reply) -> None:
        del reply  # what comes next is it
        turns, self._pending = self._pending, []
        continues, self._continues = self._continues, False
        if turns or not continues:
            self._ask_for(turns or [text_turn(_NOTHING)])

    def _send_say(self, reply: Reply) -> None:
        turns, self._pending = self._pending, []
        self._ask_for([*turns, text_turn(reply.order)])

    def _ask_for(self, turns: Sequence[dict[str, Any]]) -> None:
        self._tell(turns, complete=True)
        if self._unwanted:
            self._timers.set("stops", _STOPS_S, self._stopped)

    def _send_cancel(self, reply: Reply) -> bool:
        del reply  # it cannot be stopped
        self._unwanted = not self._generated
        return False

    def _send_begin(self) -> None:
        self._tell_trailing()
        self._send(self._message("realtimeInput", {"activityStart": {}}))

    def _send_commit(self) -> None:
        self._send(self._message("realtimeInput", {"activityEnd": {}}))

    def _send_answer(self, call_id: str, result: str) -> None:
        self._answers.append(self._answer_of(call_id, self._tools.pop(call_id, ""), result))
        self._send_answers()

    def _send_answers(self) -> None:
        """All at once: it waits for all of them."""
        if self._answers and not self._answering:
            answers, self._answers = self._answers, []
            self._continues = True
            self._went_on()
            self._send(self._message("toolResponse", {"functionResponses": answers}))

    def _answer_of(self, call_id: str, name: str, result: str) -> dict[str, Any]:
        return {"id": call_id, "name": name, "response": {"output": result}}

    def _forget(self) -> None:
        self._tell_trailing()
        if self._said.told:
            self._trailing, self._said = self._said, _Said()
            self._tell_trailing()
        self._said.text = ""  # it is heard again
        self._unwanted = self._generated = self._turn_ends = self._continues = False
        self._tools.clear()
        self._answers.clear()

    # What the service tells.

    def _receive(self, data: str | bytes) -> None:
        try:
            message = decode(data)
        except UNDECODABLE as exc:
            self.fail(RemoteProtocolError(f"{self.provider} sent a message that cannot be understood ({exc})"))
            return
        self._on_session(message)
        if message.usage_metadata is not None:
            usage = message.usage_metadata.usage(self._model)
            self.emit(S2S.USAGE, ReplyUsage(usage=usage, uuid=self._last))
        if message.server_content is not None:
            self._on_content(message.server_content)
        if message.tool_call is not None:
            self._on_tools(message.tool_call.calls)
        if message.tool_call_cancellation is not None:
            self._on_cancelled_tools(message.tool_call_cancellation.ids or [])

    def _on_content(self, content: ServerContent) -> None:
        if content.input_transcription is not None:
            self._on_words(content.input_transcription)
        if content.interrupted:
            self._on_interrupted()
        audio, words = content.audio, content.words
        if (audio or words) and not self._unwanted:
            self._on_speech(audio, words)
        if content.generation_complete:
            self._on_generated()
        if content.turn_complete:
            self._on_turn_complete()

    # The caller.

    def _on_words(self, heard: Transcription) -> None:
        if self._sent.until_ms > self._trailing_until_ms:
            self._tell_trailing()
        said = self._trailing or self._said
        if heard.text:
            said.start_ms = said.start_ms or self._sent.until_ms
            said.end_ms = self._sent.until_ms
            said.text += heard.text
            if said.text.strip():
                self.emit(S2S.INTERIM, said.utterance)
        if said is self._trailing:
            if heard.finished:
                self._tell_trailing()
        elif self._answering and self._reply is None and said.text and not said.told:
            self._timers.set("quiet", _QUIET_S, self._tell_turn)

    def _tell_turn(self) -> None:
        """The caller has finished; manual turns that the model has answered at once are all over."""
        said = self._said
        self._timers.stop("quiet")
        if said.told:
            return
        said.told = True
        if not self._committed:
            self._turn(said.uuid)
        while self._committed:
            said.uuid = self._committed[0][2]
            self._turn(said.uuid)

    def _tell_trailing(self) -> None:
        """No more words come of what the caller has said."""
        self._timers.stop("words")
        said, self._trailing = self._trailing, None
        if said is not None:
            self.emit(S2S.UTTERANCE, said.utterance)

    def _caller_speaks(self) -> bool:
        return super()._caller_speaks() or bool(self._said.text)

    # Replies.

    def _making(self) -> Reply | None:
        """The reply that something came of; ``None``: nobody wants to hear it."""
        reply = self._reply
        if reply is None:
            said = self._said
            uuid = self._committed[-1][2] if self._committed else said.uuid
            reply = self._began(uuid)
            self._last, self._continues = uuid, False
            self._went_on()
            self._tell_turn()
            self._tell_trailing()
            self._trailing, self._said = said, _Said()
            self._trailing_until_ms = self._sent.until_ms + _TRAILING_MS
            self._timers.set("words", _TRAILING_S, self._tell_trailing)
        if reply is not None and self._reply is reply and not reply.cancelled:
            self._last = reply.uuid
            return reply
        self._unwanted, self._reply = True, None
        return None

    def _on_speech(self, audio: list[str], words: str) -> None:
        if self._generated and audio:
            self._over("completed")  # the next one begins
        if self._reply is None and not audio and (self._answering or self._turn_ends):
            return  # words that come too late for a reply that is over
        reply = self._making()
        if reply is None:
            return
        self._words(reply, "", words)
        for piece in audio:
            data = self._unpacked(piece)
            if data:
                self._audio(reply, "", data)

    def _stopped(self) -> None:
        """The service does not make any more what nobody wants."""
        self._timers.stop("stops")
        self._unwanted = False
        self._tell_pending()

    def _on_generated(self) -> None:
        self._turn_ends = True
        if self._unwanted:
            self._stopped()
        elif self._reply is not None:
            self._generated = True
            self._timers.set("late words", _LATE_WORDS_S, lambda: self._over("completed"))

    def _on_turn_complete(self) -> None:
        made, self._turn_ends = self._turn_ends, False
        if made:
            if self._generated:
                self._over("completed")
        elif self._unwanted:
            self._stopped()
        elif self._reply is not None:
            self._over("completed")
        elif (self._said.text or self._committed) and not self._answering and self._making() is not None:
            self._over("completed")  # it has heard the caller, and has nothing to say

    def _on_interrupted(self) -> None:
        """The service has stopped: it heard the caller, or we wanted something else."""
        self._turn_ends = True
        reply = self._reply
        if self._unwanted:
            self._stopped()
        elif reply is not None and reply.parts:
            self._generated = True
            if self._theirs:
                self.emit(S2S.FLUSH, reply.uuid)
            if self._reply is reply:
                self._over("cancelled" if self._theirs else "incomplete")
        elif reply is None and self._theirs and self._last is not None:
            self.emit(S2S.FLUSH, self._last)

    def _over(self, state: ReplyState) -> None:
        self._timers.stop("late words")
        self._generated = False
        super()._over(state)
        self._tell_pending()

    # Tools.

    def _on_tools(self, calls: list[ToolCall]) -> None:
        reply = None if self._unwanted else self._making()
        if reply is None:  # it waits for them all the same
            answers = [self._answer_of(call.id, call.name, NOT_RUN) for call in calls]
            self._send(self._message("toolResponse", {"functionResponses": answers}))
            return
        self._tools.update({call.id: call.name for call in calls})
        for call in calls:
            self._tool_asked(reply, call)
        if self._reply is reply:
            self._over("completed")

    def _on_cancelled_tools(self, ids: list[str]) -> None:
        for call_id in ids:
            self._tools.pop(call_id, None)
        self._tools_unwanted(ids)
        self._answers = [answer for answer in self._answers if answer["id"] not in ids]
        self._send_answers()
        self._renew_if_quiet()
