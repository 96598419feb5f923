"""Audio and keys in RTP packets: pure, fed with datagrams and a clock.

Sources: RFC 3550 (RTP), RFC 3551 (G.711), RFC 4733 (keys as telephone events).
"""

from __future__ import annotations

import struct
from collections import deque
from secrets import randbits
from typing import Final, TypeAlias

from msgspec import Struct

from dialog.errors import RemoteProtocolError
from dialog.message import AudioFormat

__all__ = ["FRAME_S", "Digit", "Heard", "Packet", "Receiver", "Sender", "Sound", "decode"]

FRAME_S: Final = 0.02
_RATE: Final = 8000
_FRAME: Final = 160
_HEADER: Final = struct.Struct("!BBHII")
_EVENT: Final = struct.Struct("!BBH")
_KEYS: Final = "0123456789*#ABCD"
_MAX_PAYLOAD: Final = 1600
"""200 ms: nobody sends longer packets."""
_HELD: Final = 3
"""So many packets are waited for one that is missing: 60 ms."""
_RESTARTED: Final = 100
"""A sequence number that is so far off is of a sender that has begun anew."""
_FAR: Final = 10 * _RATE
_AHEAD_S: Final = 5.0
"""Audio may not run ahead of the clock by more."""
_DRY_S: Final = 0.5
"""So long nothing may come before the silence is ours."""
_KEY_FRAMES: Final = 8
_GAP_FRAMES: Final = 5
_PAUSE_FRAMES: Final = 25
_VOLUME: Final = 10
"""Of a key, in -dBm0."""
_MAX_KEYS: Final = 100


