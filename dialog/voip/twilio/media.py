"""Where the audio of a recording is.

Source: Twilio REST API 2010-04-01, Recordings: media may be missing for a moment after the callback, and
may be redirected to another host, which must not see the credentials.
"""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import SplitResult, urlsplit

__all__ = ["basic_auth", "media_urls", "trusts"]


def basic_auth(login: tuple[str, str]) -> str:
    """The ``Authorization`` header of a user and password."""
    return "Basic " + b64encode(":".join(login).encode()).decode()


def media_urls(url: str) -> tuple[str, ...]:
    """The URLs of a recording in WAV: of both channels, and then, if it has only one, of that."""
    parts = urlsplit(url)
    path = parts.path
    if not path.endswith((".wav", ".mp3")):
        path += ".wav"
    mono = parts._replace(path=path)
    if "RequestedChannels" in parts.query:
        return (mono.geturl(),)
    query = f"{parts.query}&RequestedChannels=2" if parts.query else "RequestedChannels=2"
    return (mono._replace(query=query).geturl(), mono.geturl())


def trusts(url: SplitResult, base: str) -> bool:
    """Whether a URL is Twilio's, or at the configured ``base`` of its REST API."""
    ours = urlsplit(base)
    if (url.scheme, url.netloc) == (ours.scheme, ours.netloc):
        return True
    host = url.hostname or ""
    return url.scheme == "https" and (host == "twilio.com" or host.endswith(".twilio.com"))
