"""What ElevenLabs' agents say, as far as it is used. Pure."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from dialog.errors import UnsupportedFormat
from dialog.message import AudioFormat

__all__ = ["KNOWN", "Audio", "Event", "Metadata", "Signed", "decode", "format_of", "number"]


class Signed(Struct):
    """Where a conversation can be had; as good as a key."""

    signed_url: str


class Metadata(Struct):
    """The agent's audio formats."""

    agent_output_audio_format: str = ""
    user_input_audio_format: str = ""


class Audio(Struct):
    """A piece of what the agent says."""

    audio_base_64: str = ""
    event_id: int | str | None = None
    is_final: bool | None = None


class Transcript(Struct):
    """What the caller said."""

    user_transcript: str = ""


class Response(Struct):
    """What the agent says, as a whole."""

    agent_response: str = ""


class Numbered(Struct):
    """Events are counted, those of all kinds together."""

    event_id: int | str | None = None


class WantedTool(Struct):
    """A tool that the agent waits for."""

    tool_name: str
    tool_call_id: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")


class Event(Struct):
    """Any message of the service: the union of what matters."""

    type: str = ""
    conversation_initiation_metadata_event: Metadata | None = None
    ping_event: Numbered | None = None
    audio_event: Audio | None = None
    user_transcription_event: Transcript | None = None
    agent_response_event: Response | None = None
    agent_response_complete_event: Numbered | None = None
    interruption_event: Numbered | None = None
    client_tool_call: WantedTool | None = None


KNOWN = frozenset(
    {
        "conversation_initiation_metadata", "ping", "audio", "user_transcript", "agent_response",
        "agent_response_complete", "interruption", "client_tool_call",
    }
)  # fmt: skip
"""The types that matter."""
decode = msgspec.json.Decoder(Event).decode
_LONGEST = 20
"""So many digits no number of theirs has."""


def number(event_id: int | str | None) -> int:
    """Which event it is; 0: it does not tell."""
    text = str(event_id)
    return int(text) if text.isdecimal() and len(text) < _LONGEST else 0


def format_of(name: str) -> AudioFormat:
    """What the service calls ``ulaw_8000`` or ``pcm_16000``.

    Raises:
        UnsupportedFormat: It is something else.
    """
    codec, _, rate = name.partition("_")
    if not rate.isdecimal() or len(rate) >= _LONGEST or codec not in ("ulaw", "pcm"):
        raise UnsupportedFormat(f"the agent's audio is {name or 'of no known format'}")
    return AudioFormat("mulaw" if codec == "ulaw" else "s16le", int(rate))
