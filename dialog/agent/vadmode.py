"""Who hears the caller start and stop, and who ends the caller's turns: this process or the provider."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from dialog.errors import ConfigurationError
from dialog.stt.stt import STTCapabilities

__all__ = ["Listening", "VADMode", "choose_vad"]

VADMode: TypeAlias = Literal["auto", "local", "provider"]


class Listening(Struct, frozen=True, kw_only=True):
    """What :func:`choose_vad` decided for a session."""

    local_vad: bool
    """Run the local VAD; its edges and not the provider's drive barge-in and the end of speech."""
    endpointing: Literal["local", "provider"]
    """``local``: set the STT's ``manual_turns`` before it is opened, and call ``finalize`` when the local
    policy says that the caller has finished."""
    stops: bool = True
    """Somebody tells when the caller's voice stops."""
    words: bool = True
    """The words are told while they are said."""
    warning: str = ""
    """What was asked for and cannot be had; for one event. Empty: nothing."""


def choose_vad(
    mode: VADMode, stt: STTCapabilities | None, *, have_local: bool = True, strict: bool = False
) -> Listening:
    """Decide where speech starts and ends come from.

    ``auto`` takes the provider's where it tells them, else the local VAD for barge-in; turns are ended
    by the provider if it can. ``local`` does both here; with a provider whose endpointing cannot be
    taken over, only barge-in. ``provider`` runs nothing here.

    Args:
        mode: What was configured.
        stt: What the recogniser can do; None: there is none, and nothing is heard.
        have_local: A local VAD is there, or can be made.
        strict: Refuse what cannot be had as asked, instead of falling back with a warning.

    Raises:
        ConfigurationError: ``strict``, and it cannot be had; or nobody at all would end the caller's turns.
    """
    if stt is None:
        return Listening(local_vad=False, endpointing="provider")
    if not have_local and not stt.endpointing:
        raise ConfigurationError("this STT does not end utterances by itself: give the agent a local VAD")
    if mode == "provider":
        return _provider(stt, strict)
    if not have_local:
        if mode == "local":
            return _fall_back(
                Listening(local_vad=False, endpointing="provider"),
                "vad='local', but there is no local VAD: the provider's is used",
                strict,
            )
        return Listening(local_vad=False, endpointing="provider")
    if not stt.endpointing:
        return Listening(local_vad=True, endpointing="local")
    if mode == "auto":
        return Listening(local_vad=not stt.speech_events, endpointing="provider")
    if stt.manual_turns:
        return Listening(local_vad=True, endpointing="local")
    return _fall_back(
        Listening(local_vad=True, endpointing="provider"),
        "vad='local', but this STT cannot leave it to others to end utterances: the local VAD interrupts the "
        "agent, the provider ends the caller's turns",
        strict,
    )


def _provider(stt: STTCapabilities, strict: bool) -> Listening:
    if not stt.endpointing:
        raise ConfigurationError("vad='provider', but this STT does not end utterances: use 'auto' or 'local'")
    chosen = Listening(local_vad=False, endpointing="provider")
    if stt.speech_events:
        return chosen
    return _fall_back(
        chosen, "vad='provider', but this STT does not tell when speech starts: only words interrupt the agent", strict
    )


def _fall_back(chosen: Listening, warning: str, strict: bool) -> Listening:
    if strict:
        raise ConfigurationError(warning)
    return Listening(local_vad=chosen.local_vad, endpointing=chosen.endpointing, warning=warning)
