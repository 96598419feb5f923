"""Requests and their answers, over a network that loses and repeats them (RFC 3261, section 17).

A request of ours is repeated until it is answered; one that comes again is answered as before.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from secrets import token_hex
from typing import Final

from dialog.errors import CarrierError
from dialog.voip.sip.messages import Incoming, Reply, Where

__all__ = ["T1_S", "T2_S", "Transactions"]

T1_S: Final = 0.5
"""An estimate of the round trip; real seconds, as all times here."""
T2_S: Final = 4.0
_REMEMBERED_S: Final = 32.0
"""64 round trips: so long a request may come again."""
_MOST: Final = 10_000


class Transactions:
    """Those of one socket; ``send`` writes a datagram."""

    def __init__(self, send: Callable[[bytes, Where], None]) -> None:
        self._send = send
        self._answers: OrderedDict[tuple[Where, str, str], tuple[float, bytes]] = OrderedDict()
        self._waiting: dict[tuple[str, str], asyncio.Future[Reply]] = {}

    # Theirs.

    def repeated(self, request: Incoming) -> bool:
        """Whether the request was here before; then it is answered again, if it has an answer yet."""
        known = self._answers.get(request.key)
        if known is None:
            return False
        if known[1]:
            self._send(known[1], request.source)
        return True

    def begin(self, request: Incoming) -> None:
        """A request that is not answered at once: from now on it is known."""
        self._remember(request, b"")

    def answer(self, request: Incoming, data: bytes) -> None:
        """Answer a request, now and whenever it comes again."""
        self._remember(request, data)
        self._send(data, request.source)

    # Ours.

    @staticmethod
    def branch() -> str:
        """A name for a transaction."""
        return f"z9hG4bK{token_hex(8)}"

    async def request(self, method: str, branch: str, data: bytes, where: Where, *, timeout_s: float) -> Reply:
        """Send a request, again and again, and wait for its final answer.

        Raises:
            CarrierError: None came within ``timeout_s``.
        """
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        key = (branch, method)
        self._waiting[key] = answered
        again_s = T1_S
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._send(data, where)
                    try:
                        return await asyncio.wait_for(asyncio.shield(answered), again_s)
                    except TimeoutError:
                        again_s = min(2 * again_s, T2_S)
        except TimeoutError:
            raise CarrierError(
                "sip", "", f"{where[0]} did not answer {method} within {timeout_s:g} s", in_doubt=True
            ) from None
        finally:
            del self._waiting[key]
            answered.cancel()

    def receive(self, reply: Reply) -> None:
        """Take an answer to a request of ours; what nobody waits for is ignored."""
        waiting = self._waiting.get((reply.branch, reply.method))
        if waiting is not None and reply.code >= 200 and not waiting.done():
            waiting.set_result(reply)

    def _remember(self, request: Incoming, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        self._answers[request.key] = (now + _REMEMBERED_S, data)
        self._answers.move_to_end(request.key)
        while self._answers:
            key, (until, _) = next(iter(self._answers.items()))
            if until > now and len(self._answers) <= _MOST:
                break
            del self._answers[key]
