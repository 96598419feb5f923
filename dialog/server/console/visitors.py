"""Who is signed in to the console.

A person shows an API token once, in a form. From then on a cookie says which token that was: signed, for half a day,
out of reach of scripts, and never sent along with what another site asks for. The token itself is kept nowhere.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from msgspec import Struct

from dialog.net.malformed import UNDECODABLE
from dialog.server.config import ApiToken

__all__ = ["COOKIE", "LIFE_S", "Visitor", "Visitors"]

COOKIE: Final = "dialog_console"
LIFE_S: Final = 12 * 3600.0
_PURPOSE: Final = b"dialog console cookie, version 1"


class Visitor(Struct, frozen=True, kw_only=True):
    """Somebody who has signed in."""

    token: ApiToken
    """Which they have shown: it says what they may see and do."""
    until: float
    """They are signed in so long, in seconds since the epoch."""


class _Claim(Struct, frozen=True, array_like=True):
    name: str
    until: float


_decode: Final = msgspec.json.Decoder(_Claim).decode


class Visitors:
    """Signs and verifies cookies.

    Args:
        tokens: Who may sign in. Whose token changes, or is taken away, is signed out.
        key: A secret of the service, the same in all of its processes.
        time: The wall clock, so that processes agree on it.
    """

    def __init__(self, tokens: Iterable[ApiToken], key: bytes, *, time: Callable[[], float] = time.time) -> None:
        self._tokens = {token.name: token for token in tokens}
        self._key = hmac.digest(key, _PURPOSE, "sha256")
        self._time = time

    def __repr__(self) -> str:
        return "<Visitors>"

    def sign_in(self, token: ApiToken) -> str:
        """The value of the cookie of somebody who has shown ``token``."""
        claim = _Claim(token.name, self._time() + LIFE_S)
        body = urlsafe_b64encode(msgspec.json.encode(claim)).rstrip(b"=")
        return f"{body.decode()}.{self._mac(token, body)}"

    def find(self, cookies: str) -> Visitor | None:
        """Who sends these cookies, the whole header; ``None``: nobody who is signed in."""
        for each in cookies.split(";"):
            name, _, value = each.strip().partition("=")
            if name == COOKIE:
                visitor = self._visitor(value)
                if visitor is not None:
                    return visitor
        return None

    def until(self, visitor: Visitor) -> asyncio.Timeout:
        """A block that ends with :class:`TimeoutError` when somebody has to sign in again."""
        return asyncio.timeout(visitor.until - self._time())

    def _visitor(self, value: str) -> Visitor | None:
        text, _, mac = value.partition(".")
        body = text.encode("ascii", "replace")
        try:
            claim = _decode(urlsafe_b64decode(body + b"=" * (-len(body) % 4)))
        except (Base64Error, *UNDECODABLE):
            return None
        token = self._tokens.get(claim.name)
        if token is None or not hmac.compare_digest(self._mac(token, body).encode(), mac.encode("ascii", "replace")):
            return None
        return Visitor(token=token, until=claim.until) if self._time() < claim.until else None

    def _mac(self, token: ApiToken, body: bytes) -> str:
        signed = hmac.digest(self._key, token.digest + body, "sha256")
        return urlsafe_b64encode(signed).rstrip(b"=").decode()
