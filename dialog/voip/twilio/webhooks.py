"""The checks of every HTTP request that claims to come from Twilio, without any I/O.

The aiohttp and ASGI shells turn their requests into a :class:`Request`, ask :meth:`Webhooks.head`
before they read the body, and :meth:`Webhooks.check` with it. A :class:`Refusal` is the answer then,
and nothing else has happened.

===  =====================================================
400  no signature header; a form that lacks what it needs
403  wrong signature, or another account's
404  a path that is not ours
405  a method that the path does not know
408  the body took too long
413  the body is too large
415  a POST that is not a form
===  =====================================================

Source: Twilio, "Validating requests"; Programmable Voice webhooks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias, cast, get_args
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from dialog.errors import ConfigurationError, MissingPublicURL
from dialog.voip.twilio.signature import SIGNATURE_HEADER, SignatureChecker, seen_origin

__all__ = ["Endpoint", "Refusal", "Request", "Response", "Site", "Webhooks", "xml"]

Endpoint: TypeAlias = Literal[
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
]
"""What a path is for; all but ``voice`` lie beneath the voice webhook's path under their name."""

_ENDPOINTS: Final = frozenset(cast("tuple[str, ...]", get_args(Endpoint)))
_METHODS: Final[Mapping[str, tuple[str, ...]]] = {"voice": ("GET", "POST"), "media": ("GET",)}
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_FIELDS: Final = 1000

Fields: TypeAlias = Sequence[tuple[str, str]]


class Request(Struct, frozen=True, kw_only=True):
    """An HTTP request as both shells see it."""

    method: str
    path: str
    """As it was on the wire: still percent-encoded, without the query."""
    query: str = ""
    """As it was on the wire, without the question mark."""
    headers: Mapping[str, str]
    """With lower-case names."""
    secure: bool = False
    """It came over TLS to this process."""
    root: str = ""
    """The part of :attr:`path` under which the application is mounted (ASGI's ``root_path``)."""
    body: bytes = b""

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path} {len(self.body)} bytes>"


class Response(Struct, frozen=True, kw_only=True):
    """What a shell sends back."""

    status: int = 204
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


def xml(document: str) -> Response:
    """A TwiML answer."""
    return Response(status=200, body=document.encode(), content_type="text/xml; charset=utf-8")


