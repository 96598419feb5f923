"""What gateways send each other, beside the frames between hosts and workers.

Questions are outside the numbered streams. A relayed media socket is a stream of its own, with audio and
control in order: its ``epoch`` is a number that nobody else uses, and it begins with :class:`RelayOpened`.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

__all__ = [
    "Ask",
    "Located",
    "PeerBody",
    "Present",
    "RelayAudio",
    "RelayBody",
    "RelayClosed",
    "RelayControl",
    "RelayDigit",
    "RelayMark",
    "RelayOpened",
    "RelayStop",
    "Told",
    "Where",
    "WireAudio",
    "WireClear",
    "WireClose",
    "WireControl",
    "WireMark",
]


class _Wire(Struct, frozen=True, array_like=True, gc=False):
    pass


class Ask(_Wire, tag=60, frozen=True, array_like=True, gc=False):
    """Answer this request, which its carrier's signature fits."""

    number: int
    request: bytes


class Told(_Wire, tag=61, frozen=True, array_like=True, gc=False):
    """The answer; ``None``: there is none, something failed."""

    number: int
    answer: bytes | None


class Where(_Wire, tag=62, frozen=True, array_like=True, gc=False):
    """Is the call of this frame with you?"""

    number: int


class Located(_Wire, tag=63, frozen=True, array_like=True, gc=False):
    """It is, or not."""

    number: int
    here: bool


class Present(_Wire, tag=74, frozen=True, array_like=True, gc=False):
    """A gateway is there, or leaves."""

    leaving: bool = False


# From where the socket is to the owner of its call.


class RelayOpened(_Wire, tag=64, frozen=True, array_like=True, gc=False):
    """A media socket has come; what it began with, in the carrier's terms."""

    opening: bytes
    ms_per_byte: float = 0.125
    """Of its audio."""


class RelayAudio(_Wire, tag=65, frozen=True, array_like=True, gc=False):
    """The caller's audio, ``timestamp_ms`` after the stream's start; ``None``: nothing was lost before it."""

    timestamp_ms: float | None
    data: bytes


class RelayMark(_Wire, tag=66, frozen=True, array_like=True, gc=False):
    """The echo of a mark, and what a round trip to the carrier last took."""

    name: str
    rtt_s: float


class RelayDigit(_Wire, tag=67, frozen=True, array_like=True, gc=False):
    """The caller pressed a key."""

    digit: str


class RelayControl(_Wire, tag=75, frozen=True, array_like=True, gc=False):
    """What a client says beside that, in its own protocol."""

    message: bytes


class RelayStop(_Wire, tag=68, frozen=True, array_like=True, gc=False):
    """The carrier said that the stream is over."""


class RelayClosed(_Wire, tag=69, frozen=True, array_like=True, gc=False):
    """The socket is closed; nothing more comes."""


# From the owner to where the socket is.


class WireAudio(_Wire, tag=70, frozen=True, array_like=True, gc=False):
    """Audio of the agent, and the mark after it, if any."""

    data: bytes
    mark: str


class WireMark(_Wire, tag=71, frozen=True, array_like=True, gc=False):
    """A mark without audio."""

    name: str


class WireClear(_Wire, tag=72, frozen=True, array_like=True, gc=False):
    """Drop what waits, and clear."""


class WireControl(_Wire, tag=76, frozen=True, array_like=True, gc=False):
    """What a client is told beside that, in its own protocol."""

    message: bytes


class WireClose(_Wire, tag=73, frozen=True, array_like=True, gc=False):
    """Close the socket."""

    code: int


RelayBody: TypeAlias = (
    RelayOpened
    | RelayAudio
    | RelayMark
    | RelayDigit
    | RelayControl
    | RelayStop
    | RelayClosed
    | WireAudio
    | WireMark
    | WireClear
    | WireControl
    | WireClose
)
"""What is numbered."""

PeerBody: TypeAlias = Ask | Told | Where | Located | Present | RelayBody
"""Everything between gateways."""
