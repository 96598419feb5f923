"""How a gateway speaks WebRTC."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from msgspec import Struct

from dialog.errors import ConfigurationError

__all__ = ["IceServer", "WebRTC", "has_aiortc"]


class IceServer(Struct, frozen=True, kw_only=True):
    """A STUN or TURN server."""

    url: str
    """``stun:stun.example:3478``, ``turn:turn.example:3478`` …"""
    username: str = ""
    credential: str = ""

    def __post_init__(self) -> None:
        if self.url.partition(":")[0] not in ("stun", "stuns", "turn", "turns"):
            raise ConfigurationError(f"the url of an IceServer is like stun:stun.example:3478, got {self.url!r}")

    def __repr__(self) -> str:
        return f"<IceServer {self.url}>"


class WebRTC(Struct, frozen=True, kw_only=True):
    """Let clients come by WebRTC, too: ``WebGateway(webrtc=WebRTC())``.

    Raises:
        ConfigurationError: A server's url is none.
    """

    ice_servers: Sequence[IceServer] = ()
    """Asked for the address at which this machine can be reached from elsewhere, where it does not have that itself."""
    kbit_s: int = 32
    """Of the agent's voice, before what the network adds (about 20)."""


def has_aiortc() -> bool:
    """Whether the extra ``webrtc`` is installed."""
    return find_spec("aiortc") is not None
