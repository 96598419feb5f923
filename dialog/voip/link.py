"""What joins the two halves of a call: VoIP (the agent's side) and Line (the carrier's side)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Protocol, TypeAlias
from uuid import UUID

from msgspec import Struct

from dialog.audio.sound import Sound
from dialog.message import Message, SentSMS
from dialog.voip.bed import Layer

__all__ = [
    "Command",
    "CommandResult",
    "Consult",
    "Hangup",
    "JoinCalls",
    "Link",
    "RemoveRecording",
    "SendDigits",
    "SendSMS",
    "StartRecording",
    "StartTranscription",
    "StopRecording",
    "TransferTo",
    "UseClientTool",
]

_KEY_S: Final = 0.3
_WAITS_S: Final = {"w": 0.5, "W": 1.0}


class Hangup(Struct, frozen=True, tag="hangup"):
    """End the call now."""

    reason: str = "agent_hangup"
    """Why, for the end of the call."""


class TransferTo(Struct, frozen=True, kw_only=True, tag="transfer_to"):
    """Connect the caller to ``tel``; with ``back_within_s`` the call returns if nobody answers by then."""

    tel: str
    back_within_s: float | None = None


class SendDigits(Struct, frozen=True, tag="send_digits"):
    """Press keys towards the other side: ``0-9 * # w`` (``w`` waits half a second)."""

    digits: str

    @property
    def lasts_s(self) -> float:
        """How long pressing them takes at most."""
        return sum(_WAITS_S.get(digit, _KEY_S) for digit in self.digits)


class StartRecording(Struct, frozen=True, tag="start_recording"):
    """Record both channels; the URL arrives as RECORDING_URL."""

    status_url: str = ""
    """Where the carrier reports; empty: the gateway's own address."""


class StopRecording(Struct, frozen=True, tag="stop_recording"):
    """Stop recording before the call ends."""


class RemoveRecording(Struct, frozen=True, tag="remove_recording"):
    """Delete the recording at the carrier."""


class StartTranscription(Struct, frozen=True, kw_only=True, tag="start_transcription"):
    """Let the carrier transcribe the call; results arrive as TRANSCRIPT."""

    status_url: str = ""
    engine: str = "deepgram"
    language: str = "en-US"
    options: tuple[tuple[str, str], ...] = ()
    """Further fields of the carrier's request, as they are."""


class SendSMS(Struct, frozen=True, kw_only=True, tag="send_sms"):
    """Write a text message; answered by a :class:`~dialog.message.SentSMS`."""

    to: str
    from_: str
    text: str

    def __repr__(self) -> str:
        return f"<SendSMS of {len(self.text)} chars>"


class Consult(Struct, frozen=True, kw_only=True, tag="consult"):
    """Let the caller wait, and place a call about them, of which this process takes care."""

    call_id: UUID
    """Of the call that is placed."""
    tel: str
    from_: str = ""
    ring_s: float = 25.0
    talk_s: float = 120.0
    hold_url: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    worker: str = ""
    """The process that has asked; filled in on the way."""

    @property
    def within_s(self) -> float:
        """After so long the caller is not waiting any more."""
        return self.ring_s + self.talk_s + 30.0

    def __repr__(self) -> str:
        return f"<Consult {self.call_id}>"


class JoinCalls(Struct, frozen=True, tag="join_calls"):
    """Bring the one who was consulted to the caller who waits."""

    other: UUID


class UseClientTool(Struct, frozen=True, kw_only=True, tag="use_client_tool"):
    """Let the caller's client run a tool that it has declared; answered by its result, a text."""

    name: str
    arguments: str
    """A JSON object."""
    timeout_s: float

    def __repr__(self) -> str:
        return f"<UseClientTool {self.name}>"


Command: TypeAlias = (
    Hangup
    | TransferTo
    | Consult
    | JoinCalls
    | SendDigits
    | StartRecording
    | StopRecording
    | RemoveRecording
    | StartTranscription
    | SendSMS
    | UseClientTool
)
"""What a VoIP asks of the carrier; executed where the credentials are."""

CommandResult: TypeAlias = SentSMS | str | None
"""What comes of a command: most have nothing to tell but that they were carried out."""


class Link(Protocol):
    """Carries one call's audio and control from its VoIP to whatever plays the Line's part.

    The other direction is :meth:`dialog.voip.voip.VoIP.receive`. Handing over is synchronous and
    never blocks; only :meth:`command` has an outcome to wait for.
    """

    def post(self, message: Message[bytes]) -> None:
        """Audio of a part, in order; kept until a stream joins."""

    def abort(self, uuid: UUID, *, part: int | None, after_ms: float | None) -> None:
        """Stop a turn or a part, now or once ``after_ms`` of the part were heard."""

    def pause(self) -> None:
        """Silence the line and keep what was not heard."""

    def resume(self, *, from_ms: float | None) -> None:
        """Go on after :meth:`pause`, from the cut or from ``from_ms`` of the part that was cut."""

    def set_bed(self, layer: Layer, sound: Sound | None, *, gain_db: float) -> None:
        """Let ``sound``, in the line's format, go round beside the voice from now on, on later streams too."""

    async def command(self, command: Command) -> CommandResult:
        """Let the carrier do something.

        Raises:
            CarrierError: It refused or could not be reached; the message says what to do.
            NotSupportedError: This carrier cannot do that.
        """

    def download(self, url: str) -> AsyncIterator[bytes]:
        """The bytes of a recording, fetched with the carrier's credentials.

        Raises:
            CarrierError: The recording cannot be fetched.
        """
        ...

    def close(self) -> None:
        """The VoIP was disposed."""
