"""The host's side of a call: what a gateway holds while the agent holds the VoIP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Literal, Protocol

from msgspec import Struct

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.message import MULAW_8K, AudioFormat, CallMetadata
from dialog.scope import CallScope
from dialog.voip.line import Line, Wire
from dialog.voip.link import Command
from dialog.voip.voip import CallState, VoIP

__all__ = ["Call", "CallSettings", "CarrierCommands"]

Resumed = Literal["", "transfer_failed", "digits_sent", "reconnected"]


class CallSettings(Struct, frozen=True, kw_only=True):
    """Bounds of a call, in seconds unless named otherwise."""

    lead_ms: int = 250
    """Agent audio that is kept ahead at the carrier."""
    limit_ms: int = 60_000
    """Agent audio that may wait to be played."""
    never_connected_s: float = 60.0
    """How long a call may be offered without a stream (outbound: add the ring time)."""
    lost_s: float = 5.0
    """How long a broken stream may be away."""
    digits_s: float = 15.0
    """How long the stream may be away for sending digits."""
    transfer_s: float = 40.0
    """How long a transfer may take when the gateway names no bound."""
    rejoin_s: float = 10.0
    """How long the carrier may take to open a stream that it was just told to open."""
    settle_s: float = 1.0
    """How long participants may take to dispose themselves after the end."""
    wrap_up_s: float = 300.0
    """How long callbacks (recording, transcription) are waited for after the end."""


class CarrierCommands(Protocol):
    """What a gateway does for its calls at the carrier."""

    async def execute(self, call: Call, command: Command) -> None:
        """Carry out ``command``; after a redirect was accepted call :meth:`Call.moving`.

        Raises:
            CarrierError: The carrier refused or could not be reached.
            NotSupportedError: This carrier cannot do that.
        """

    def download(self, url: str) -> AsyncIterator[bytes]:
        """The bytes of a recording, fetched with the carrier's credentials."""
        ...


class Call:
    """One call, from its first sign to the last late callback; owned by its gateway."""

    metadata: CallMetadata
    voip: VoIP
    scope: CallScope
    line: Line | None
    """The live stream."""

    def __init__(
        self,
        metadata: CallMetadata,
        carrier: CarrierCommands,
        *,
        settings: CallSettings | None = None,
        clock: Clock = SYSTEM_CLOCK,
        voip_class: type[VoIP] = VoIP,
        audio_format: AudioFormat = MULAW_8K,
        on_closed: Callable[[Call], object] | None = None,
    ) -> None:
        """Create the call's scope and VoIP, and start the wait for its first stream.

        ``on_closed`` is called once, when nothing of the call is left: forget it then.
        """

    @property
    def state(self) -> CallState:
        """Where the call is in its life."""
        ...

    @property
    def generation(self) -> int:
        """Generation of the newest stream; 0 before the first."""
        ...

    def offer(self, on_voip: Callable[[VoIP], object]) -> None:
        """Run ``on_voip`` inside the call's scope, then emit METADATA.

        Raises:
            UserCodeError: It raised; the call has ended with ``error`` and is being disposed of.
        """

    def join(self, wire: Wire, generation: int) -> Line:
        """A stream has started: connect its socket. A higher generation replaces a live stream.

        Raises:
            StateError: The call has ended, or had a stream of this or a higher generation.
        """
        ...

    def stream_stopped(self, line: Line | None = None) -> None:
        """The carrier said that the stream is over. Name the ``line``: one that was replaced is ignored."""

    def stream_closed(self, line: Line | None = None) -> None:
        """The socket closed, after or without a stop. Name the ``line``: one that was replaced is ignored."""

    def moving(self, kind: Literal["transfer", "digits"], within_s: float) -> None:
        """The carrier accepted our redirect: the stream goes, and a new one or the end comes ``within_s``."""

    def wants_stream(self) -> bool:
        """Whether ``<Connect action>`` answers a stream of ``generation + 1``; ``False``: hang up."""
        ...

    def returned(self, resumed: Resumed) -> None:
        """The caller comes back (a failed transfer …): the next stream starts with ``resumed``."""

    def end(self, reason: str, detail: str = "") -> None:
        """End the call; later calls are ignored. VoIP.ENDED is emitted, then everything is disposed of."""

    async def wait_closed(self) -> None:
        """Wait until the call has ended and nothing of it is left."""
