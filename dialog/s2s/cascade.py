"""Any STT, model and TTS as one speech-to-speech model: :class:`CascadeS2S`.

It needs no account when its parts need none, and speaks what an agent's own ``inference`` makes, so a realtime
agent can be run, shown and tested with it.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar, cast
from uuid import UUID

from msgspec.structs import replace

from dialog.errors import ConfigurationError, DialogError, ProviderError, StateError, UserCodeError
from dialog.llm.llm import CONNECTED, LLM, Entry, Item, LLMEvent, LLMRequest, TextDelta, ToolCall, ToolSpec
from dialog.message import Alignment, Failure, Message, Playback, SpeechEdge, Utterance
from dialog.participant import Participant
from dialog.s2s.memory import Memory, Spoken
from dialog.s2s.s2s import S2S, Replied, ReplyState, S2SCapabilities, SessionSpec, ToolAsked
from dialog.stt.stt import STT
from dialog.tts.tts import TTS
from dialog.usage import ReplyUsage, Usage

__all__ = ["CascadeS2S"]

_SILENT_S = 10.0
"""A voice that gives no sign of life for so long, although it has all the text of a part, has failed."""
_REMEMBERED = 64
_SENTENCE = re.compile(r".*[.!?\u2026][\"')]*\s+", re.DOTALL)


class CascadeS2S(S2S):
    """Hears with an STT, thinks with a model and speaks with a TTS; it owns them.

    Args:
        stt: Hears the caller.
        tts: Speaks.
        llm: Replies; ``None``: the agent has an ``inference`` of its own.
    """

    provider: ClassVar[str] = "cascade"

    def __init__(self, *, stt: STT, tts: TTS, llm: LLM | None = None) -> None:
        super().__init__()
        self._stt = stt
        self._tts = tts
        self._llm = llm
        self.formats = stt.formats  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  # its parts'
        self.output_formats = tts.formats  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        self.capabilities = S2SCapabilities(  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
            truncate=True,
            verbatim=True,
            manual_turns=stt.capabilities.manual_turns,
            speech_events=stt.capabilities.speech_events,
            speech_stops=stt.capabilities.speech_stops,
            interim_interval_ms=stt.capabilities.interim_interval_ms,
            runs_inference=True,
        )
        self._spec = SessionSpec()
        self._opened = False
        self._memory = Memory()
        self._asked: deque[UUID] = deque()
        self._replying: tuple[UUID, asyncio.Task[None]] | None = None
        self._parts: dict[UUID, int] = {}
        """How many parts each turn has had."""
        self._spoken: dict[tuple[UUID, int], Spoken] = {}
        """Parts whose audio is being made."""
        self._committed: UUID | None = None

    @property
    def conversation(self) -> tuple[Item, ...]:
        """What the model knows of the conversation, the prompt apart."""
        return self._memory.items()

    def open(self, spec: SessionSpec) -> None:
        """Open STT and TTS.

        Raises:
            StateError: It is open already, or disposed of.
        """
        if self._opened or self._disposed:
            raise StateError(f"{self.name}.open was called {'after dispose' if self._disposed else 'twice'}")
        self._opened = True
        self._spec = spec
        for item in spec.history():
            self._memory.add(item)
        stt, tts = self._stt, self._tts
        stt.manual_turns = spec.vad == "local"
        stt.open(spec.input_format)
        tts.open(spec.output_format)
        stt.on(STT.VAD, self._on_edge)
        stt.on(STT.INTERIM, self._on_interim)
        stt.on(STT.MESSAGE, self._on_utterance)
        tts.on(TTS.MESSAGE, self._on_audio)
        tts.on(TTS.ALIGNMENT, self._on_alignment)
        for part in (stt, tts):
            part.on(Participant.ERROR, self._on_failure)
        stt.on(STT.USAGE, self._on_usage)
        tts.on(TTS.USAGE, self._on_usage)
        if self._llm is not None:
            self._llm.warm()

    def update(self, *, system: str, tools: tuple[ToolSpec, ...]) -> None:
        """See :meth:`S2S.update`."""
        self._spec = replace(self._spec, system=system, tools=tools)

    def post(self, message: Message[bytes]) -> None:
        """See :meth:`S2S.post`."""
        self._stt.post(message)

    def begin(self, at_ms: float) -> None:
        """The STT finds the beginning of speech itself."""

    def commit(self, uuid: UUID) -> None:
        """See :meth:`S2S.commit`; where nothing was said nothing follows."""
        self._committed = uuid
        self._stt.finalize()

    def respond(self, uuid: UUID) -> None:
        """See :meth:`S2S.respond`."""
        self._asked.append(uuid)
        self._next()

    def say(self, message: Message[str], *, verbatim: bool) -> None:  # noqa: ARG002  # it always is
        """See :meth:`S2S.say`."""
        key = (message.uuid, message.part)
        spoken = self._spoken.get(key)
        if spoken is None:
            spoken = self._speak(key)
            self.spawn(self._said(spoken), f"part {message.part} of {message.uuid}")
        spoken.text += message.data
        spoken.complete = message.done
        self._tts.post(message)

    def add(self, item: Item) -> None:
        """See :meth:`S2S.add`."""
        self._memory.add(item)

    def answer(self, call_id: str, result: str) -> None:
        """See :meth:`S2S.answer`."""
        self._memory.answer(call_id, result)

    def cancel(self, heard: Playback) -> None:
        """See :meth:`S2S.cancel`."""
        uuid = heard.uuid
        while uuid in self._asked:
            self._asked.remove(uuid)
            self._end(uuid, "cancelled")
        for key in [key for key in self._spoken if key[0] == uuid]:
            self._spoken.pop(key).ended.set()
        self._tts.abort(uuid)
        self._memory.truncate(heard)
        if self._replying is not None and self._replying[0] == uuid:
            self._replying[1].cancel()
            self._replying = None
            self._end(uuid, "cancelled")
            self._next()

    def dispose(self) -> None:
        """End for good, with all that it is made of."""
        if self._disposed:
            return
        self._stt.dispose()  # they tell what they used
        self._tts.dispose()
        super().dispose()
        if self._llm is not None and self._opened:
            task = asyncio.get_running_loop().create_task(self._llm.close(), name=f"{self.name} closing its model")
            self._tasks.add(task)
            task.add_done_callback(self._task_done)

    # The caller.

    def _on_edge(self, edge: SpeechEdge) -> None:
        self.emit(S2S.VAD, edge)

    def _on_interim(self, utterance: Utterance) -> None:
        self.emit(S2S.INTERIM, utterance)

    def _on_utterance(self, utterance: Utterance) -> None:
        if self._committed is not None:
            utterance = replace(utterance, uuid=self._committed)
            self._committed = None
        self._memory.add(Entry(role="user", text=utterance.data))
        self.emit(S2S.UTTERANCE, utterance)
        self.emit(S2S.TURN, utterance.uuid)

    def _on_usage(self, used: ReplyUsage) -> None:
        self.emit(S2S.USAGE, used)

    def _on_failure(self, failure: Failure) -> None:
        self.emit(Participant.ERROR, failure)

    # Replies.

    def _next(self) -> None:
        if self._replying is None and self._asked:
            uuid = self._asked.popleft()
            task = self.spawn(self._reply(uuid), f"reply {uuid}")
            if task is not None:
                self._replying = (uuid, task)

    async def _reply(self, uuid: UUID) -> None:
        state: ReplyState = "failed"
        try:
            await self._think(uuid)
            state = "completed"
        except DialogError as exc:
            self.fail(exc)
        except Exception as exc:  # a model of the user's
            wrong = UserCodeError(f"the model raised {exc!r}")
            wrong.__cause__ = exc
            self.fail(wrong)
        self._replying = None
        self._end(uuid, state)
        self._next()

    async def _think(self, uuid: UUID) -> None:
        if self._llm is None:
            raise ConfigurationError(f"{self.name} has no llm: give it one, or the agent an inference")
        spec = self._spec
        prompt = (Entry(role="system", text=spec.system),) if spec.system else ()
        items = (*prompt, *self._memory.items()) or (Entry(role="user", text=CONNECTED),)
        request = LLMRequest(items=items, tools=spec.tools)
        spoken: Spoken | None = None
        unsaid = ""
        calls: list[ToolCall] = []
        async with aclosing(cast("Any", self._llm.stream(request))) as stream:
            async for event in cast("AsyncIterator[LLMEvent]", stream):
                if isinstance(event, TextDelta) and event.text:
                    spoken = spoken or self._speak((uuid, self._parts.get(uuid, 0)))
                    unsaid = self._write(spoken, event.text, unsaid + event.text)
                elif isinstance(event, ToolCall):
                    calls.append(event)
                elif isinstance(event, Usage):
                    self.emit(S2S.USAGE, ReplyUsage(usage=event, uuid=uuid))
        if spoken is not None:
            spoken.complete = True
            self._tts.post(Message(uuid=uuid, part=spoken.key[1], data=unsaid, done=True))
        for call in calls:
            self._memory.call(call)
            self.emit(S2S.TOOL_CALL, ToolAsked(uuid=uuid, call=call))
        if spoken is not None:
            await self._end_of(spoken)

    def _write(self, spoken: Spoken, text: str, unsaid: str) -> str:
        """Have more text spoken, whole sentences where the voice wants them; return what waits."""
        uuid, number = spoken.key
        spoken.text += text
        self.emit(S2S.REPLY, Message(uuid=uuid, part=number, data=text))
        end = len(unsaid) if self._tts.capabilities.text == "tokens" else _sentences_end(unsaid)
        if end:
            self._tts.post(Message(uuid=uuid, part=number, data=unsaid[:end]))
        return unsaid[end:]

    def _speak(self, key: tuple[UUID, int]) -> Spoken:
        self._parts[key[0]] = max(key[1] + 1, self._parts.get(key[0], 0))
        if len(self._parts) > _REMEMBERED:
            del self._parts[next(iter(self._parts))]
        spoken = self._spoken[key] = self._memory.speak(key)
        return spoken

    async def _said(self, spoken: Spoken) -> None:
        uuid, number = spoken.key
        state: ReplyState = "failed"
        try:
            await self._end_of(spoken)
            state = "cancelled" if spoken.cut else "completed"
        except ProviderError as exc:  # it costs this sentence, not the call
            self.fail(exc, retryable=True)
        self.emit(S2S.REPLIED, Replied(uuid=uuid, state=state, part=number))

    async def _end_of(self, spoken: Spoken) -> None:
        """Wait until the voice has made all of a part, as long as it shows signs of life."""
        while not spoken.ended.is_set():
            before = (spoken.audio_ms, len(spoken.text))
            try:
                async with asyncio.timeout(_SILENT_S):
                    await spoken.ended.wait()
            except TimeoutError:
                if before == (spoken.audio_ms, len(spoken.text)) and spoken.complete:
                    self._spoken.pop(spoken.key, None)
                    raise ProviderError(self._tts.name, "did not end what it says", retryable=True) from None

    def _on_audio(self, message: Message[bytes]) -> None:
        spoken = self._spoken.get((message.uuid, message.part))
        if spoken is None:
            return
        spoken.audio_ms = message.at_ms + self._spec.output_format.ms(len(message.data))
        if message.done:
            spoken.whole = True
            del self._spoken[spoken.key]
            spoken.ended.set()
        self.emit(S2S.MESSAGE, message)

    def _on_alignment(self, alignment: Alignment) -> None:
        spoken = self._spoken.get((alignment.uuid, alignment.part))
        if spoken is not None:
            spoken.timings += alignment.words

    def _end(self, uuid: UUID, state: ReplyState) -> None:
        self.emit(S2S.REPLIED, Replied(uuid=uuid, state=state))


def _sentences_end(text: str) -> int:
    """Where the last whole sentence of a text ends."""
    found = _SENTENCE.match(text)
    return found.end() if found else 0