class Packet(Struct, frozen=True, gc=False):
    """One datagram of a stream."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes

    def __repr__(self) -> str:
        return f"<Packet {self.sequence} of {len(self.payload)} bytes>"


class Sound(Struct, frozen=True, gc=False):
    """What the caller said, and when: milliseconds since the start of the stream."""

    data: bytes
    at_ms: float

    def __repr__(self) -> str:
        return f"<Sound of {len(self.data)} bytes at {self.at_ms:.0f} ms>"


class Digit(Struct, frozen=True, gc=False):
    """A key that the caller has pressed."""

    key: str


Heard: TypeAlias = Sound | Digit


def decode(data: bytes) -> Packet:
    """Take a datagram apart (RFC 3550, section 5.1).

    Raises:
        RemoteProtocolError: It is no RTP packet, or too long for a telephone call.
    """
    if len(data) < _HEADER.size:
        raise RemoteProtocolError(f"an RTP packet of {len(data)} bytes")
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    if first >> 6 != 2:
        raise RemoteProtocolError("an RTP packet of another version")
    start = _HEADER.size + 4 * (first & 0x0F)
    end = len(data)
    if first & 0x10:
        if end < start + 4:
            raise RemoteProtocolError("an RTP packet ends in its header")
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4])
    if first & 0x20:
        if data[-1] == 0:
            raise RemoteProtocolError("an RTP packet whose padding has no length")
        end -= data[-1]
    if end < start:
        raise RemoteProtocolError("an RTP packet ends in its header")
    if end - start > _MAX_PAYLOAD:
        raise RemoteProtocolError(f"an RTP packet with {end - start} bytes of audio")
    return Packet(second & 0x7F, sequence, timestamp, ssrc, data[start:end])


class Receiver:
    """Puts packets into their order, on one time line without gaps of silence. Times are seconds of one clock.

    A packet that is missing is waited for until three later ones have come; the line fills the gap. While nothing
    comes at all, silence takes its place: what hears the caller goes on hearing. A packet that comes after its
    time has passed is dropped.
    """

    def __init__(self, audio_format: AudioFormat, payload_type: int, dtmf_type: int | None) -> None:
        self.audio_format = audio_format
        self.payload_type = payload_type
        self.dtmf_type = dtmf_type
        self._began_at: float | None = None
        self._heard_at: float | None = None
        self._ssrc: int | None = None
        self._next = 0
        self._held: dict[int, Packet] = {}
        self._base = 0
        """RTP timestamp of position 0 …"""
        self._end = 0
        """Position behind the last sample that was handed on."""
        self._now = 0.0
        self._late_since: float | None = None
        self._dry_from = 0
        """Position that sounded when the last packet came."""
        self._dry = False
        """Silence has been handed on since: what is missing before the next packet is not waited for."""
        self._event: tuple[int, int] | None = None
        """The last key: its stream and timestamp, by which repeated packets of it are known."""

    def receive(self, packet: Packet, now: float) -> list[Heard]:
        """Take a packet that came at ``now``; returns what is due, in order."""
        out: list[Heard] = []
        self._now = now
        if self._began_at is None:
            self._began_at = now
        if packet.ssrc != self._ssrc:
            self._flush(out)
            self._ssrc = packet.ssrc
            self._restart(packet)
        ahead = (packet.sequence - self._next) & 0xFFFF
        if _RESTARTED < ahead < 0x10000 - _RESTARTED and not self._long_late(packet):
            self._flush(out)
            self._restart(packet)
            ahead = 0
        if ahead < 0x8000:
            if self._dry:
                self._dry = False
                self._next = packet.sequence
            self._held[packet.sequence] = packet
            self._ready(out)
            if len(self._held) > _HELD:
                self._skip()
                self._ready(out)
        self._heard_at = now
        self._dry_from = self._end
        return out

    def tick(self, now: float) -> list[Heard]:
        """While nothing comes: silence up to ``now``."""
        if self._heard_at is None or now - self._heard_at < _DRY_S:
            return []
        self._now = now
        out: list[Heard] = []
        if self._held:
            self._flush(out)
            self._dry_from = self._end
        missing = self._dry_from + int((now - self._heard_at) * _RATE) - self._end
        if missing >= _FRAME:
            self._dry = True
            size = missing // _FRAME * _FRAME
            self._hand_on(self.audio_format.silence(size * 1000 / _RATE), self._end, out)
        return out

    def _long_late(self, packet: Packet) -> bool:
        """Whether it was sent long before those that came already, by its number and by its timestamp."""
        behind = (self._next - packet.sequence) & 0xFFFF
        late = (self._base + self._end - packet.timestamp) & 0xFFFFFFFF
        return behind < 0x8000 and 0 < late <= behind * _MAX_PAYLOAD and not self._always_late()

    def _restart(self, packet: Packet) -> None:
        """The sender, or its numbering, is new: go on where the last one ended."""
        self._next = packet.sequence
        self._base = (packet.timestamp - self._end) & 0xFFFFFFFF

    def _ready(self, out: list[Heard]) -> None:
        while (packet := self._held.pop(self._next, None)) is not None:
            self._next = (self._next + 1) & 0xFFFF
            self._deliver(packet, out)

    def _skip(self) -> None:
        self._next = min(self._held, key=lambda sequence: (sequence - self._next) & 0xFFFF)

    def _flush(self, out: list[Heard]) -> None:
        while self._held:
            self._skip()
            self._ready(out)

    def _deliver(self, packet: Packet, out: list[Heard]) -> None:
        if packet.payload_type == self.payload_type:
            position = (packet.timestamp - self._base) & 0xFFFFFFFF
            if position >= 0x80000000:
                position -= 0x100000000
            if abs(position - self._end) > _FAR:
                self._base = (packet.timestamp - self._end) & 0xFFFFFFFF
                position = self._end
            late = self._end - position
            if late >= len(packet.payload) and self._always_late():
                self._base = (packet.timestamp - self._end) & 0xFFFFFFFF
                position, late = self._end, 0
            if late < len(packet.payload):
                self._late_since = None
                self._hand_on(packet.payload[max(0, late) :], max(self._end, position), out)
        elif packet.payload_type == self.dtmf_type and len(packet.payload) >= _EVENT.size:
            event = (packet.ssrc, packet.timestamp)
            code = packet.payload[0]
            if event != self._event and code < len(_KEYS):
                self._event = event
                out.append(Digit(_KEYS[code]))

    def _always_late(self) -> bool:
        """Whether that is not the network: the sender's timestamps have stood still while nothing was sent."""
        if self._late_since is None:
            self._late_since = self._now
        return self._now - self._late_since > _DRY_S

    def _hand_on(self, data: bytes, position: int, out: list[Heard]) -> None:
        assert self._began_at is not None
        if data and position + len(data) <= (self._now - self._began_at + _AHEAD_S) * _RATE:
            out.append(Sound(data, position * 1000 / _RATE))
            self._end = position + len(data)


