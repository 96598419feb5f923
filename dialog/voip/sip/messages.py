"""SIP messages: taken apart and checked by ``sipmessage``, written as bytes. Nothing here is I/O.

What goes back is copied as it came, not written anew: a header that was only read may have lost an escape.

Sources: RFC 3261 (SIP), RFC 3581 (answers to where a request came from).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeAlias

from msgspec import Struct

from dialog.errors import MissingExtra, RemoteProtocolError

try:
    from sipmessage import URI, Address, Message, Request, Response
except ImportError as exc:
    raise MissingExtra("sipmessage", "sip") from exc

__all__ = ["ALLOWED", "Incoming", "Reply", "Where", "header_uri", "parse", "party", "render", "reply"]

ALLOWED: Final = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, UPDATE, NOTIFY"
_MAX_HEADERS: Final = 200
_MAX_LINE: Final = 2000
"""Longer ones no telephone sends; the patterns of the parser take longer than they should on them."""
_METHOD: Final = re.compile(r"[A-Z]{1,20}")
Where: TypeAlias = tuple[str, int]
"""Host and port."""

_TAG: Final = re.compile(r";\s*tag\s*=\s*([^;,\s>]+)", re.IGNORECASE)
_BRANCH: Final = re.compile(r";\s*branch\s*=\s*([^;,\s]+)", re.IGNORECASE)
_RPORT: Final = re.compile(r";\s*rport(?=\s*(?:;|,|$))", re.IGNORECASE)
_BRACKETS: Final = re.compile(r"<([^<>\s]+)>")
_BARE: Final = re.compile(r"[^<>;,\s]+")


class Incoming(Struct, frozen=True, kw_only=True):
    """A request that came, with what every one must have (RFC 3261, section 8.1.1)."""

    message: Request
    method: str
    source: Where
    """Where it came from, and its answers go."""
    call_id: str
    sequence: int
    branch: str
    """Names its transaction at whoever sent it."""
    from_tag: str
    to_tag: str
    """Empty outside of a call."""

    @property
    def key(self) -> tuple[Where, str, str]:
        """The transaction. That of an ACK or a CANCEL is the INVITE's, whose method they do not share."""
        return self.source, self.branch, self.method

    def __repr__(self) -> str:
        return f"<Incoming {self.method} {self.sequence}>"


class Reply(Struct, frozen=True, kw_only=True):
    """An answer to a request of ours."""

    message: Response
    code: int
    phrase: str
    call_id: str
    method: str
    sequence: int
    branch: str
    to_tag: str

    def __repr__(self) -> str:
        return f"<Reply {self.code} to {self.method}>"


def parse(data: bytes, source: Where) -> Incoming | Reply:
    """Take a datagram apart.

    Raises:
        RemoteProtocolError: It is no SIP message, or lacks what every one must have.
    """
    head = data.partition(b"\r\n\r\n")[0]
    lines = head.split(b"\r\n")
    if len(lines) > _MAX_HEADERS or max(map(len, lines)) > _MAX_LINE:
        raise RemoteProtocolError(f"a SIP message of {len(lines)} lines, the longest of {max(map(len, lines))} bytes")
    if head.count(b"\r") >= len(lines) or head.count(b"\n") >= len(lines):
        raise RemoteProtocolError("a SIP message with a line end inside of a line")
    try:
        message = Message.parse(data)
        length = message.content_length
        if length is not None:
            if not 0 <= length <= len(message.body):
                raise RemoteProtocolError(f"a SIP message names {length} bytes of body and has {len(message.body)}")
            message.body = message.body[:length]
        via = message.headers["Via"]
        sequence = message.cseq
        call_id = message.call_id
        from_tag, to_tag = _tag(message.headers["From"]), _tag(message.headers["To"])
        Address.parse(message.headers["From"])
        Address.parse(message.headers["To"])
    except (KeyError, ValueError, TypeError) as exc:  # whatever the parser meets in what it takes apart
        raise RemoteProtocolError(f"a SIP message cannot be read: {type(exc).__name__} {exc}") from exc
    found = _BRANCH.search(via)
    branch = found.group(1) if found is not None else ""
    if not call_id or sequence.sequence >= 2**31:
        raise RemoteProtocolError("a SIP message without a Call-ID, or with a CSeq out of range")
    if isinstance(message, Response):
        if not 100 <= message.code <= 699:
            raise RemoteProtocolError(f"a SIP answer with the code {message.code}")
        return Reply(
            message=message,
            code=message.code,
            phrase=message.phrase,
            call_id=call_id,
            method=sequence.method,
            sequence=sequence.sequence,
            branch=branch,
            to_tag=to_tag,
        )
    if not _METHOD.fullmatch(message.method) or sequence.method != message.method:
        raise RemoteProtocolError("the method of a SIP request is not that of its CSeq")
    return Incoming(
        message=message,
        method=message.method,
        source=source,
        call_id=call_id,
        sequence=sequence.sequence,
        branch=branch,
        from_tag=from_tag,
        to_tag=to_tag,
    )


def reply(
    request: Incoming,
    code: int,
    phrase: str,
    *,
    to_tag: str = "",
    headers: Iterable[tuple[str, str]] = (),
    body: str = "",
    content_type: str = "application/sdp",
) -> bytes:
    """The answer to a request, with its Via, From, To, Call-ID and CSeq."""
    own = request.message.headers
    host, port = request.source
    vias = list(own.getlist("Via"))
    # RFC 3581, section 4: who asked for it learns where the request came from.
    vias[0] = _RPORT.sub(f";rport={port};received={host}", vias[0], count=1)
    to = own["To"]
    if to_tag and not request.to_tag:
        to = f"{to};tag={to_tag}"
    return render(
        f"SIP/2.0 {code} {phrase}",
        [
            *(("Via", via) for via in vias),
            ("From", own["From"]),
            ("To", to),
            ("Call-ID", request.call_id),
            ("CSeq", f"{request.sequence} {request.method}"),
            *headers,
        ],
        body=body,
        content_type=content_type,
    )


def render(first: str, headers: Iterable[tuple[str, str]], *, body: str = "", content_type: str = "") -> bytes:
    """A message as it goes over the network."""
    data = body.encode()
    lines = [first, *(f"{name}: {value}" for name, value in headers)]
    if data:
        lines.append(f"Content-Type: {content_type}")
    lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def header_uri(value: str) -> str:
    """The URI in a Contact or Record-Route, as it was written.

    Raises:
        RemoteProtocolError: There is none.
    """
    found = _BRACKETS.search(value)
    uri = found.group(1) if found is not None else ""
    if not uri and (bare := _BARE.match(value.strip())) is not None:
        uri = bare.group()
    try:
        URI.parse(uri)
    except (ValueError, TypeError) as exc:
        raise RemoteProtocolError("a SIP message names no address that can be used") from exc
    return uri


def party(value: str) -> str:
    """Who a From or To means: the user of its address, or its host if it has none."""
    uri = Address.parse(value).uri
    return uri.user or uri.host


def _tag(value: str) -> str:
    # Behind the brackets: within them it would be a parameter of the address.
    found = _TAG.search(value.rpartition(">")[2] if "<" in value else value)
    return found.group(1) if found is not None else ""
