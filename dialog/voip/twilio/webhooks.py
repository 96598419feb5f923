"""The checks of every HTTP request that claims to come from Twilio.

Source: Twilio, "Validating requests"; Programmable Voice webhooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from dialog.voip.carrier.http import Endpoint, Fields, Refusal, Request, Response, Webhooks, parse_fields
from dialog.voip.twilio.signature import SignatureChecker

__all__ = ["TwilioWebhooks", "xml"]


def xml(document: str) -> Response:
    """A TwiML answer."""
    return Response(status=200, body=document.encode(), content_type="text/xml; charset=utf-8")


class TwilioWebhooks(Webhooks):
    """Forms, each signed together with the URL that Twilio was told to request."""

    carrier: ClassVar[str] = "Twilio"
    endpoints: ClassVar[frozenset[Endpoint]] = frozenset(
        {
            "voice",
            "after",
            "dial",
            "number",
            "stream",
            "status",
            "verdict",
            "conference",
            "recording",
            "transcription",
            "sms",
            "media",
        }
    )
    methods: ClassVar[Mapping[Endpoint, tuple[str, ...]]] = {"voice": ("GET", "POST"), "media": ("GET",)}
    content_type: ClassVar[str] = "application/x-www-form-urlencoded"
    signature_header: ClassVar[str] = "X-Twilio-Signature"

    def __init__(self, *, checker: SignatureChecker | None, **settings: Any) -> None:
        """``checker`` is ``None`` where signatures are not checked at all; the rest is for :class:`Webhooks`."""
        super().__init__(checked=checker is not None, **settings)
        self._checker = checker

    def check(self, request: Request) -> Fields:
        """Of a POST, the fields of the form, then those of the query; of a GET, the query's.

        Raises:
            Refusal: 413, 400 or 403.
        """
        self._check_size(request)
        form = parse_fields(request.body) if request.method == "POST" else []
        if self._checker is not None and not self._checker.valid(self._signed_urls(request), form, request.headers):
            raise Refusal(
                403,
                f"the {self.signature_header} header does not fit: check the auth token, and that the "
                "public URL is exactly the one that Twilio requests",
            )
        return [*form, *parse_fields(request.query.encode())]

    def _signed_urls(self, request: Request) -> list[str]:
        endpoint, suffix, mount = self._locate(request)
        query = f"?{request.query}" if request.query else ""
        if endpoint == "media":
            url = self.site(request).media
            # Some clients add a slash to the URL that they sign.
            other = url.removesuffix("/") if url.endswith("/") else url + "/"
            return [url + query, other + query]
        if self._site is not None:
            base = self._site.webhook
            return [(base.rstrip("/") + suffix if suffix else base) + query]
        origin, prefix = self._origin(request)
        return [f"{origin}{prefix}{mount}{request.path[len(mount) :]}{query}"]
