"""Session descriptions of telephone calls: what the other side offers, and what is answered.

Sources: RFC 4566 (SDP), RFC 3264 (offer and answer), RFC 3551 (payload types of G.711), RFC 4733 (keys).
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from dialog.errors import NotSupportedError, RemoteProtocolError
from dialog.message import ALAW_8K, MULAW_8K, AudioFormat

__all__ = ["Direction", "Media", "answer", "offer", "parse"]

Direction: TypeAlias = Literal["sendrecv", "sendonly", "recvonly", "inactive"]

_DIRECTIONS: Final[dict[str, Direction]] = {
    "sendrecv": "sendrecv",
    "sendonly": "sendonly",
    "recvonly": "recvonly",
    "inactive": "inactive",
}
_MIRRORED: Final[dict[Direction, Direction]] = {
    "sendrecv": "sendrecv",
    "sendonly": "recvonly",
    "recvonly": "sendonly",
    "inactive": "inactive",
}
_FORMATS: Final = {"PCMU": MULAW_8K, "PCMA": ALAW_8K}
_NAMES: Final = {"mulaw": "PCMU", "alaw": "PCMA"}
_STATIC: Final = {0: "PCMU", 8: "PCMA"}
_EVENT: Final = "TELEPHONE-EVENT"
_OUR_EVENT_TYPE: Final = 101
_MAX_LINES: Final = 500
_MAX_SECTIONS: Final = 16
_NUMBER: Final = re.compile(r"[0-9]{1,5}")
_LINE_END: Final = re.compile(r"\r\n|\r|\n")


class Media(Struct, frozen=True, kw_only=True):
    """The audio of a call, as one side describes it."""

    host: str
    """An IP address; ``0.0.0.0`` is the old way to put a call on hold."""
    port: int
    audio_format: AudioFormat
    payload_type: int
    dtmf_type: int | None = None
    """Payload type of pressed keys; ``None``: they do not come beside the audio."""
    direction: Direction = "sendrecv"
    """As the describing side sees it: ``sendonly`` means that it hears nothing."""
    sections: tuple[str, ...] = ()
    """The ``m=`` lines in their order, without ``m=``; an answer has as many."""
    index: int = 0
    """Which of them this is."""

    @property
    def held(self) -> bool:
        """Whether the describing side does not listen."""
        return self.direction in ("sendonly", "inactive") or self.host in ("0.0.0.0", "::")  # noqa: S104


class _Section(Struct):
    line: str
    host: str = ""
    direction: Direction | None = None
    maps: dict[int, str] = {}


def parse(text: str, only: AudioFormat | None = None) -> Media:
    """The audio that a description offers or accepts; with ``only`` in that format.

    Raises:
        RemoteProtocolError: It is malformed.
        NotSupportedError: There is no plain G.711 audio in it.
    """
    lines = _LINE_END.split(text.rstrip("\r\n"))
    if len(lines) > _MAX_LINES:
        raise RemoteProtocolError(f"a session description of {len(lines)} lines")
    if lines[0] != "v=0":
        raise RemoteProtocolError("a session description must begin with v=0")
    common = _Section("")
    sections: list[_Section] = []
    for line in lines:
        kind, equals, value = line.partition("=")
        if equals != "=" or len(kind) != 1:
            raise RemoteProtocolError("a line of a session description is not like x=…")
        if kind == "m":
            if len(sections) == _MAX_SECTIONS:
                raise RemoteProtocolError(f"a session description of more than {_MAX_SECTIONS} media")
            sections.append(_Section(value))
        else:
            _take(sections[-1] if sections else common, kind, value)
    for index, section in enumerate(sections):
        media = _media(section, common, only)
        if media is not None:
            return Media(
                host=media.host,
                port=media.port,
                audio_format=media.audio_format,
                payload_type=media.payload_type,
                dtmf_type=media.dtmf_type,
                direction=media.direction,
                sections=tuple(each.line for each in sections),
                index=index,
            )
    raise NotSupportedError("no plain G.711 audio (PCMU or PCMA at 8000 Hz over RTP/AVP) is offered")


def answer(media: Media, host: str, port: int, session: int, version: int) -> str:
    """What is answered to an offer: its codec, keys if it sends them, our address.

    ``session`` names our description for as long as the call lasts, ``version`` counts its changes.
    """
    lines = _head(host, session, version)
    for index, section in enumerate(media.sections):
        if index == media.index:
            lines += _audio(media, port, _MIRRORED[media.direction])
        else:
            kind, _, rest = section.partition(" ")
            _, _, others = rest.partition(" ")
            lines.append(f"m={kind} 0 {others}")
    return "\r\n".join(lines) + "\r\n"


def offer(host: str, port: int, session: int, version: int, media: Media | None = None) -> str:
    """What we offer: both kinds of G.711 and keys, or again what was agreed on."""
    lines = _head(host, session, version)
    if media is not None:
        lines += _audio(media, port, "sendrecv")
    else:
        lines += [
            f"m=audio {port} RTP/AVP 0 8 {_OUR_EVENT_TYPE}",
            "a=rtpmap:0 PCMU/8000",
            "a=rtpmap:8 PCMA/8000",
            f"a=rtpmap:{_OUR_EVENT_TYPE} telephone-event/8000",
            f"a=fmtp:{_OUR_EVENT_TYPE} 0-15",
            "a=ptime:20",
            "a=sendrecv",
        ]
    return "\r\n".join(lines) + "\r\n"


def _head(host: str, session: int, version: int) -> list[str]:
    family = "IP6" if ":" in host else "IP4"
    return [
        "v=0",
        f"o=dialog {session} {version} IN {family} {host}",
        "s=Dialog",
        f"c=IN {family} {host}",
        "t=0 0",
    ]


def _audio(media: Media, port: int, direction: Direction) -> list[str]:
    types = [media.payload_type] if media.dtmf_type is None else [media.payload_type, media.dtmf_type]
    lines = [
        f"m=audio {port} RTP/AVP {' '.join(map(str, types))}",
        f"a=rtpmap:{media.payload_type} {_NAMES[media.audio_format.encoding]}/8000",
    ]
    if media.dtmf_type is not None:
        lines += [f"a=rtpmap:{media.dtmf_type} telephone-event/8000", f"a=fmtp:{media.dtmf_type} 0-15"]
    return [*lines, "a=ptime:20", f"a={direction}"]


def _take(section: _Section, kind: str, value: str) -> None:
    if kind == "c":
        network, _, address = value.partition(" ")
        family, _, host = address.partition(" ")
        if network != "IN" or family not in ("IP4", "IP6"):
            raise RemoteProtocolError("the address of a session description is not of the internet")
        section.host = host.partition("/")[0].strip()
    elif kind == "a":
        name, _, rest = value.partition(":")
        if name in _DIRECTIONS:
            section.direction = _DIRECTIONS[name]
        elif name == "rtpmap":
            number, _, what = rest.strip().partition(" ")
            if not _NUMBER.fullmatch(number):
                raise RemoteProtocolError("an rtpmap of a session description has no payload type")
            section.maps[int(number)] = what.strip().upper()


def _media(section: _Section, common: _Section, only: AudioFormat | None) -> Media | None:
    """The audio of one section; ``None``: it is something else."""
    parts = section.line.split()
    if len(parts) < 4:
        raise RemoteProtocolError("an m= line of a session description is too short")
    kind, port, transport, *types = parts
    number = port.partition("/")[0]
    if not _NUMBER.fullmatch(number) or int(number) > 65_535:
        raise RemoteProtocolError("an m= line of a session description has no port")
    if kind != "audio" or transport != "RTP/AVP" or number == "0":
        return None
    payload_type: int | None = None
    audio_format = MULAW_8K
    dtmf_type: int | None = None
    for each in types:
        if not _NUMBER.fullmatch(each) or int(each) > 127:
            raise RemoteProtocolError("an m= line of a session description names no payload type")
        encoding = section.maps.get(int(each)) or _STATIC.get(int(each), "") + "/8000"
        name, _, rate = encoding.partition("/")
        if rate.partition("/")[0] != "8000":
            continue
        if name in _FORMATS and payload_type is None and only in (None, _FORMATS[name]):
            payload_type, audio_format = int(each), _FORMATS[name]
        elif name == _EVENT and dtmf_type is None:
            dtmf_type = int(each)
    if payload_type is None:
        return None
    host = section.host or common.host
    try:
        ip_address(host)
    except ValueError as exc:
        raise RemoteProtocolError("a session description names no IP address") from exc
    return Media(
        host=host,
        port=int(number),
        audio_format=audio_format,
        payload_type=payload_type,
        dtmf_type=dtmf_type,
        direction=section.direction or common.direction or "sendrecv",
    )
