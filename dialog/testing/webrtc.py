"""A client of the browser's protocol over WebRTC in Python, on aiortc (extra ``webrtc``): for tests and scripts.

::

    async with RtcCaller.connect("ws://127.0.0.1:8080/ws/realtime", token=token) as caller:
        ...  # as with a WebCaller
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import msgspec
from aiohttp import ClientSession

from dialog.clock import Clock
from dialog.testing.web import WebCaller, WebRefused
from dialog.voip.web.messages import (
    SUBPROTOCOL,
    Clear,
    ClientMessage,
    Closing,
    ErrorTold,
    Mark,
    MarkReached,
    SessionEnd,
    SessionResume,
    SessionStart,
    SessionStarted,
    decode_server_message,
    encode,
)
from dialog.voip.web.rtc.connection import VoiceTrack, prepare
from dialog.voip.web.rtc.library import (
    AudioFrame,
    MediaStreamError,
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCSessionDescription,
)
from dialog.voip.web.rtc.offers import RtcAnswer, RtcOffer
from dialog.voip.web.rtc.opus import OpusReader

__all__ = ["RtcCaller"]

_WAIT_S: Final = 10.0
_LEAVE_S: Final = 2.0
_LOUD: Final = 200
"""Of 32768; below it is silence."""
_STATUS: Final = {500: 1011}


class RtcCaller(WebCaller):
    """Talks to an agent as a page does that uses WebRTC."""

    def __init__(self, http: ClientSession, url: str, clock: Clock) -> None:
        super().__init__(http, url, clock)
        self._link: _Link | None = None
        self._heard = bytearray()

    @property
    def heard_audio(self) -> bytes:
        """All audio that has sounded until now, without the silences between."""
        return bytes(self._heard)

    @property
    def speaking(self) -> bool:
        """Whether what was to be said is not all said yet."""
        return self._link is not None and self._link.voice.queued > 0

    def say(self, audio: bytes) -> None:
        """Speak, at the pace of speech, and be silent afterwards."""
        assert self._link is not None
        self._link.voice.say(audio)

    def send(self, message: ClientMessage) -> None:
        """Say something of the protocol."""
        assert self._link is not None
        self._link.send(message)

    async def drop(self) -> None:
        """Let the connection break, without a word."""
        link, self._link = self._link, None
        if link is not None:
            await link.drop()
        await self._stop()

    async def hang_up(self) -> None:
        """End the session and close the connection; harmless when repeated."""
        link, self._link = self._link, None
        if link is not None:
            link.send(SessionEnd())
            await asyncio.wait([link.over], timeout=_LEAVE_S)
            await link.close()
        await self._stop()

    async def _open(self, first: SessionStart | SessionResume, origin: str = "") -> SessionStarted:
        audio = first.audio[0] if isinstance(first, SessionStart) else self.audio_format
        link = _Link(self, audio, self._clock)
        old, self._link = self._link, link
        try:
            async with asyncio.timeout(_WAIT_S):
                answer = await self._post(RtcOffer(sdp=await link.offer(), session=first), origin)
                if answer.started is not None:
                    link.reader = OpusReader(answer.started.audio)
                await link.connect(answer.sdp)
                either: list[asyncio.Future[Any]] = [link.started, link.over]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await link.close()
            raise
        finally:
            if old is not None:
                await old.close()
        if not link.started.done():
            await link.close()
            error = next((each for each in reversed(self.messages) if isinstance(each, ErrorTold)), None)
            raise WebRefused(self.close_code or 1006, error)
        self.started = link.started.result()
        self._reader = asyncio.create_task(self._attend(link), name="rtc caller")
        return self.started

    async def _post(self, offer: RtcOffer, origin: str) -> RtcAnswer:
        url = f"http{self._url.removeprefix('ws').removeprefix('http')}/webrtc"
        headers = {"Content-Type": "application/json", **({"Origin": origin} if origin else {})}
        async with self._http.post(url, data=msgspec.json.encode(offer), headers=headers) as response:
            body = await response.read()
            if response.status == 200:
                return msgspec.json.decode(body, type=RtcAnswer)
            error = decode_server_message(body) if response.content_type == "application/json" else None
            self.close_code = _STATUS.get(response.status, 4000 + response.status)
            raise WebRefused(self.close_code, error if isinstance(error, ErrorTold) else None)

    async def _attend(self, link: _Link) -> None:
        await link.over
        await link.close()
        self._news.set()

    # What the link tells.

    def _told(self, link: _Link, text: str) -> None:
        message = decode_server_message(text)
        if isinstance(message, Closing):
            self.close_code = message.code
            link.leave()
        elif message is not None:
            self.messages.append(message)
            if isinstance(message, SessionStarted) and not link.started.done():
                link.started.set_result(message)
        self._news.set()

    def _sounded(self, audio: bytes) -> None:
        self._heard += audio


class _Link:
    """One connection."""

    def __init__(self, caller: RtcCaller, audio: Any, clock: Clock) -> None:
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[SessionStarted] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self.reader = OpusReader(audio)
        self._caller = caller
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self.voice = VoiceTrack(audio, kbit_s=32, clock=clock, rests=False)
        transceiver = self._peer.addTransceiver(self.voice, "sendrecv")
        prepare(transceiver)
        self._receiver: RTCRtpReceiver = transceiver.receiver
        self._channel: RTCDataChannel = self._peer.createDataChannel(SUBPROTOCOL)
        self._marks: list[Mark] = []
        self._silent_until: int | None = None
        self._ears: asyncio.Task[None] | None = None
        self._channel.on("message", self._take)
        self._channel.on("close", self.leave)
        self._peer.on("track", self._on_track)
        self._peer.on("connectionstatechange", self._on_state)

    async def offer(self) -> str:
        await self._peer.setLocalDescription(await self._peer.createOffer())
        return str(self._peer.localDescription.sdp)

    async def connect(self, answer: str) -> None:
        await self._peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    def send(self, message: ClientMessage) -> None:
        if self._channel.readyState == "open":
            self._channel.send(encode(message).decode())

    def leave(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    async def drop(self) -> None:
        """Say nothing any more, and hear nothing."""
        await self._receiver.transport.transport.stop()
        await self.close()

    async def close(self) -> None:
        self.leave()
        if self._ears is not None:
            self._ears.cancel()
        await self._peer.close()
        if self._ears is not None:
            await asyncio.wait([self._ears])

    def _on_state(self) -> None:
        if self._peer.connectionState in ("failed", "closed"):
            self.leave()

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._ears = asyncio.get_running_loop().create_task(self._hear(track), name="rtc caller hears")

    def _take(self, text: str) -> None:
        message = decode_server_message(text)
        if isinstance(message, Mark):
            self._marks.append(message)
        elif isinstance(message, Clear):
            self._silent_until = message.rtp
            self._echo(len(self._marks))
        else:
            self._caller._told(self, text)

    def _echo(self, count: int) -> None:
        for mark in self._marks[:count]:
            self.send(MarkReached(mark.name))
        del self._marks[:count]

    async def _hear(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame = cast("Any", await track.recv())
                assert isinstance(frame, AudioFrame)
                # What is told counts from the first packet that came; the sender's timestamps are told to nobody.
                mapper: Any = getattr(self._receiver, "_RTCRtpReceiver__timestamp_mapper")  # noqa: B009
                position = (mapper._origin + (frame.pts or 0)) % 2**32
                count = 0
                while count < len(self._marks) and _reached(position, self._marks[count].rtp or 0):
                    count += 1
                self._echo(count)
                if self._silent_until is not None and _reached(position, self._silent_until):
                    self._silent_until = None
                samples = memoryview(bytes(frame.planes[0])[: frame.samples * 4]).cast("h")
                audio = self.reader.convert(frame)
                if self._silent_until is None and max(samples) > _LOUD:
                    self._caller._sounded(audio)
        except MediaStreamError:
            return


def _reached(position: int, rtp: int) -> bool:
    return (position - rtp) % 2**32 < 2**31
