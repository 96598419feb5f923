"""What a gateway has refused, for whoever counts."""

from __future__ import annotations

from collections import Counter

__all__ = ["Refusals"]


class Refusals:
    """How many requests and sockets were refused since the gateway was made."""

    def __init__(self) -> None:
        self.webhooks: Counter[int] = Counter()
        """By HTTP status."""
        self.sockets: Counter[int] = Counter()
        """Media sockets: by HTTP status, or by the code that they were closed with."""
        self.sip: Counter[int] = Counter()
        """SIP requests: by status; 0: of hosts that nobody has named, which get no answer."""
