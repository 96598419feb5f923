"""Voices behind one WebSocket per call: :class:`SocketTTS`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from dialog.message import AudioFormat
from dialog.net.socket import ProviderSocket, SocketSettings
from dialog.tts.streaming import StreamingTTS

__all__ = ["SocketTTS"]


class SocketTTS(StreamingTTS):
    """Speaks all parts of a call over one socket, which is open before the first text.

    A subclass gives the address (:meth:`_address`) and takes messages (:meth:`_receive`); text goes
    out with ``self._socket.send``. What else it needs of a new connection it says in :meth:`_up`.

    Args:
        api_key: See :class:`StreamingTTS`, also for the others that are not here.
        slots: …
        timeout_s: …
        release_s: …
        headers: Of the handshake, the credentials among them.
        settings: How the socket behaves.
    """

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
    ) -> None:
        super().__init__(api_key=api_key, slots=slots, timeout_s=timeout_s, release_s=release_s)
        self._headers = dict(headers)
        self._settings = settings

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

    def _up(self) -> None:
        """A connection is there."""
        self._admit()
