"""The audio of a telephone call: a socket of its own, one packet in each direction every 20 ms."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from dialog.clock import Clock
from dialog.errors import NotSupportedError, RemoteProtocolError, StateError
from dialog.message import AudioFormat
from dialog.voip.pacer import Pacer
from dialog.voip.sip.messages import Where
from dialog.voip.sip.rtp import FRAME_S, Heard, Receiver, Sender, decode
from dialog.voip.sip.sdp import Media

__all__ = ["RtpPort", "RtpWire"]

logger = logging.getLogger(__name__)

_BURST_S: Final = 0.2
"""What was missed for longer, while the loop stood still, is not sent behind it."""
_RTCP: Final = range(72, 77)
"""What the packet types of RTCP look like among payload types (RFC 5761, section 4)."""


class RtpWire:
    """What a line writes to: audio waits here for its packet. See :class:`~dialog.voip.line.Wire`.

    There is no carrier that would hold a lead, and none that would tell what it has played: what has left is heard,
    and a clear takes back to the packet what has not. The line sends no more ahead than its lead, which bounds the
    queue.
    """

    rtt_s = 0.0

    def __init__(self, audio_format: AudioFormat) -> None:
        self.closed = False
        self._frame = audio_format.size(FRAME_S * 1000)
        self._silence = audio_format.silence(FRAME_S * 1000)
        self._queue = bytearray()
        self._put = 0
        self._left = 0
        self._marks: deque[tuple[int, str]] = deque()

    def send_audio(self, data: bytes, mark: str = "") -> None:
        """Play ``data`` after what waits; with ``mark`` as if :meth:`send_mark` came right after it."""
        if not self.closed:
            self._queue += data
            self._put += len(data)
            if mark:
                self.send_mark(mark)

    def send_mark(self, name: str) -> None:
        """Tell when all audio before it has sounded."""
        if not self.closed:
            self._marks.append((self._put, name))

    def send_clear(self) -> int:
        """Drop what waits, marks too; returns its bytes."""
        dropped = len(self._queue)
        self._queue.clear()
        self._marks.clear()
        self._put = self._left
        return dropped

    def close(self) -> None:
        """Nothing more is played; the socket is the call's."""
        self.closed = True
        self.send_clear()

    def played(self) -> str:
        """The next mark whose audio has sounded by now; empty: there is none. Asked before the next packet."""
        if self._marks and self._marks[0][0] <= self._left:
            return self._marks.popleft()[1]
        return ""

    def take(self) -> bytes:
        """The audio of the next packet."""
        if not self._queue:
            return self._silence
        frame = bytes(self._queue[: self._frame])
        del self._queue[: self._frame]
        self._left += len(frame)
        return frame + self._silence[len(frame) :]


