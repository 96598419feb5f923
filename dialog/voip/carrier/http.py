"""The HTTP requests of a carrier, and the checks that all of them go through, without any I/O.

The aiohttp and ASGI shells turn their requests into a :class:`Request`, ask :meth:`Webhooks.head`
before they read the body, and :meth:`Webhooks.check` with it. A :class:`Refusal` is the answer then,
and nothing else has happened.

===  =====================================================
400  no signature header; a body that lacks what it needs
403  wrong signature, or another account's
404  a path that is not ours
405  a method that the path does not know
408  the body took too long
413  the body is too large
415  a POST of another content type
===  =====================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from dialog.errors import ConfigurationError, MissingPublicURL

__all__ = [
    "Endpoint",
    "Fields",
    "Refusal",
    "Request",
    "Response",
    "Site",
    "Webhooks",
    "parse_fields",
    "query_call",
    "query_node",
    "seen_origin",
    "site_of",
]

Endpoint: TypeAlias = str
"""What a path is for. ``voice`` is the webhook of calls; all others lie beneath its path under their name."""

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


class Webhooks(ABC):
    """Says which endpoint a request is for, whether it is the carrier's, and what it carries."""

    carrier: ClassVar[str]
    """Its name, for errors."""
    endpoints: ClassVar[frozenset[Endpoint]]
    methods: ClassVar[Mapping[Endpoint, tuple[str, ...]]]
    """Of the endpoints that take something else than POST."""
    content_type: ClassVar[str]
    """Of every POST."""
    signature_header: ClassVar[str]
    """What carries the signature, as the carrier writes it …"""
    unsigned: ClassVar[frozenset[Endpoint]] = frozenset()
    """… but for these."""

    def __init__(
        self,
        *,
        path: str,
        checked: bool,
        webhook_url: str = "",
        media_url: str = "",
        media_path: str = "",
        trust_forwarded: bool = False,
        max_body: int = 1_000_000,
    ) -> None:
        """Keep the settings.

        Args:
            path: Local path of the voice webhook.
            checked: Signatures are checked.
            webhook_url: Public URL of the voice webhook; empty: derived from each request.
            media_url: Public URL of the media socket; empty: beneath the webhook's.
            media_path: Local path of the media socket; empty: beneath the webhook's.
            trust_forwarded: Believe the forwarded headers of a proxy.
            max_body: Largest body, in bytes.
        """
        self.path = path
        self.max_body = max_body
        self._checked = checked
        self._trust_forwarded = trust_forwarded
        self._media_path = media_path
        self._site = site_of(webhook_url, media_url, media_path=media_path) if webhook_url else None
        self._media_url = _clean_media(media_url) if media_url else ""
        self._node = ""

    def name_node(self, node: str, media_url: str = "") -> None:
        """Let every address name ``node``; ``media_url`` is that of this node alone, if it has one.

        Raises:
            ConfigurationError: The URL has the wrong scheme or no host.
        """
        self._node = node
        self._media_url = _clean_media(media_url) if media_url else self._media_url
        if self._site is not None:
            self._site = replace(site_of(self._site.webhook, self._media_url or self._site.media), node=node)

    def public_site(self) -> Site:
        """The addresses at which the carrier reaches us, without any request of it.

        Raises:
            MissingPublicURL: The voice webhook's public URL was not given.
        """
        if self._site is None:
            raise MissingPublicURL(
                f"to place calls the gateway needs an address that {self.carrier} can call back: "
                "give it its webhook_url"
            )
        return self._site

    def ours(self, site: Site) -> Site:
        """The addresses of this node, for a request that another one passed on, which came to ``site``."""
        return self._site or replace(site, node=self._node)

    def paths(self) -> dict[Endpoint, str]:
        """The local path of every endpoint."""
        base = self.path.rstrip("/")
        paths: dict[Endpoint, str] = {
            name: self.path if name == "voice" else f"{base}/{name}" for name in sorted(self.endpoints)
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
        """The addresses that the carrier can reach us at, as far as this request shows.

        Raises:
            Refusal: 400, it names no host that can be.
        """
        if self._site is not None:
            return self._site
        _, _, mount = self._locate(request)
        origin, prefix = self._origin(request)
        before = f"{origin}{prefix}{mount}"
        media_url = self._media_url
        if self._media_path and not media_url:
            media_url = f"ws{before.removeprefix('http')}{self._media_path}"
        try:
            site = site_of(f"{before}{self.path}", media_url, public=self._trust_forwarded)
        except ConfigurationError as exc:
            raise Refusal(400, "the request names no host that can be") from exc
        return replace(site, node=self._node)

    def head(self, request: Request) -> Endpoint:
        """Check all that can be checked before the body is read, and say what the request is for.

        Raises:
            Refusal: 404, 405, 415, 413 or 400.
        """
        endpoint = self.endpoint(request)
        allowed = self.methods.get(endpoint, ("POST",))
        if request.method not in allowed:
            allow = ", ".join(allowed)
            raise Refusal(405, f"{request.method} is not allowed here: use {allow}", (("Allow", allow),))
        if request.method == "POST":
            content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if content_type != self.content_type:
                raise Refusal(415, f"the content type must be {self.content_type}")
            length = request.headers.get("content-length", "")
            if length.isdecimal() and int(length[:20]) > self.max_body:
                raise Refusal(413, f"the body is larger than {self.max_body} bytes")
        signed = self._checked and endpoint not in self.unsigned
        if signed and not request.headers.get(self.signature_header.lower()):
            raise Refusal(400, f"the {self.signature_header} header is missing")
        return endpoint

    @abstractmethod
    def check(self, request: Request) -> Fields:
        """What a request carries, body included, that :meth:`head` let pass.

        Raises:
            Refusal: 413, 400 or 403.
        """

    def _check_size(self, request: Request) -> None:
        if len(request.body) > self.max_body:
            raise Refusal(413, f"the body is larger than {self.max_body} bytes")

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
            if local.startswith(base) and name in self.endpoints and name != "voice":
                return name, f"/{name}", mount
        raise Refusal(404, "nothing is here")

    def _origin(self, request: Request) -> tuple[str, str]:
        trust = self._trust_forwarded
        origin = seen_origin(request.headers, secure=request.secure, trust_forwarded=trust)
        prefix = request.headers.get("x-forwarded-prefix", "").partition(",")[0].strip() if trust else ""
        return origin, prefix.rstrip("/")


def site_of(webhook_url: str, media_url: str = "", *, media_path: str = "", public: bool = True) -> Site:
    """The addresses that follow from the public URL of the voice webhook; its host has the ``media_path``, if any.

    Raises:
        ConfigurationError: A URL has the wrong scheme or no host.
    """
    webhook = _clean(webhook_url, "webhook_url", ("https", "http"))
    if media_url:
        media = _clean_media(media_url)
    elif media_path:
        parts = urlsplit(webhook)
        media = f"ws{parts.scheme.removeprefix('http')}://{parts.netloc}{media_path}"
    else:
        media = f"ws{webhook.removeprefix('http').rstrip('/')}/media"
    return Site(webhook, media, public)


def _clean_media(url: str) -> str:
    return _clean(url, "media_url", ("wss", "ws"))


def _clean(url: str, setting: str, schemes: tuple[str, ...]) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable:
        raise ConfigurationError(f"{setting} must be like {schemes[0]}://host/path, got {url!r}")
    # A fragment may hold connection settings for the carrier and is never on the wire; a query is each request's own.
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


def seen_origin(headers: Mapping[str, str], *, secure: bool, trust_forwarded: bool) -> str:
    """``scheme://host[:port]`` that a request was addressed to, without a configured public URL.

    Args:
        headers: With lower-case names.
        secure: Whether the request came over TLS to this very process.
        trust_forwarded: Believe ``X-Forwarded-Proto``, ``-Host`` and ``-Port``. Only behind a proxy
            that overwrites them: else a stranger chooses which URL a signature is checked against.
    """
    scheme = "https" if secure else "http"
    host = headers.get("host", "")
    if trust_forwarded:
        proto = _first(headers.get("x-forwarded-proto", "")).lower()
        if proto in ("https", "wss", "http", "ws"):
            scheme = "https" if proto in ("https", "wss") else "http"
        host = _first(headers.get("x-forwarded-host", "")) or host
        port = _first(headers.get("x-forwarded-port", ""))
        default = "443" if scheme == "https" else "80"
        if port.isdecimal() and port != default and not _has_port(host):
            host = f"{host}:{port}"
    return f"{scheme}://{host}"


def _first(value: str) -> str:
    return value.split(",", 1)[0].strip()


def _has_port(host: str) -> bool:
    return host.rpartition("]")[2].rpartition(":")[1] == ":"