class Refusal(Exception):  # it is an answer, and expected
    """The request is refused with ``status``; the text is for whoever reads the carrier's debugger."""

    def __init__(self, status: int, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers

    def response(self) -> Response:
        """The answer; the connection should be closed after it."""
        return Response(status=self.status, body=f"{self}\n".encode(), headers=self.headers)


class Site(Struct, frozen=True):
    """The gateway's own addresses as the carrier must write them."""

    webhook: str
    """URL of the voice webhook, without query."""
    media: str
    """URL of the media socket: ``wss://…``, without query."""
    public: bool
    """The address is known to be public: configured, or forwarded by a trusted proxy."""
    node: str = ""
    """The gateway that owns what these addresses are about; empty if there is only one."""

    def url(self, endpoint: Endpoint, **query: object) -> str:
        """The URL of an endpoint; it names the node too, so that any other one can pass the request on."""
        if self.node:
            query["node"] = self.node
        path = self.webhook if endpoint == "voice" else f"{self.webhook.rstrip('/')}/{endpoint}"
        return f"{path}?{urlencode(query)}" if query else path


class Webhooks:
    """Says which endpoint a request is for, whether it is Twilio's, and what it carries."""

    def __init__(
        self,
        *,
        path: str,
        checker: SignatureChecker | None,
        webhook_url: str = "",
        media_url: str = "",
        media_path: str = "",
        trust_forwarded: bool = False,
        max_body: int = 1_000_000,
    ) -> None:
        """Keep the settings.

        Args:
            path: Local path of the voice webhook.
            checker: ``None``: signatures are not checked at all.
            webhook_url: Public URL of the voice webhook; empty: derived from each request.
            media_url: Public URL of the media socket; empty: beneath the webhook's.
            media_path: Local path of the media socket; empty: beneath the webhook's.
            trust_forwarded: Believe the forwarded headers of a proxy.
            max_body: Largest body, in bytes.
        """
        self.path = path
        self.max_body = max_body
        self._checker = checker
        self._trust_forwarded = trust_forwarded
        self._media_path = media_path
        self._site = site_of(webhook_url, media_url, media_path=media_path) if webhook_url else None
        self._media_url = media_url
        self._node = ""

    def name_node(self, node: str, media_url: str = "") -> None:
        """Let every address name ``node``; ``media_url`` is that of this node alone, if it has one.

        Raises:
            ConfigurationError: The URL has the wrong scheme or no host.
        """
        self._node = node
        self._media_url = media_url or self._media_url
        if self._site is not None:
            self._site = replace(site_of(self._site.webhook, self._media_url or self._site.media), node=node)

    def public_site(self) -> Site:
        """The addresses at which the carrier reaches us, without any request of it.

        Raises:
            MissingPublicURL: The voice webhook's public URL was not given.
        """
        if self._site is None:
            raise MissingPublicURL(
                "to place calls the gateway needs an address that Twilio can call back: give it its webhook_url"
            )
        return self._site

    def ours(self, site: Site) -> Site:
        """The addresses of this node, for a request that another one passed on, which came to ``site``."""
        return self._site or replace(site, node=self._node)

    def paths(self) -> dict[Endpoint, str]:
        """The local path of every endpoint."""
        base = self.path.rstrip("/")
        paths: dict[Endpoint, str] = {
            cast("Endpoint", name): self.path if name == "voice" else f"{base}/{name}" for name in sorted(_ENDPOINTS)
        }
        if self._media_path:
            paths["media"] = self._media_path
        return paths

    def endpoint(self, request: Request) -> Endpoint:
        """What the request is for.

        Raises:
            Refusal: 404.
        """
        return self._locate(request)[0]

    def site(self, request: Request) -> Site:
        """The addresses that the carrier can reach us at, as far as this request shows."""
        if self._site is not None:
            return self._site
        _, _, mount = self._locate(request)
        origin, prefix = self._origin(request)
        before = f"{origin}{prefix}{mount}"
        media_url = self._media_url
        if self._media_path and not media_url:
            media_url = f"ws{before.removeprefix('http')}{self._media_path}"
        return replace(site_of(f"{before}{self.path}", media_url, public=self._trust_forwarded), node=self._node)

    def head(self, request: Request) -> Endpoint:
        """Check all that can be checked before the body is read, and say what the request is for.

        Raises:
            Refusal: 404, 405, 415, 413 or 400.
        """
        endpoint = self.endpoint(request)
        allowed = _METHODS.get(endpoint, ("POST",))
        if request.method not in allowed:
            allow = ", ".join(allowed)
            raise Refusal(405, f"{request.method} is not allowed here: use {allow}", (("Allow", allow),))
        if request.method == "POST":
            content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if content_type != _FORM:
                raise Refusal(415, f"the content type must be {_FORM}")
            length = request.headers.get("content-length", "")
            if length.isdecimal() and int(length[:20]) > self.max_body:
                raise Refusal(413, f"the body is larger than {self.max_body} bytes")
        if self._checker is not None and not request.headers.get(SIGNATURE_HEADER):
            raise Refusal(400, "the X-Twilio-Signature header is missing")
        return endpoint

    def check(self, request: Request) -> Fields:
        """The fields of a request, body included, that :meth:`head` let pass.

        Of a POST, the form's, then those of the query; of a GET, the query's.

        Raises:
            Refusal: 413, 400 or 403.
        """
        endpoint, suffix, mount = self._locate(request)
        if len(request.body) > self.max_body:
            raise Refusal(413, f"the body is larger than {self.max_body} bytes")
        form = parse_fields(request.body) if request.method == "POST" else []
        if self._checker is not None:
            urls = self._signed_urls(request, endpoint, suffix, mount)
            if not self._checker.valid(urls, form, request.headers):
                raise Refusal(
                    403,
                    "the X-Twilio-Signature header does not fit: check the auth token, and that the "
                    "public URL is exactly the one that Twilio requests",
                )
        return [*form, *parse_fields(request.query.encode())]

    def _locate(self, request: Request) -> tuple[Endpoint, str, str]:
        """The endpoint, what follows the webhook's path, and the mount point before it."""
        path, root = request.path, request.root.rstrip("/")
        mounts: tuple[str, ...] = ("",)
        if root:
            # Servers differ in whether the path includes the root.
            mounts = ("", root) if path.startswith(root + "/") or path == root else ("",)
        for mount in mounts:
            local = path[len(mount) :]
            if self._media_path and local == self._media_path:
                return "media", "", mount
            if local == self.path or (self.path == "/" and not local):
                return "voice", "", mount
            base = self.path.rstrip("/") + "/"
            name = local.removeprefix(base)
            if local.startswith(base) and name in _ENDPOINTS and name != "voice":
                return cast("Endpoint", name), f"/{name}", mount
        raise Refusal(404, "nothing is here")

    def _origin(self, request: Request) -> tuple[str, str]:
        trust = self._trust_forwarded
        origin = seen_origin(request.headers, secure=request.secure, trust_forwarded=trust)
        prefix = request.headers.get("x-forwarded-prefix", "").partition(",")[0].strip() if trust else ""
        return origin, prefix.rstrip("/")

    def _signed_urls(self, request: Request, endpoint: Endpoint, suffix: str, mount: str) -> list[str]:
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


def site_of(webhook_url: str, media_url: str = "", *, media_path: str = "", public: bool = True) -> Site:
    """The addresses that follow from the public URL of the voice webhook; its host has the ``media_path``, if any.

    Raises:
        ConfigurationError: A URL has the wrong scheme or no host.
    """
    webhook = _clean(webhook_url, "webhook_url", ("https", "http"))
    if media_url:
        media = _clean(media_url, "media_url", ("wss", "ws"))
    elif media_path:
        parts = urlsplit(webhook)
        media = f"ws{parts.scheme.removeprefix('http')}://{parts.netloc}{media_path}"
    else:
        media = f"ws{webhook.removeprefix('http').rstrip('/')}/media"
    return Site(webhook, media, public)


def _clean(url: str, setting: str, schemes: tuple[str, ...]) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable:
        raise ConfigurationError(f"{setting} must be like {schemes[0]}://host/path, got {url!r}")
    # A fragment holds connection settings for Twilio and is never on the wire; a query is each request's own.
    return parts._replace(query="", fragment="", path=parts.path or "/").geturl()


def parse_fields(data: bytes) -> list[tuple[str, str]]:
    """The fields of a form or query, in order, with the empty ones.

    Raises:
        Refusal: 400, they are not UTF-8 or too many.
    """
    try:
        return parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError as exc:
        raise Refusal(400, "the form cannot be decoded") from exc


def query_node(fields: Fields) -> str:
    """The ``node`` that a callback URL of ours names; empty if it names none."""
    return next((value for name, value in reversed(fields) if name == "node"), "")


def query_call(fields: Fields, named: str = "call") -> UUID | None:
    """The ``call`` that a callback URL of ours names, or one that it calls otherwise.

    Raises:
        Refusal: 400, it is not a UUID.
    """
    text = next((value for name, value in fields if name == named), "")
    if not text:
        return None
    try:
        return UUID(text)
    except ValueError as exc:
        raise Refusal(400, "the call's id in the URL is malformed") from exc
