"""One client's WebRTC connection, on aiortc: a track each way, and a data channel for the messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, cast

from dialog.clock import Clock
from dialog.message import AudioFormat
from dialog.scope import CallScope
from dialog.voip.web.exchange import Admitted
from dialog.voip.web.messages import SUBPROTOCOL, Clear, Closing, Mark, encode
from dialog.voip.web.rtc.library import (
    AudioFrame,
    MediaStreamError,
    MediaStreamTrack,
    Packet,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from dialog.voip.web.rtc.opus import RATE, OpusReader, OpusWriter
from dialog.voip.web.rtc.reorder import Reorder
from dialog.voip.web.rtc.settings import WebRTC
from dialog.voip.web.rtc.speech import FRAME_MS, Speech
from dialog.voip.web.session import WebSession
from dialog.voip.wires import CLOSE_S

__all__ = ["RtcConnection", "RtcWire", "VoiceTrack", "prepare"]

logger = logging.getLogger(__name__)

_BUFFER: Final = "_RTCRtpReceiver__jitter_buffer"
_FRAME_S: Final = FRAME_MS / 1000.0
_TICKS: Final = RATE * FRAME_MS // 1000
_BEHIND_S: Final = 1.0
"""A loop that stood still for longer does not catch up: nobody wants to hear it all at once."""
_HANG: Final = 50
"""After so many frames of silence nothing is sent: a second, in which whatever holds audio back lets go of it."""
_QUEUED_S: Final = 10
_MAX_CONTROL: Final = 1_000_000
_WATCH_S: Final = 1.0
_SILENT_S: Final = 10.0
"""A client sends all the time; one that is not heard for so long is lost."""
_LEFT_S: Final = 2.5
"""Who was heard so short a time before the connection was closed has closed it."""


class VoiceTrack(MediaStreamTrack):
    """What is said, at the pace of speech: aiortc takes a packet, sends it, and comes for the next one.

    Args:
        audio_format: What :meth:`say` takes.
        kbit_s: What is sent.
        clock: The pace.
        reached: Told of marks, when all audio before them has left.
        rests: Send nothing while there is nothing to say.
    """

    kind = "audio"

    def __init__(
        self,
        audio_format: AudioFormat,
        *,
        kbit_s: int,
        clock: Clock,
        reached: Callable[[list[str]], object] = lambda _: None,
        rests: bool,
    ) -> None:
        super().__init__()
        self._speech = Speech(audio_format)
        self._writer = OpusWriter(audio_format, kbit_s=kbit_s)
        self._clock = clock
        self._reached = reached
        self._rests = rests
        self._silent = 0
        """Frames of silence, on end."""
        self._more: asyncio.Event = asyncio.Event()
        self._due: float | None = None
        self._marks: list[str] = []
        """What is reached with the packet that was taken last."""

    @property
    def queued(self) -> int:
        """Bytes that wait to be said."""
        return self._speech.queued

    def say(self, data: bytes, mark: str = "") -> None:
        """Say ``data`` after what waits, and note the place behind it."""
        self._speech.put(data)
        if mark:
            self._speech.mark(mark)
        self._more.set()

    def clear(self) -> int:
        """Forget what waits; how many bytes of audio that was."""
        return self._speech.clear()

    def stop(self) -> None:
        """See :class:`aiortc.MediaStreamTrack`."""
        super().stop()
        self._more.set()

    async def recv(self) -> Packet[Any]:
        """The next packet, when it is due."""
        if self._marks:
            self._reached(self._marks)
        while True:
            await self._wait()
            if self.readyState != "live":
                raise MediaStreamError
            frame, self._marks = self._speech.take()
            quiet = frame is self._speech.silence and not self._marks
            self._silent = self._silent + 1 if quiet else 0
            packet = self._writer.encode(frame)
            if packet is not None:
                return packet

    async def _wait(self) -> None:
        """Wait until the next frame is due."""
        now = self._clock.now()
        if self._rests and self._silent > _HANG:
            self._more.clear()
            await self._more.wait()
            self._silent = 0
            rested, now = self._clock.now() - now, self._clock.now()
            self._writer.skip(round(rested / _FRAME_S))
            self._due = now
        elif self._due is None or now - self._due > _BEHIND_S:
            self._due = now
        # Also when it is late: nothing else makes aiortc's task pause, and others have to go on.
        await self._clock.sleep(max(0.0, self._due - now))
        self._due += _FRAME_S


class RtcWire:
    """What a line writes to; see :class:`~dialog.voip.peers.MediaWire`."""

    def __init__(self) -> None:
        self.rtt_s = 0.0
        self.close_code = 1000
        self.closed = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """It is closed, by us."""
        self.channel: RTCDataChannel | None = None
        self.voice: VoiceTrack | None = None
        self.limit: int = 0
        """Bytes of audio that may wait."""
        self.position: Callable[[], int] = lambda: 0
        """The RTP timestamp behind the last packet that has left."""

    def send_audio(self, data: bytes, mark: str = "") -> None:
        """See :class:`~dialog.voip.line.Wire`."""
        if self.closed or self.voice is None:
            return
        self.voice.say(data, mark)
        if self.voice.queued > self.limit:
            logger.error("a client's connection takes no audio, %d bytes wait; giving it up", self.voice.queued)
            self.fail(1011)

    def send_mark(self, name: str) -> None:
        """See :class:`~dialog.voip.line.Wire`."""
        if not self.closed and self.voice is not None:
            self.voice.say(b"", name)

    def send_control(self, message: bytes) -> None:
        """See :class:`~dialog.voip.peers.MediaWire`."""
        channel = self.channel
        if self.closed or channel is None or channel.readyState != "open":
            return
        channel.send(message.decode())
        if channel.bufferedAmount > _MAX_CONTROL:
            logger.error("a client takes no messages, %d bytes wait; giving it up", channel.bufferedAmount)
            self.fail(1011)

    def send_clear(self) -> int:
        """See :class:`~dialog.voip.line.Wire`."""
        if self.closed or self.voice is None:
            return 0
        dropped = self.voice.clear()
        self.send_control(encode(Clear(rtp=self.position())))
        return dropped

    def reached(self, marks: list[str]) -> None:
        """All audio before these marks has left."""
        position = self.position()
        for name in marks:
            self.send_control(encode(Mark(name, rtp=position)))

    def close(self) -> None:
        """Close the connection; calling it again is harmless."""
        self.fail(1000)

    def fail(self, code: int) -> None:
        """Close the connection with a code, unless it is closed already."""
        if self.closed:
            return
        self.send_control(encode(Closing(code)))
        self.closed = True
        self.close_code = code
        if self.voice is not None:
            self.voice.clear()
        if not self.over.done():
            self.over.set_result(None)


class RtcConnection:
    """Joins a session to a peer, from its offer to its end.

    Args:
        wire: What the session writes to.
        session: Told what the peer says.
        admitted: How the session begins.
        settings: See there.
        max_message: Largest message, in bytes.
        start_timeout_s: How long the peer may take to connect.
        clock: Time of the call.
    """

    def __init__(
        self,
        wire: RtcWire,
        session: WebSession,
        admitted: Admitted,
        settings: WebRTC,
        *,
        max_message: int,
        start_timeout_s: float,
        clock: Clock,
    ) -> None:
        self._wire = wire
        self._session = session
        self._admitted = admitted
        self._max_message = max_message
        self._start_timeout_s = start_timeout_s
        servers = [
            RTCIceServer(each.url, each.username or None, each.credential or None) for each in settings.ice_servers
        ]
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._reader = OpusReader(admitted.audio)
        wire.limit = admitted.audio.size(_QUEUED_S * 1000)
        wire.voice = VoiceTrack(admitted.audio, kbit_s=settings.kbit_s, clock=clock, reached=wire.reached, rests=True)
        transceiver = self._peer.addTransceiver(wire.voice, "sendrecv")
        prepare(transceiver)
        self._sender = transceiver.sender
        wire.position = self._position
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ears: asyncio.Task[None] | None = None
        self._heard_at = monotonic()
        self._peer.on("track", self._on_track)
        self._peer.on("datachannel", self._on_channel)
        self._peer.on("connectionstatechange", self._on_state)

    async def answer(self, offer: str) -> str:
        """The answer to an offer, with all our addresses.

        Raises:
            Exception: Whatever aiortc has against the offer.
        """
        await self._peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await self._peer.setLocalDescription(await self._peer.createAnswer())
        return str(self._peer.localDescription.sdp)

    async def run(self) -> None:
        """Serve the connection until it is closed."""
        try:
            await self._first(self._opened, timeout_s=self._start_timeout_s)
            if not self._opened.done():
                logger.info("session %s: its WebRTC connection did not come about", self._session.name)
                return
            self._session.join(self._admitted)
            silent = 0
            while not await self._first(timeout_s=_WATCH_S):
                self._wire.rtt_s = await self._round_trip()
                # Counted, not measured: a loop that stood still has not listened.
                silent = 0 if monotonic() - self._heard_at < _WATCH_S else silent + 1
                if silent >= _SILENT_S / _WATCH_S:
                    logger.warning("session %s: nothing came for %g s, it is lost", self._session.name, _SILENT_S)
                    return
            if self._gone.done() and monotonic() - self._heard_at < _LEFT_S:
                self._session.peer_closes(1001)
        finally:
            await self._close()

    async def close(self) -> None:
        """Let go of a connection that was never run."""
        await self._close()

    async def _close(self) -> None:
        self._session.closed()
        if self._opened.done():
            await asyncio.wait([self._gone], timeout=CLOSE_S)  # the peer goes first, when it has read why
        if self._ears is not None:
            self._ears.cancel()
        try:
            await self._peer.close()
        except Exception as exc:  # aiortc's own: an offer that it did not understand can leave it in disorder
            logger.warning("session %s: its connection cannot be closed in good order: %r", self._session.name, exc)
        if self._ears is not None:
            await asyncio.wait([self._ears])

    async def _first(self, *also: asyncio.Future[None], timeout_s: float) -> bool:
        """Wait for the end, or something else; whether anything came in time."""
        done, _ = await asyncio.wait(
            [self._gone, self._wire.over, *also], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        return bool(done)

    def _position(self) -> int:
        # The sender chooses where timestamps begin, and tells nobody but the peer.
        sent: int = getattr(self._sender, "_RTCRtpSender__rtp_timestamp")  # noqa: B009  # no attribute of ours
        return (sent + _TICKS) % 2**32

    async def _round_trip(self) -> float:
        stats = cast("dict[str, Any]", await self._sender.getStats())
        for each in stats.values():
            if each.type == "remote-inbound-rtp" and each.roundTripTime is not None:
                return float(each.roundTripTime)
        return 0.0

    # What aiortc tells. A listener that raised would end its transport's task: nothing may.

    def _on_state(self) -> None:
        if self._peer.connectionState in ("failed", "closed"):
            self._leave()

    def _leave(self) -> None:
        if not self._gone.done():
            self._gone.set_result(None)

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if self._opened.done() or channel.label != SUBPROTOCOL or not channel.ordered:
            channel.close()
            return
        self._wire.channel = channel
        channel.on("message", self._on_message)
        channel.on("close", self._leave)
        self._opened.set_result(None)

    def _on_message(self, message: Any) -> None:
        self._heard_at = monotonic()
        try:
            if isinstance(message, bytes):
                self._session.refuse(1008, f"{len(message)} bytes came on the data channel, which is for text")
            elif len(message) > self._max_message:
                self._session.refuse(
                    1009, f"a message of {len(message)} characters came, more than {self._max_message}"
                )
            else:
                self._session.receive(message)
        except Exception:
            logger.exception("session %s: a message could not be handled", self._session.name)
            self._wire.fail(1011)

    def _on_track(self, track: MediaStreamTrack) -> None:
        if self._ears is None:
            self._ears = asyncio.get_running_loop().create_task(self._hear(track), name="hear a client")

    async def _hear(self, track: MediaStreamTrack) -> None:
        entered = False
        try:
            while True:
                frame = cast("Any", await track.recv())
                assert isinstance(frame, AudioFrame)
                self._heard_at = monotonic()
                if not entered and self._session.scope is not None:
                    entered = True
                    CallScope.adopt(self._session.scope)  # whatever listeners create belongs to the call
                at_ms = (frame.pts or 0) * 1000.0 / RATE
                self._session.receive_audio(self._reader.convert(frame), at_ms)
        except MediaStreamError:
            return  # it has ended
        except Exception:
            logger.exception("session %s: its audio could not be taken", self._session.name)
            self._wire.fail(1011)


def prepare(transceiver: Any) -> None:
    """Let audio be Opus, whatever else both sides may know, and take it as it comes: see :class:`Reorder`."""
    known = RTCRtpSender.getCapabilities("audio").codecs
    transceiver.setCodecPreferences([each for each in known if each.mimeType == "audio/opus"])
    assert hasattr(transceiver.receiver, _BUFFER), "this version of aiortc is not known"
    setattr(transceiver.receiver, _BUFFER, Reorder())
