"""What both sides of a telephone call have agreed on, by which they know each other's requests: without I/O.

RFC 3261 calls it a dialog (section 12).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from secrets import token_hex
from typing import Final

from dialog.errors import ConfigurationError
from dialog.voip.sip.messages import Incoming, Where, header_uri, render

__all__ = ["Leg", "refer_target"]

_TEL: Final = re.compile(r"\+?[0-9*#]{1,32}")
_SIP: Final = re.compile(r"sips?:[A-Za-z0-9_.!~*'()&=+$,;?/%:@\[\]-]{1,200}")


class Leg:
    """Our end of a call. Requests go to where the call came from, whatever addresses its messages name."""

    def __init__(
        self,
        *,
        call_id: str,
        local: str,
        local_tag: str,
        remote: str,
        target: str,
        routes: tuple[str, ...],
        peer: Where,
        contact: str,
        sequence: int = 0,
        heard: int = 0,
    ) -> None:
        self.call_id = call_id
        self.local_tag = local_tag
        self.peer = peer
        """Where requests are sent."""
        self.contact = contact
        """Our address, as a ``Contact``."""
        self.target = target
        """The other side's address, which requests name."""
        self._local = local
        self._remote = remote
        self._routes = routes
        self._sequence = sequence
        self._heard = heard
        """The highest number of a request of the other side."""

    @classmethod
    def answering(cls, invite: Incoming, contact: str) -> Leg:
        """The end of a call that comes in.

        Raises:
            RemoteProtocolError: It names no address of the other side.
        """
        tag = token_hex(8)
        headers = invite.message.headers
        return cls(
            call_id=invite.call_id,
            local=f"{headers['To']};tag={tag}",
            local_tag=tag,
            remote=headers["From"],
            target=header_uri(headers.get("Contact") or ""),
            routes=tuple(headers.getlist("Record-Route")),
            peer=invite.source,
            contact=contact,
            heard=invite.sequence,
        )

    def in_order(self, request: Incoming) -> bool:
        """Whether a request is newer than those that came before; remembers it."""
        if request.sequence <= self._heard:
            return False
        self._heard = request.sequence
        return True

    def retarget(self, request: Incoming) -> None:
        """Take the other side's new address, if a request names one."""
        contact = request.message.headers.get("Contact")
        if contact:
            self.target = header_uri(contact)

    def request(
        self,
        method: str,
        via: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        body: str = "",
        content_type: str = "",
    ) -> bytes:
        """A request within the call; ``via`` is its first Via, with the branch that names the transaction."""
        self._sequence += 1
        return render(
            f"{method} {self.target} SIP/2.0",
            [
                ("Via", via),
                ("Max-Forwards", "70"),
                *(("Route", route) for route in self._routes),
                ("From", self._local),
                ("To", self._remote),
                ("Call-ID", self.call_id),
                ("CSeq", f"{self._sequence} {method}"),
                ("Contact", self.contact),
                *headers,
            ],
            body=body,
            content_type=content_type,
        )


def refer_target(tel: str, peer: Where) -> str:
    """The address to which a caller is transferred: a number or an extension at the peer, or a ``sip:`` address.

    Raises:
        ConfigurationError: It is neither.
    """
    if _SIP.fullmatch(tel):
        return tel
    if not _TEL.fullmatch(tel):
        raise ConfigurationError("write a number in E.164, an extension of digits, or a sip: address")
    host, port = peer
    return f"sip:{tel}@{f'[{host}]' if ':' in host else host}:{port}".replace("#", "%23")
