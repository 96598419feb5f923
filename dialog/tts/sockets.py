"""Voices behind one WebSocket per call: :class:`SocketTTS`."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import ClassVar
from uuid import UUID

from dialog.errors import ProviderError
from dialog.message import AudioFormat, Message
from dialog.net.socket import ProviderSocket, SocketSettings
from dialog.tts.siblings import Siblings
from dialog.tts.streaming import StreamingTTS
from dialog.tts.tts import TTS

__all__ = ["SocketTTS"]

_BUSY_S = 1.0
"""When to look again whether nothing is spoken."""


class SocketTTS(StreamingTTS):
    """Speaks all parts of a call over one socket, which is open before the first text.

    A subclass gives the address (:meth:`_address`) and takes messages (:meth:`_receive`); text goes
    out with ``self._socket.send``. What else it needs of a new connection it says in :meth:`_up`.

    Args:
        api_key: See :class:`StreamingTTS`, also for the others that are not here.
        slots: …
        timeout_s: …
        release_s: …
        model: …
        headers: Of the handshake, the credentials among them.
        settings: How the socket behaves.
    """

    renew_s: ClassVar[float | None] = None
    """After so long a connection is replaced between two parts, since the provider would cut it."""

    voice_argument: ClassVar[str] = ""
    """Argument of the constructor that says who speaks, where a connection has one voice: each other has its own."""

    _socket: ProviderSocket

    def __init__(
        self,
        *,
        api_key: str,
        slots: int,
        timeout_s: float,
        headers: Mapping[str, str],
        settings: SocketSettings,
        release_s: float = 2.0,
        model: str = "",
    ) -> None:
        super().__init__(api_key=api_key, slots=slots, timeout_s=timeout_s, release_s=release_s, model=model)
        self._headers = dict(headers)
        self._settings = settings
        self._renewal: asyncio.TimerHandle | None = None
        self._siblings: Siblings | None = None
        """Once another voice was wanted."""

    @abstractmethod
    def _address(self, audio_format: AudioFormat) -> str:
        """Where to connect for audio in this format."""

    @abstractmethod
    def _receive(self, data: str | bytes) -> None:
        """A message came."""

    def _start(self) -> None:
        self._socket = ProviderSocket(
            self,
            provider=self.provider,
            url=self._address(self._format),
            headers=self._headers,
            on_message=self._receive,
            on_open=self._up,
            on_lost=self._lost,
            on_failed=self._failed,
            settings=self._settings,
        )
        self._socket.open()

    @property
    def _connected(self) -> bool:
        return self._socket.connected

    def post(self, message: Message[str]) -> None:
        """Queue text of a part and return; ``done`` says that no more follows for the part.

        Raises:
            StateError: Called before :meth:`open`.
            LimitError: More voices speak at the same time than may have a connection.
        """
        if message.voice and self.voice_argument and self._opened and not self.disposed:
            if self._siblings is None:
                self._siblings = Siblings(self, self._sibling)
            self._siblings.post(message, self._format)
        else:
            super().post(message)

    def _sibling(self, voice: str) -> TTS:
        return self._context().run(partial(self.renewed, **{self.voice_argument: voice}))

    def abort(self, uuid: UUID, *, part: int | None = None) -> None:
        """Stop a turn, or one part of it: nothing more is emitted for it. Unknown ones are ignored."""
        if self._siblings is not None:
            self._siblings.abort(uuid, part)
        super().abort(uuid, part=part)

    def dispose(self) -> None:
        """End for good: what is being spoken is dropped, the connection is closed in the background."""
        self._stop_renewal()
        if self._siblings is not None:
            self._siblings.dispose()
        super().dispose()

    async def wait_disposed(self, timeout_s: float = 2.0) -> None:
        """Wait, at most ``timeout_s``, until nothing of it is left."""
        siblings = [] if self._siblings is None else [self._siblings.wait_disposed(timeout_s)]
        await asyncio.gather(super().wait_disposed(timeout_s), *siblings)

    def _up(self) -> None:
        """A connection is there."""
        self._stop_renewal()
        if self.renew_s is not None:
            self._renewal = self._loop.call_later(self.renew_s, self._renew)
        self._admit()

    def _replace(self, error: ProviderError | None) -> None:
        """Leave this connection for another one; what was not spoken goes on there. ``None``: nothing is wrong."""
        self._socket.replace(error)

    def _renew(self) -> None:
        self._renewal = None
        if self._parts:
            self._renewal = self._loop.call_later(_BUSY_S, self._renew)
        else:
            self._replace(None)

    def _stop_renewal(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
