"""The checks of every HTTP request that claims to come from Telnyx.

Source: Telnyx, "Webhook fundamentals" and "Webhook signing".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from dialog.voip.carrier.http import Endpoint, Fields, Refusal, Request, Webhooks, parse_fields
from dialog.voip.telnyx.events import delivered_to
from dialog.voip.telnyx.signature import TelnyxSignature

__all__ = ["BODY", "TelnyxWebhooks"]

BODY: Final = "event"
"""The field that holds the body of a webhook, beside those of its query."""


class TelnyxWebhooks(Webhooks):
    """JSON, signed together with its timestamp; the upgrade of a media socket is not signed."""

    carrier: ClassVar[str] = "Telnyx"
    endpoints: ClassVar[frozenset[Endpoint]] = frozenset({"voice", "sms", "media"})
    methods: ClassVar[Mapping[Endpoint, tuple[str, ...]]] = {"media": ("GET",)}
    content_type: ClassVar[str] = "application/json"
    signature_header: ClassVar[str] = "Telnyx-Signature-Ed25519"
    unsigned: ClassVar[frozenset[Endpoint]] = frozenset({"media"})

    def __init__(self, *, signature: TelnyxSignature | None, **settings: Any) -> None:
        """``signature`` is ``None`` where none is checked at all; the rest is for :class:`Webhooks`."""
        super().__init__(checked=signature is not None, **settings)
        self._signature = signature

    def check(self, request: Request) -> Fields:
        """The body under the name :data:`BODY`, then the fields of the query.

        Raises:
            Refusal: 413, 400 or 403.
        """
        self._check_size(request)
        query = parse_fields(request.query.encode())
        if self.endpoint(request) in self.unsigned:
            return query
        if self._signature is not None:
            fault = self._signature.fault(request.headers, request.body)
            if fault:
                raise Refusal(403, fault)
        try:
            return [(BODY, request.body.decode()), *query]
        except UnicodeDecodeError as exc:
            raise Refusal(400, "the body is not UTF-8") from exc

    def _origin(self, request: Request) -> tuple[str, str]:
        # The signature covers the body alone: a webhook that is sent again with another Host would have Telnyx open
        # the call's stream there.
        origin, prefix = super()._origin(request)
        return _origin_of(delivered_to(request.body)) or origin, prefix


def _origin_of(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}" if parts.scheme in ("https", "http") and host else ""
