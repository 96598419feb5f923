"""Fetching the audio of a recording.

Source: Twilio REST API 2010-04-01, Recordings: media may be missing for a moment after the callback, and
may be redirected to another host, which must not see the credentials.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

import aiohttp

from dialog.errors import CarrierError

__all__ = ["RecordingMedia", "basic_auth"]

_ATTEMPTS: Final = 5
_MAX_REDIRECTS: Final = 5


def basic_auth(login: tuple[str, str]) -> str:
    """The ``Authorization`` header of a user and password."""
    return "Basic " + b64encode(":".join(login).encode()).decode()


class RecordingMedia:
    """Opens a recording's URL: retries, redirects, and who may see the credentials."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, login: tuple[str, str], trusted: str, retry_s: float
    ) -> None:
        self._session = session
        self._url = url
        self._authorization = basic_auth(login)
        self._trusted = urlsplit(trusted)
        self._retry_s = retry_s
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> aiohttp.ClientResponse:
        stereo, status = True, 0
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                response = await self._get(_media_url(self._url, stereo=stereo))
            except (aiohttp.ClientError, TimeoutError) as exc:
                raise CarrierError("twilio", "-", f"the recording cannot be fetched: {exc!r}") from exc
            if response.status == 200:
                self._response = response
                return response
            status = response.status
            response.release()
            if status == 400 and stereo:
                stereo = False  # a mono recording has no second channel to ask for
                continue
            if status not in (404, 429, 503) or attempt == _ATTEMPTS:
                break
            await asyncio.sleep(self._retry_s * 2 ** (attempt - 1))
        advice = {
            401: "check the credentials",
            403: "check the credentials",
            404: "it does not exist (any more)",
        }.get(status, "try again later")
        raise CarrierError("twilio", "-", f"fetching the recording was answered {status}: {advice}", status=status)

    async def __aexit__(self, *_: object) -> None:
        if self._response is not None:
            self._response.release()

    async def _get(self, url: str) -> aiohttp.ClientResponse:
        for _ in range(_MAX_REDIRECTS):
            trusted = self._may_see_credentials(urlsplit(url))
            headers = {"Authorization": self._authorization} if trusted else {}
            response = await self._session.get(url, headers=headers, allow_redirects=False)
            location = response.headers.get("Location", "")
            if response.status not in (301, 302, 303, 307, 308) or not location:
                return response
            response.release()
            url = urljoin(url, location)
        raise CarrierError("twilio", "-", "fetching the recording was redirected too often")

    def _may_see_credentials(self, url: SplitResult) -> bool:
        if (url.scheme, url.netloc) == (self._trusted.scheme, self._trusted.netloc):
            return True
        host = url.hostname or ""
        return url.scheme == "https" and (host == "twilio.com" or host.endswith(".twilio.com"))


def _media_url(url: str, *, stereo: bool) -> str:
    parts = urlsplit(url)
    path = parts.path
    if not path.endswith((".wav", ".mp3")):
        path += ".wav"
    query = parts.query
    if stereo and "RequestedChannels" not in query:
        query = f"{query}&RequestedChannels=2" if query else "RequestedChannels=2"
    return parts._replace(path=path, query=query).geturl()
