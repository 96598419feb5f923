"""A simulated person on the phone: dials a gateway exactly as Twilio does, speaks, listens, measures.

::

    async with Caller.dial("http://127.0.0.1:8080/voice", auth_token="…", account_sid="AC…") as caller:
        greeting = await caller.listen()
        await caller.say("When are you open?")
        answer = await caller.listen()
        assert answer.latency_ms < 2000
        await caller.hang_up()

All positions are milliseconds of the call, counted on the caller's clock from when it was dialled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import aiohttp

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import StateError
from dialog.testing.call import CallEnded, CallerEvent, CallSpec, NothingHeard, SimulatedCall
from dialog.testing.carrier import CallStatus, Refused, TransferOutcome, Warned
from dialog.testing.carrier_stream import FRAME_BYTES, FRAME_MS, CarrierStream
from dialog.testing.faults import CallFaults, bad_messages
from dialog.testing.heard import Ear, Heard, Spoken, Stretch, Track, stereo_wav, voiced_span
from dialog.testing.media import BYTES_PER_MS, Cleared, Gap
from dialog.testing.stream import MediaStream, Microphone
from dialog.testing.voice import Voice, load

__all__ = [
    "CallEnded",
    "CallFaults",
    "CallStatus",
    "Caller",
    "CallerEvent",
    "Dialling",
    "Gap",
    "Heard",
    "NothingHeard",
    "Refused",
    "Spoken",
    "Warned",
    "bad_messages",
]

_LONG_OVERLAP_MS = 500.0
"""Agent speech that goes on for so long after the caller's last word is an answer to it."""