class _Step(Struct, frozen=True, gc=False):
    """What goes out instead of audio for one frame."""

    code: int = -1
    """Of the key; -1: silence."""
    frame: int = 0
    last: bool = False


class Sender:
    """Makes the packets of one stream, one every 20 ms."""

    def __init__(self, payload_type: int, dtmf_type: int | None) -> None:
        self.payload_type = payload_type
        self.dtmf_type = dtmf_type
        self._ssrc = randbits(32)
        self._sequence = randbits(15)
        self._timestamp = randbits(31)
        self._event_at = 0
        self._talking = False
        self._steps: deque[_Step] = deque()

    @property
    def pressing(self) -> bool:
        """Whether keys are still to be pressed."""
        return bool(self._steps)

    def press(self, digits: str) -> None:
        """Press keys: ``0-9 * # A-D``; ``w`` waits half a second, ``W`` a whole one.

        Raises:
            ValueError: One of them is no key, or there are none or too many.
        """
        if not digits:
            raise ValueError("no keys")
        if len(digits) > _MAX_KEYS:
            raise ValueError(f"{len(digits)} keys at once; {_MAX_KEYS} are the most")
        steps: list[_Step] = []
        for digit in digits:
            if digit in "wW":
                steps += [_Step()] * (_PAUSE_FRAMES * (1 if digit == "w" else 2))
                continue
            code = _KEYS.index(digit.upper())
            steps += [_Step(code, frame, frame == _KEY_FRAMES - 1) for frame in range(_KEY_FRAMES)]
            steps += [_Step()] * _GAP_FRAMES
        self._steps.extend(steps)

    def keys(self) -> list[bytes] | None:
        """The packets of the next frame if keys are being pressed; an empty list is a frame of silence between."""
        if not self._steps:
            return None
        step = self._steps.popleft()
        packets: list[bytes] = []
        if step.code >= 0 and self.dtmf_type is not None:
            if step.frame == 0:
                self._event_at = self._timestamp
            # The end is told three times: it must not get lost (RFC 4733, section 2.5.1.4).
            for _ in range(3 if step.last else 1):
                event = _EVENT.pack(step.code, (0x80 if step.last else 0) | _VOLUME, (step.frame + 1) * _FRAME)
                packets.append(self._packet(self.dtmf_type, event, self._event_at, marker=step.frame == 0))
        self._timestamp = (self._timestamp + _FRAME) & 0xFFFFFFFF
        self._talking = False
        return packets

    def audio(self, payload: bytes) -> bytes:
        """The packet of the next frame, 160 bytes of audio."""
        packet = self._packet(self.payload_type, payload, self._timestamp, marker=not self._talking)
        self._talking = True
        self._timestamp = (self._timestamp + _FRAME) & 0xFFFFFFFF
        return packet

    def skip(self, frames: int) -> None:
        """So many frames are not sent at all."""
        self._timestamp = (self._timestamp + frames * _FRAME) & 0xFFFFFFFF
        self._talking = False

    def _packet(self, payload_type: int, payload: bytes, timestamp: int, *, marker: bool) -> bytes:
        header = _HEADER.pack(0x80, payload_type | (0x80 if marker else 0), self._sequence, timestamp, self._ssrc)
        self._sequence = (self._sequence + 1) & 0xFFFF
        return header + payload
