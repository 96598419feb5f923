"""The token that binds a media socket to the webhook that announced it.

A signature has no timestamp, so a captured upgrade could be replayed. The token travels in the
stream's parameters, names its call, generation and node, expires, and can be verified by any process that
knows the key. That it is used once is seen to by the call, which has one live stream per generation.
"""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from uuid import UUID

from dialog.errors import RemoteProtocolError

__all__ = ["TOKEN_LIFE_S", "StreamTokens", "derive_key"]

TOKEN_LIFE_S = 60.0
"""How long after the answer a stream may still come, in seconds."""


def derive_key(secret: str) -> bytes:
    """A key for :class:`StreamTokens` from the account's auth token, which is never used itself."""
    return hmac.digest(secret.encode(), b"dialog stream token, version 1", "sha256")


class StreamTokens:
    """Signs and verifies tokens; ``time`` is the wall clock, so that processes agree on it."""

    def __init__(self, key: bytes, *, previous: tuple[bytes, ...] = (), time: Callable[[], float] = time.time) -> None:
        self._keys = (key, *previous)
        self._time = time

    def __repr__(self) -> str:
        return "<StreamTokens>"

    def sign(self, call_id: UUID, generation: int, *, node: str = "", life_s: float = TOKEN_LIFE_S) -> str:
        """A token for stream ``generation`` of a call that ``node`` owns, valid for ``life_s`` seconds from now."""
        expiry = int(self._time() + life_s)
        return f"{generation}.{expiry}.{_mac(self._keys[0], call_id, generation, expiry, node)}"

    def verify(self, token: str, call_id: UUID, *, node: str = "") -> int:
        """The generation that a token was signed for.

        Raises:
            RemoteProtocolError: It is malformed, forged, for another call or another node, or has expired.
        """
        match token.split("."):
            case [generation, expiry, mac] if (
                generation.isdecimal() and expiry.isdecimal() and len(expiry) < 16 and len(generation) < 10
            ):
                pass
            case _:
                raise RemoteProtocolError(f"call {call_id}: the stream's token is malformed")
        number, until = int(generation), int(expiry)
        presented = mac.encode()
        if not any(
            hmac.compare_digest(_mac(key, call_id, number, until, node).encode(), presented) for key in self._keys
        ):
            raise RemoteProtocolError(f"call {call_id}: the stream's token is not one of ours")
        if self._time() > until:
            raise RemoteProtocolError(f"call {call_id}: the stream's token has expired")
        return number


def _mac(key: bytes, call_id: UUID, generation: int, expiry: int, node: str) -> str:
    text = f"{call_id.hex}|{generation}|{expiry}{node and '|' + node}".encode()
    return urlsafe_b64encode(hmac.digest(key, text, "sha256")).rstrip(b"=").decode()