class Dialling:
    """A call that is set up when it is awaited, or entered with ``async with``, which also ends it."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def __await__(self) -> Generator[Any, None, Caller]:
        return self._set_up().__await__()

    async def __aenter__(self) -> Caller:
        return await self._set_up()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._caller.close()

    async def _set_up(self) -> Caller:
        await self._caller.set_up()
        return self._caller


class Caller(SimulatedCall):
    """One simulated call and the person in it; made by :meth:`dial`, freed by :meth:`close`."""

    def __init__(self, spec: CallSpec, *, voice: Voice | None = None, light: bool = False) -> None:
        super().__init__(spec, Microphone())
        self.spoken: list[Spoken] = []
        """When the caller himself spoke."""
        self.received_bytes: int = 0
        """Audio of the agent that arrived."""
        self.first_media_ms: float | None = None
        """When the first audio of the agent arrived, silence included."""
        self.clears: list[tuple[float, float]] = []
        """When the agent's side cleared the playback buffer, and how many milliseconds it dropped."""
        self._voice = voice
        self._light = light
        self._ear = Ear()
        self._gaps: list[Gap] = []
        self._mouth_track = Track()
        self._ear_track = Track()
        self._listened_ms = 0.0

    @staticmethod
    def dial(
        url: str,
        *,
        auth_token: str,
        account_sid: str = "AC00000000000000000000000000000000",
        from_: str = "+15551230001",
        to: str = "+15551230002",
        clock: Clock = SYSTEM_CLOCK,
        public_url: str = "",
        method: Literal["POST", "GET"] = "POST",
        direction: Literal["inbound", "outbound-api"] = "inbound",
        call_sid: str = "",
        twiml: str = "",
        parameters: Mapping[str, str] | None = None,
        status_callback: str = "",
        transfer: TransferOutcome = "completed",
        transfer_s: float = 1.0,
        faults: CallFaults | None = None,
        voice: Voice | None = None,
        light: bool = False,
        on_event: Callable[[CallerEvent], object] | None = None,
        session: aiohttp.ClientSession | None = None,
    ) -> Dialling:
        """Dial the voice webhook ``url``; ``await`` the result, or use it with ``async with``.

        The call is set up as soon as its media stream has started, or the TwiML has led elsewhere:
        look at :attr:`status`, :attr:`verbs` and :attr:`warnings` then.

        Args:
            url: The voice webhook as it is reached from here.
            auth_token: Signs every request, as the account's primary token does.
            account_sid: The account that the call belongs to.
            from_: Number of the caller.
            to: Number that is dialled.
            clock: Real time, or a faster clock; the gateway needs one of the same scale.
            public_url: What the gateway believes to be its address, when that differs from ``url``:
                requests are signed for it, and its addresses are reached where ``url`` points.
            method: How the number's webhook is configured.
            direction: ``outbound-api`` for a call that the agent's side has placed.
            call_sid: Of the call; a new one by default.
            twiml: A document to start with instead of requesting ``url`` (outbound calls).
            parameters: Further fields of the voice webhooks (``FromCity``, ``SipHeader_X-…``).
            status_callback: Where ``CallStatus=completed`` is reported, if anywhere.
            transfer: How the other side of a ``<Dial>`` behaves.
            transfer_s: How long a ``<Dial>`` lasts, its conversation or its ringing in vain, seconds of ``clock``.
            faults: What this carrier does wrong.
            voice: Speaks text; espeak by default.
            light: For load: no recording and no measuring of speech.
            on_event: Called with each event as it happens.
            session: HTTP client to use; by default one is made, and closed with the call.

        Raises:
            Refused: The webhook was not answered with TwiML (when awaited).
            MissingExtra: The ``testing`` extra is not installed (when awaited).
        """
        spec = CallSpec(
            url=url,
            auth_token=auth_token,
            account_sid=account_sid,
            from_=from_,
            to=to,
            clock=clock,
            public_url=public_url,
            method=method,
            direction=direction,
            call_sid=call_sid,
            twiml=twiml,
            parameters=tuple((parameters or {}).items()),
            status_callback=status_callback,
            transfer=transfer,
            transfer_s=transfer_s,
            faults=faults or CallFaults(),
            on_event=on_event,
            session=session,
        )
        return Dialling(Caller(spec, voice=voice, light=light))

    async def say(self, what: str | bytes | Path, *, wait: bool = True) -> Spoken | None:
        """Say something: a text, mu-law audio at 8 kHz, or a WAV file.

        Returns, when it was said, the times of its first and last sound; with ``wait=False`` at once
        ``None``, and speech goes on by itself.

        Raises:
            CallEnded: There is no open stream, or it ended meanwhile, or :meth:`be_silent` was called.
            MissingExtra: Text needs the ``local`` extra, or another ``voice``.
        """
        audio = await load(what, self._voice)
        self._require_stream()
        voice_start, voice_end = voiced_span(audio)
        text = what if isinstance(what, str) else f"{len(audio) / BYTES_PER_MS:.0f} ms of audio"
        first, last = self._microphone.put(audio)
        last_frame_ms = (max(len(audio), 1) - 1) // FRAME_BYTES * FRAME_MS
        spoken: list[Spoken] = []

        def said(frame: asyncio.Future[float]) -> None:
            if frame.cancelled():
                return
            begin = frame.result() - last_frame_ms
            spoken.append(Spoken(begin + voice_start, begin + voice_end))
            self.spoken.append(spoken[0])
            self.noted("said", text)

        first.add_done_callback(lambda frame: None if frame.cancelled() else self.noted("speaks", text))
        last.add_done_callback(said)
        if not wait:
            return None
        await asyncio.wait([last])
        if last.cancelled():
            raise CallEnded(f"call {self.call_sid}: the stream ended before the caller had said all")
        while self.stream is not None and self.now_ms() < last.result() + FRAME_MS:
            await self.clock.sleep(FRAME_MS / 1000)  # the last frame lasts 20 ms, too
        return spoken[0]

    def be_silent(self) -> None:
        """Break off what is being said."""
        self._microphone.clear()

    def press(self, digits: str) -> None:
        """Press keys: ``0-9 * # A-D``.

        Raises:
            ValueError: There is no such key.
            CallEnded: There is no open stream.
        """
        if not digits or set(digits) - set("0123456789*#ABCD"):
            raise ValueError(f"keys are 0-9 * # A-D, got {digits!r}")
        stream = self._require_stream()
        for digit in digits:
            stream.press(digit)

    @property
    def speaking(self) -> bool:
        """Whether the caller is saying something."""
        return self._microphone.speaking

    @property
    def heard(self) -> list[Heard]:
        """All that was heard of the agent so far, in stretches of speech."""
        return [self._measure(one.started_ms, one.ended_ms, cut=one.cut) for one in self._ear.stretches]

    async def listen(self, *, silence_ms: float = 700.0, timeout_s: float = 15.0) -> Heard:
        """Wait until the agent has spoken and been silent for ``silence_ms``; return what was heard.

        What was heard before the caller's own last words, and what an earlier ``listen`` returned,
        does not count. Times are those of the caller's clock.

        Raises:
            NothingHeard: The agent did not speak, or not to an end, within ``timeout_s``.
            CallEnded: The call ended, and nothing was heard before.
            StateError: The call is light.
        """
        self._require_ear()
        since = max(self._listened_ms, self.spoken[-1].ended_ms if self.spoken else 0.0)

        def finished() -> bool:
            if not self._since(since) or (self.stream is not None and self.stream.buffer.unplayed_ms(self.now_ms())):
                return False
            # Between two streams nobody can speak: silence counts from where the agent could go on.
            silent_since = max(self._ear.stretches[-1].ended_ms, self.streaming_since_ms)
            return self.now_ms() - silent_since >= silence_ms

        loop = asyncio.get_running_loop()
        looking: asyncio.TimerHandle | None = None

        def look() -> None:
            """In a conference no media tell that time passes."""
            nonlocal looking
            looking = loop.call_later(self.clock.real(0.1), look)
            if self.stream is None and self.conference is not None:
                self._wake()

        look()
        what = "the agent to speak and be silent again"
        try:
            await self._until(finished, timeout_s, what, enough=lambda: bool(self._since(since)))
        finally:
            if looking is not None:
                looking.cancel()
        spoke = self._since(since)
        self._listened_ms = spoke[-1].ended_ms
        return self._measure(max(since, spoke[0].started_ms), spoke[-1].ended_ms, cut=spoke[-1].cut)

    async def wait_for_speech(self, *, timeout_s: float = 15.0) -> float:
        """Wait until the agent is heard speaking, at once if he is; returns when that speech began.

        Raises:
            NothingHeard: He was not within ``timeout_s`` of the caller's clock.
            CallEnded: The call ended.
            StateError: The call is light.
        """
        self._require_ear()
        await self._until(lambda: self._ear.sounding(self.now_ms(), 100.0), timeout_s, "the agent to speak")
        return self._ear.stretches[-1].started_ms

    async def wait_for_silence(self, ms: float = 700.0, *, timeout_s: float = 30.0) -> None:
        """Wait until nothing was heard of the agent for ``ms``, counted from now at the earliest.

        Raises:
            NothingHeard: He went on speaking for ``timeout_s`` of the caller's clock.
            CallEnded: The call ended.
            StateError: The call is light.
        """
        self._require_ear()
        start = self.now_ms()

        def silent() -> bool:
            last = self._ear.stretches[-1].ended_ms if self._ear.stretches else 0.0
            return self.now_ms() - max(start, last) >= ms

        await self._until(silent, timeout_s, f"{ms:g} ms of silence")

    def underruns(self, *, within_ms: float = 1000.0, ignore_marks: bool = False) -> list[Gap]:
        """Where the agent's audio ran dry and went on in less than ``within_ms``.

        A gap that starts exactly at a mark counts as the end of something, unless ``ignore_marks``:
        use that for an agent that sends marks inside its speech.
        """
        return [gap for gap in self._all_gaps() if gap.duration_ms < within_ms and (ignore_marks or not gap.marked)]

    def recording(self) -> bytes:
        """The call as a WAV file: 16 bit, 8 kHz, the caller on the left, what he heard on the right.

        Raises:
            StateError: The call is light.
        """
        self._require_ear()
        return stereo_wav(self._mouth_track.data, self._ear_track.data)

    def send_raw(self, data: str | bytes) -> None:
        """Send any message on the stream: text, or bytes as a binary message."""
        self._require_stream().send_raw(data)

    def stall(self, seconds: float, *, burst: bool = False) -> None:
        """Send no media for ``seconds`` of the clock; with ``burst`` all of it comes at once afterwards."""
        self._require_stream().stall(seconds, burst=burst)

    # What the stream tells.

    def sent(self, at_ms: float, frame: bytes) -> None:
        """A frame of ours left."""
        if not self._light:
            self._mouth_track.put(at_ms, frame)

    def arrived(self, now_ms: float, data: bytes) -> None:
        """Audio of the agent arrived."""
        self.received_bytes += len(data)
        if self.first_media_ms is None:
            self.first_media_ms = now_ms
            self.noted("first audio", "")

    def ticked(self, now_ms: float) -> None:
        """Hear what was played since the last time."""
        if self.stream is not None:
            self._hear(self.stream, now_ms)
        if self._waiting:
            self._wake()

    def cleared(self, now_ms: float, cleared: Cleared) -> None:
        """The agent's side cut itself short."""
        self.clears.append((now_ms, cleared.dropped_ms))
        if cleared.dropped_ms:
            self._ear.cut(now_ms)
        self.noted("clear", f"{cleared.dropped_ms:.0f} ms dropped")

    def _stream_over(self, stream: CarrierStream) -> None:
        super()._stream_over(stream)
        self._hear(stream, self.now_ms())
        self._gaps += stream.buffer.gaps

    def _hear(self, stream: CarrierStream, now_ms: float) -> None:
        for fragment in stream.buffer.played(now_ms):
            if not self._light:
                self._ear.hear(fragment)
                self._ear_track.put(*fragment)

    def _require_stream(self) -> MediaStream:
        stream = super()._require_stream()
        assert isinstance(stream, MediaStream)
        return stream

    def _require_ear(self) -> None:
        if self._light:
            raise StateError(f"call {self.call_sid} was dialled with light=True: nobody listens in it")

    def _since(self, since_ms: float) -> list[Stretch]:
        """Speech that began after ``since_ms``, or went on for long after it."""
        border = since_ms + _LONG_OVERLAP_MS
        return [one for one in self._ear.stretches if one.started_ms >= since_ms or one.ended_ms > border]

    def _all_gaps(self) -> list[Gap]:
        return self._gaps + (self.stream.buffer.gaps if self.stream is not None else [])

    def _measure(self, started_ms: float, ended_ms: float, *, cut: bool) -> Heard:
        own = [spoken.ended_ms for spoken in self.spoken if spoken.ended_ms <= started_ms]
        return Heard(
            started_ms=started_ms,
            ended_ms=ended_ms,
            latency_ms=started_ms - own[-1] if own else None,
            cut=cut,
            gaps=tuple(gap for gap in self._all_gaps() if started_ms <= gap.at_ms < ended_ms),
            audio=self._ear_track.cut(started_ms, ended_ms),
        )
