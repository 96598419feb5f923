"""A model that hears and speaks as the test tells it, for tests of agents in realtime mode."""

from __future__ import annotations

from uuid import UUID, uuid4

from dialog.errors import StateError
from dialog.llm.llm import Item, ToolCall, ToolSpec
from dialog.message import Message, Playback, SpeechEdge, Utterance
from dialog.s2s.s2s import S2S, Replied, ReplyState, S2SCapabilities, SessionSpec, ToolAsked

__all__ = ["ToldS2S"]


class ToldS2S(S2S):
    """Does what the test tells it, and remembers what it was told by the agent.

    Args:
        capabilities: What it says that it can do; unless given, as much as any.
    """

    def __init__(self, capabilities: S2SCapabilities | None = None) -> None:
        super().__init__()
        self.capabilities = capabilities or S2SCapabilities(  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
            truncate=True, verbatim=True, manual_turns=True, flush_signal=True, speech_events=True
        )
        self.spec: SessionSpec | None = None
        self.sessions: int = 1
        self.audio: bytearray = bytearray()
        """The caller's, as it was posted."""
        self.begun: list[float] = []
        self.committed: list[UUID] = []
        self.asked: list[UUID] = []
        """Turns that it was asked to reply to."""
        self.said: dict[tuple[UUID, int], str] = {}
        """What it was to say."""
        self.added: list[Item] = []
        self.answers: dict[str, str] = {}
        self.cancelled: list[Playback] = []
        self._at_ms = 0.0
        self._spoken_ms: dict[tuple[UUID, int], float] = {}

    # What the agent does.

    @property
    def session(self) -> int:
        """Which it is: the test may begin another."""
        return self.sessions

    def open(self, spec: SessionSpec) -> None:
        """Remember the settings.

        Raises:
            StateError: It is open already.
        """
        if self.spec is not None:
            raise StateError("ToldS2S.open was called twice")
        self.spec = spec
        spec.history()

    def update(self, *, system: str, tools: tuple[ToolSpec, ...]) -> None:
        """Nothing is thought here."""

    def post(self, message: Message[bytes]) -> None:
        """Remember the audio."""
        self.audio += message.data
        self._at_ms = message.at_ms

    def begin(self, at_ms: float) -> None:
        """Remember when the caller began."""
        self.begun.append(at_ms)

    def commit(self, uuid: UUID) -> None:
        """The turn has ended."""
        self.committed.append(uuid)
        self.emit(S2S.TURN, uuid)

    def respond(self, uuid: UUID) -> None:
        """Remember that a reply is wanted."""
        self.asked.append(uuid)

    def say(self, message: Message[str], *, verbatim: bool) -> None:  # noqa: ARG002  # it says nothing by itself
        """Remember the words."""
        key = (message.uuid, message.part)
        self.said[key] = self.said.get(key, "") + message.data

    def add(self, item: Item) -> None:
        """Remember the item."""
        self.added.append(item)

    def answer(self, call_id: str, result: str) -> None:
        """Remember the answer of a tool."""
        self.answers[call_id] = result

    def cancel(self, heard: Playback) -> None:
        """Remember what was heard."""
        self.cancelled.append(heard)
        self.emit(S2S.REPLIED, Replied(uuid=heard.uuid, state="cancelled"))

    # What the test does.

    def speech_starts(self) -> None:
        """The caller's voice starts."""
        self.emit(S2S.VAD, SpeechEdge(state="started", at_ms=self._at_ms))

    def speech_stops(self) -> None:
        """The caller's voice stops."""
        self.emit(S2S.VAD, SpeechEdge(state="stopped", at_ms=self._at_ms))

    def turn(self, uuid: UUID | None = None) -> UUID:
        """The caller has finished; the words are not known yet."""
        uuid = uuid or uuid4()
        self.emit(S2S.TURN, uuid)
        return uuid

    def words(self, uuid: UUID, text: str) -> None:
        """What the caller said; empty: those were no words."""
        self.emit(S2S.UTTERANCE, Utterance(uuid=uuid, data=text, at_ms=self._at_ms, end_ms=self._at_ms))

    def hears(self, text: str) -> UUID:
        """The caller has said ``text``; returns its turn."""
        uuid = uuid4()
        self.words(uuid, text)
        return self.turn(uuid)

    def sounds(self, uuid: UUID, ms: float, *, part: int = 0, done: bool = False) -> None:
        """So much audio of a reply comes."""
        assert self.spec is not None
        key = (uuid, part)
        at_ms = self._spoken_ms.get(key, 0.0)
        self._spoken_ms[key] = at_ms + ms
        data = bytes([part + 1]) * self.spec.output_format.size(ms)
        self.emit(S2S.MESSAGE, Message(uuid=uuid, part=part, data=data, at_ms=at_ms, done=done))

    def speaks(self, uuid: UUID, text: str, *, part: int = 0, ms_per_char: float = 50.0) -> None:
        """It says ``text`` in a part of its own, and the audio of it."""
        self.emit(S2S.REPLY, Message(uuid=uuid, part=part, data=text))
        self.sounds(uuid, len(text) * ms_per_char, part=part, done=True)

    def wants(self, uuid: UUID, name: str, arguments: str = "{}") -> str:
        """It wants a tool; returns the id of the call."""
        call_id = f"call_{uuid4().hex[:8]}"
        self.emit(S2S.TOOL_CALL, ToolAsked(uuid=uuid, call=ToolCall(id=call_id, name=name, arguments=arguments)))
        return call_id

    def ends(self, uuid: UUID, state: ReplyState = "completed", *, part: int | None = None) -> None:
        """The reply is over."""
        self.emit(S2S.REPLIED, Replied(uuid=uuid, state=state, part=part))

    def answers_with(self, uuid: UUID, text: str) -> None:
        """The whole of a reply."""
        self.speaks(uuid, text)
        self.ends(uuid)

    def flushes(self, uuid: UUID) -> None:
        """It has stopped, because it heard the caller."""
        self.emit(S2S.FLUSH, uuid)
