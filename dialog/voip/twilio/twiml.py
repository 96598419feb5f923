"""The TwiML documents that Dialog answers, written by the official SDK's builders, which escape what they are given.

They are plain functions from values to a document, for answers of your own as well: a resolver may return
``Document(twiml.dial(…))``.

Source: Twilio, TwiML for Programmable Voice and Programmable Messaging.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final, Literal

from dialog.errors import MissingExtra

try:
    from twilio.twiml.messaging_response import MessagingResponse  # type: ignore[import-untyped]
    from twilio.twiml.voice_response import Connect, Dial, VoiceResponse  # type: ignore[import-untyped]
except ImportError as exc:
    raise MissingExtra("twilio", "twilio") from exc

__all__ = [
    "MAX_PARAMETER",
    "conference",
    "connect_stream",
    "dial",
    "hangup",
    "messages",
    "play_digits",
    "reject",
    "say",
]

logger = logging.getLogger(__name__)

MAX_PARAMETER: Final = 499
"""Name and value of a ``<Parameter>`` together: Twilio wants less than 500 characters."""


def connect_stream(stream_url: str, *, action: str, status_callback: str, parameters: Iterable[tuple[str, str]]) -> str:
    """Connect the call to a two-way stream, and ask ``action`` what to do when it ends.

    Args:
        stream_url: ``wss://…`` without a query, which Twilio would drop.
        action: Absolute URL that Twilio requests when the stream has ended, for whatever reason.
        status_callback: Absolute URL that hears of the stream's start, stop and errors.
        parameters: Arrive in the stream's ``start``. A value that is too long is cut, with one warning
            for the document.
    """
    response = VoiceResponse()
    connect = Connect(action=action, method="POST")
    stream: Any = connect.stream(url=stream_url, status_callback=status_callback, status_callback_method="POST")
    cut: list[str] = []
    for name, value in parameters:
        room = MAX_PARAMETER - len(name)
        if len(value) > room:
            cut.append(name)
        stream.parameter(name=name, value=value[:room])
    if cut:
        logger.warning("stream parameters %s were cut to %d characters with their names", cut, MAX_PARAMETER)
    response.append(connect)
    return str(response)


def say(text: str, *, language: str = "en-US") -> str:
    """Say a sentence in the carrier's own voice and hang up."""
    response = VoiceResponse()
    response.say(text, language=language)
    response.hangup()
    return str(response)


def reject(reason: Literal["busy", "rejected"] = "rejected") -> str:
    """Refuse a call that was not answered yet; nothing is billed."""
    response = VoiceResponse()
    response.reject(reason=reason)
    return str(response)


def hangup() -> str:
    """End the call."""
    response = VoiceResponse()
    response.hangup()
    return str(response)


def dial(
    tel: str, *, action: str, status_callback: str, timeout_s: int | None = None, caller_id: str | None = None
) -> str:
    """Connect the caller to ``tel``; ``action`` is asked what to do when that failed or is over.

    Args:
        tel: A number in E.164, ``sip:…`` or ``client:…``.
        action: Absolute URL.
        status_callback: Absolute URL that hears when the other side rings and answers.
        timeout_s: How long the other side may ring.
        caller_id: The number shown to the other side; the caller's own by default.
    """
    response = VoiceResponse()
    verb = Dial(action=action, method="POST", answer_on_bridge=True, timeout=timeout_s, caller_id=caller_id)
    events = "initiated ringing answered completed"
    noun = {"status_callback": status_callback, "status_callback_event": events, "status_callback_method": "POST"}
    scheme, _, rest = tel.partition(":")
    if scheme == "sip" and rest:
        verb.sip(tel, **noun)
    elif scheme == "client" and rest:
        verb.client(rest, **noun)
    else:
        verb.number(tel, **noun)
    response.append(verb)
    return str(response)


def conference(
    room: str,
    *,
    status_callback: str,
    starts: bool,
    label: str,
    action: str = "",
    wait_url: str = "",
) -> str:
    """Let the call take part in a conference.

    Args:
        room: Its name, the same for all who meet there.
        status_callback: Absolute URL that hears of its start and end, and of who comes and goes.
        starts: It starts when this one comes; else this one waits, with music.
        label: What this one is called there.
        action: Absolute URL that is asked what to do when this one has left; unless given the call ends.
        wait_url: What is fetched for those who wait to hear; Twilio's own music unless given.
    """
    response = VoiceResponse()
    verb = Dial(action=action, method="POST") if action else Dial()
    options = {"wait_url": wait_url, "wait_method": "GET"} if wait_url else {}
    verb.conference(
        room,
        start_conference_on_enter=starts,
        end_conference_on_exit=True,
        beep="false",
        participant_label=label,
        status_callback=status_callback,
        status_callback_method="POST",
        status_callback_event="start end join leave",
        **options,
    )
    response.append(verb)
    return str(response)


def messages(*texts: str) -> str:
    """Answer a text message with others; with none: do not answer."""
    response = MessagingResponse()
    for text in texts:
        response.message(text)
    return str(response)


def play_digits(digits: str, *, then: str) -> str:
    """Press keys (``0-9 * # w W``) towards the other side and go on with the document at ``then``."""
    response = VoiceResponse()
    response.play(digits=digits)
    response.redirect(then, method="POST")
    return str(response)
