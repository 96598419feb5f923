"""The checks of the upgrade of a media socket that is opened without any webhook before it."""

from __future__ import annotations

import hmac
from base64 import b64decode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, ClassVar

from dialog.voip.carrier.http import Endpoint, Fields, Refusal, Request, Webhooks, parse_fields

__all__ = ["StreamAddress"]


class StreamAddress(Webhooks):
    """One address, whose caller knows the token: in its query, or as the password of its user."""

    carrier: ClassVar[str] = "the carrier"
    endpoints: ClassVar[frozenset[Endpoint]] = frozenset({"media"})
    methods: ClassVar[Mapping[Endpoint, tuple[str, ...]]] = {"media": ("GET",)}
    content_type: ClassVar[str] = ""
    signature_header: ClassVar[str] = ""
    unsigned: ClassVar[frozenset[Endpoint]] = frozenset({"media"})

    def __init__(self, *, token: str, path: str, **settings: Any) -> None:
        """``token`` is the secret; the rest is for :class:`Webhooks`."""
        super().__init__(checked=False, path=path, media_path=path, **settings)
        self._digest = sha256(token.encode()).digest()

    def paths(self) -> dict[Endpoint, str]:
        """There is but one."""
        return {"media": self.path}

    def check(self, request: Request) -> Fields:
        """The fields of the query, but for the token.

        Raises:
            Refusal: 401, the token is missing or another one.
        """
        fields = parse_fields(request.query.encode())
        given = next((value for name, value in fields if name == "token"), "") or _password(request.headers)
        if not hmac.compare_digest(sha256(given.encode()).digest(), self._digest):
            raise Refusal(401, "the token of the stream's address is missing or wrong")
        return [(name, value) for name, value in fields if name != "token"]


def _password(headers: Mapping[str, str]) -> str:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
