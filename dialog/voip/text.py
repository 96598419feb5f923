"""A call without sound: what is typed takes the place of speech, what is said is shown.

The agent is the same; turn taking, tools and history run as on the phone. A text call has no line:
whatever is said counts as heard at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import ClassVar, Literal
from uuid import UUID, uuid4

from dialog.audio.sound import Sound
from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import NotSupportedError
from dialog.message import CallEnd, CallMetadata, Message, Playback, StreamStarted, StreamStopped
from dialog.voip.bed import Layer
from dialog.voip.link import Command, CommandResult, Hangup, Link
from dialog.voip.voip import VoIP

__all__ = ["TextLink", "TextVoIP"]


class TextLink:
    """Plays the Line's part: everything is heard the moment it is complete."""

    def __init__(self) -> None:
        self.voip: TextVoIP | None = None
        """Whose it is."""
        self._open: dict[tuple[UUID, int], None] = {}

    def post(self, message: Message[bytes]) -> None:
        """A part begins, or ends and was heard."""
        key = (message.uuid, message.part)
        if not message.done:
            self._open[key] = None
            return
        self._open.pop(key, None)
        self._report(key, "played")

    def abort(self, uuid: UUID, *, part: int | None, after_ms: float | None) -> None:
        """What has not ended was cut."""
        del after_ms  # nothing here has a length
        for key in [key for key in self._open if key[0] == uuid and part in (None, key[1])]:
            del self._open[key]
            self._report(key, "cut")

    def pause(self) -> None:
        """There is no sound to pause."""

    def resume(self, *, from_ms: float | None) -> None:
        """There is no sound to resume."""

    def set_bed(self, layer: Layer, sound: Sound | None, *, gain_db: float) -> None:
        """There is no sound to put one under."""

    async def command(self, command: Command) -> CommandResult:
        """Hang up; nothing else can be done here.

        Raises:
            NotSupportedError: It is something else.
        """
        if not isinstance(command, Hangup):
            raise NotSupportedError(f"a text call cannot {type(command).__name__}")
        if self.voip is not None:
            self.voip.close(command.reason)
        return None

    def download(self, url: str) -> AsyncIterator[bytes]:
        """There are no recordings."""
        raise NotSupportedError(f"a text call has no recordings ({url})")

    def close(self) -> None:
        """The call is over."""
        self.voip = None
        self._open.clear()

    def _report(self, key: tuple[UUID, int], state: Literal["played", "cut"]) -> None:
        if self.voip is not None:
            playback = Playback(uuid=key[0], part=key[1], state=state, heard_ms=0.0, confirmed=True)
            self.voip.receive(VoIP.PLAYBACK, playback)


class TextVoIP(VoIP):
    """A call in text: ``agent.post`` takes the place of the STT, ``on_text`` that of the voice.

    Args:
        on_text: Called with ``(turn, part, text)`` as the agent speaks; empty text ends a part.
        link: Plays the line's part; by default one on which everything is heard at once.
    """

    medium: ClassVar[Literal["audio", "text"]] = "text"

    def __init__(
        self,
        on_text: Callable[[UUID, int, str], object],
        *,
        metadata: CallMetadata | None = None,
        clock: Clock = SYSTEM_CLOCK,
        link: Link | None = None,
    ) -> None:
        made = TextLink() if link is None else link
        super().__init__(metadata or CallMetadata(call_id=uuid4(), carrier="text"), made, clock=clock)
        if isinstance(made, TextLink):
            made.voip = self
        self.on_text = on_text

    def connect(self) -> None:
        """The other side is there."""
        self.receive(VoIP.METADATA, self.metadata)
        self.receive(VoIP.STREAMING_STARTED, StreamStarted())

    def close(self, reason: str = "caller_hangup") -> None:
        """The conversation is over; harmless when repeated."""
        if self.state not in ("ended", "offered"):
            self.receive(VoIP.STREAMING_STOPPED, StreamStopped(reason="ended"))
        if self.end is None:
            self.receive(VoIP.ENDED, CallEnd(reason=reason))