class RtpPort(asyncio.DatagramProtocol):
    """The socket of a call's audio. It sends all the time, silence too: who hears nothing hangs up.

    Only hosts that the signalling has named are listened to. The first packet from one of them says where its
    packets really come from, which is where ours go (a router in between may have changed the port).
    """

    def __init__(self, clock: Clock, *, quiet_s: float) -> None:
        """``quiet_s``: how long nothing may come before :attr:`on_quiet` is called, in seconds of ``clock``."""
        self.wire: RtpWire | None = None
        """Whose audio is sent; silence without one."""
        self.on_heard: Callable[[Heard], object] = lambda _: None
        self.on_mark: Callable[[str], object] = lambda _: None
        self.on_quiet: Callable[[], object] = lambda: None
        """Nothing has come for too long: called once, until something comes."""
        self.on_back: Callable[[], object] = lambda: None
        """Something has come after that."""
        self._clock = clock
        self._quiet_s = quiet_s
        self._transport: asyncio.DatagramTransport | None = None
        self._media: Media | None = None
        self._receiver: Receiver | None = None
        self._sender: Sender | None = None
        self._silence = b""
        self._hosts: frozenset[str] = frozenset()
        self._remote: Where = ("", 0)
        self._latched = False
        self._due = 0.0
        self._heard_at = 0.0
        self._quiet = False
        self._full = False
        self._pressed: asyncio.Event = asyncio.Event()
        self._warned = False
        self._closed = False

    @classmethod
    async def open(cls, host: str, ports: range, clock: Clock, *, quiet_s: float) -> RtpPort:
        """Bind a socket: to a free port of ``ports``, or to one that the system chooses if there are none.

        Raises:
            StateError: All of them are taken.
        """
        loop = asyncio.get_running_loop()
        for port in ports or (0,):
            made = cls(clock, quiet_s=quiet_s)
            try:
                await loop.create_datagram_endpoint(lambda made=made: made, local_addr=(host, port))  # type: ignore[misc]
            except OSError as exc:
                if port == 0:
                    raise StateError(f"no socket for a call's audio: {exc}") from exc
                continue
            return made
        raise StateError(f"all ports of rtp_ports ({ports.start} to {ports.stop - 1}) are taken by calls")

    @property
    def port(self) -> int:
        """Where packets are expected."""
        assert self._transport is not None
        number: int = self._transport.get_extra_info("sockname")[1]
        return number

    def connect(self, media: Media, peer: str) -> None:
        """Exchange audio as the other side has described it, for the first time or anew; ``peer`` signals."""
        before = self._media
        self._media = media
        self._hosts = frozenset((media.host, peer))
        self._remote = (media.host, media.port)
        self._latched = False
        if before is None or self._receiver is None or self._sender is None:
            self._receiver = Receiver(media.audio_format, media.payload_type, media.dtmf_type)
            self._sender = Sender(media.payload_type, media.dtmf_type)
            self._silence = media.audio_format.silence(FRAME_S * 1000)
            self._due = self._heard_at = self._clock.now()
            Pacer.of(self._clock, FRAME_S).add(self)
        else:
            if before.held:
                self._heard_at = self._clock.now()  # nobody had to say anything until now
            self._receiver.payload_type = self._sender.payload_type = media.payload_type
            self._receiver.dtmf_type = self._sender.dtmf_type = media.dtmf_type

    async def press(self, digits: str) -> None:
        """Press keys; done when the last one has sounded.

        Raises:
            NotSupportedError: The other side takes no keys beside the audio.
            ValueError: One of them is no key.
        """
        if self._sender is None or self._sender.dtmf_type is None:
            raise NotSupportedError("the other side takes no keys (it has not offered telephone-event)")
        self._sender.press(digits)
        self._pressed.clear()
        await self._pressed.wait()

    def close(self) -> None:
        """Close the socket; calling it again is harmless."""
        self._closed = True
        self._pressed.set()
        if self.wire is not None:
            self.wire.close()
        Pacer.of(self._clock, FRAME_S).remove(self)
        if self._transport is not None:
            self._transport.close()

    # The socket's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        # asyncio's own is no subclass of it before Python 3.12.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def pause_writing(self) -> None:
        """The network takes nothing."""
        self._full = True

    def resume_writing(self) -> None:
        """It does again."""
        self._full = False

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """A packet came. One that is no RTP, or of somebody else, is dropped."""
        receiver = self._receiver
        if receiver is None or self._closed or addr[0] not in self._hosts:
            return
        try:
            packet = decode(data)
        except RemoteProtocolError as exc:
            if not self._warned:
                self._warned = True
                logger.warning("from %s: %s; this is told once", addr[0], exc)
            return
        if packet.payload_type in _RTCP:
            return
        if not self._latched:
            self._latched = True
            self._remote = (addr[0], addr[1])
        now = self._heard_at = self._clock.now()
        if self._quiet:
            self._quiet = False
            self.on_back()
        if self._media is not None and not self._media.held:  # the music of a queue is not the caller
            self._hand_on(receiver.receive(packet, now))

    def error_received(self, exc: Exception) -> None:
        """The other side refuses a packet: as long as it signals, the call goes on."""
        logger.debug("a packet was refused: %r", exc)

    # The pacer's side.

    def tick(self, now: float, lead_ms: float) -> bool:
        """Send what is due, and look what has come."""
        del lead_ms  # nobody would keep it
        if self._closed or self._sender is None or self._receiver is None or self._media is None:
            return False
        missed = int((now - self._due) / FRAME_S)
        if missed * FRAME_S > _BURST_S:
            self._sender.skip(missed)
            self._due += missed * FRAME_S
        while self._due <= now:
            self._due += FRAME_S
            self._send(self._sender)
        self._hand_on(self._receiver.tick(now))
        if now - self._heard_at > self._quiet_s and not self._quiet and not self._media.held:
            self._quiet = True
            self.on_quiet()
        return True

    def _send(self, sender: Sender) -> None:
        packets = sender.keys()
        if packets is not None:
            for packet in packets:
                self._write(packet)
            if not sender.pressing:
                self._pressed.set()
            return
        wire = self.wire
        if wire is None or wire.closed:
            audio = self._silence
        else:
            while name := wire.played():
                self.on_mark(name)
            audio = wire.take()
        packet = sender.audio(audio)
        self._write(packet)

    def _write(self, packet: bytes) -> None:
        transport = self._transport
        if self._media is None or self._media.held or transport is None:
            return
        if not self._full:  # else the network takes nothing: late audio is none
            transport.sendto(packet, self._remote)

    def _hand_on(self, heard: list[Heard]) -> None:
        for each in heard:
            self.on_heard(each)
