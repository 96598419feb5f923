"""Media sockets on ASGI servers.

Source: ASGI specification 3.0, WebSocket.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from dialog.net.asgi import Receive, Send
from dialog.scope import CallScope
from dialog.voip.aiosocket import Session
from dialog.voip.wires import CLOSE_S, AsgiWire, Codec

__all__ = ["AsgiSockets"]


class _MakeSession(Protocol):
    def __call__(self, wire: AsgiWire, /) -> Session: ...


class AsgiSockets:
    """The sockets that are open.

    Args:
        max_message: Largest message, in bytes of a binary one, or characters.
        start_timeout_s: How long one may stay before something begins.
    """

    def __init__(self, *, max_message: int, start_timeout_s: float) -> None:
        self._max_message = max_message
        self._start_timeout_s = start_timeout_s
        self._wires: set[AsgiWire] = set()

    async def serve(
        self, receive: Receive, send: Send, codec: Codec, make: _MakeSession, *, subprotocol: str = ""
    ) -> None:
        """Accept a socket and serve it until it is closed; ``make`` gets the wire."""
        await send({"type": "websocket.accept", **({"subprotocol": subprotocol} if subprotocol else {})})
        wire = AsgiWire(codec, send)
        session = make(wire)
        self._wires.add(wire)
        writer = asyncio.create_task(wire.run(), name="write to a media socket")
        patience = asyncio.get_running_loop().call_later(self._start_timeout_s, session.lose_patience)
        try:
            await self._read(receive, session, wire)
        finally:
            patience.cancel()
            session.closed()
            self._wires.discard(wire)
            await asyncio.wait((writer,), timeout=CLOSE_S)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def close(self) -> None:
        """Close the sockets that no call closed; their handlers end them."""
        for wire in tuple(self._wires):
            wire.close()

    async def _read(self, receive: Receive, session: Session, wire: AsgiWire) -> None:
        entered = False
        while not wire.closed:
            message = await receive()  # also tells that we have closed it
            if message["type"] != "websocket.receive":
                session.peer_closes(int(message.get("code") or 1005))
                wire.peer_closed()
                return
            text, data = message.get("text"), message.get("bytes")
            size = len(text if text is not None else data or b"")
            if size > self._max_message:
                session.refuse(1009, f"a message of {size} characters came, more than {self._max_message}")
            elif text is not None:
                session.receive(text)
            else:
                session.receive_binary(data or b"")
            if not entered and session.scope is not None:
                entered = True
                CallScope.adopt(session.scope)  # whatever listeners create belongs to the call
