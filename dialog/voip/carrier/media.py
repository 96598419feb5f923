"""Fetching the audio of a recording: it may be missing for a moment, or be redirected to a storage elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

import aiohttp

from dialog.errors import CarrierError

__all__ = ["RecordingMedia"]

_ATTEMPTS: Final = 5
_MAX_REDIRECTS: Final = 5
_PIECE: Final = 65536
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=30.0)


class RecordingMedia:
    """Opens a recording's URL: retries, redirects, and who may see the credentials.

    Args:
        session: Fetches it.
        carrier: For errors.
        urls: Tried in their order, where one is answered 400.
        authorization: The header of whoever :attr:`trusted` trusts.
        trusted: Whether a URL is the carrier's, which alone may see the credentials.
        retry_s: First wait before a retry; doubled each time.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        carrier: str,
        urls: tuple[str, ...],
        authorization: str,
        trusted: Callable[[SplitResult], bool],
        retry_s: float,
    ) -> None:
        self._session = session
        self._carrier = carrier
        self._urls = urls
        self._authorization = authorization
        self._trusted = trusted
        self._retry_s = retry_s

    async def read(self) -> AsyncIterator[bytes]:
        """Its bytes, piece by piece.

        Raises:
            CarrierError: It cannot be fetched.
        """
        response = await self._open()
        try:
            async for piece in response.content.iter_chunked(_PIECE):
                yield piece
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise self._error(f"the recording broke off while it was fetched: {exc!r}") from exc
        finally:
            response.release()

    async def _open(self) -> aiohttp.ClientResponse:
        urls, status = list(self._urls), 0
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                response = await self._get(urls[0])
            except (aiohttp.ClientError, TimeoutError) as exc:
                if attempt == _ATTEMPTS:
                    raise self._error(f"the recording cannot be fetched: {exc!r}") from exc
            else:
                if response.status == 200:
                    return response
                status = response.status
                response.release()
                if status == 400 and len(urls) > 1:
                    del urls[0]
                    continue
                if (status not in (404, 429) and status < 500) or attempt == _ATTEMPTS:
                    break
            await asyncio.sleep(self._retry_s * 2 ** (attempt - 1))
        advice = {
            401: "check the credentials",
            403: "check the credentials",
            404: "it does not exist (any more)",
        }.get(status, "try again later")
        raise self._error(f"fetching the recording was answered {status}: {advice}", status)

    async def _get(self, url: str) -> aiohttp.ClientResponse:
        for _ in range(_MAX_REDIRECTS):
            headers = {"Authorization": self._authorization} if self._trusted(urlsplit(url)) else {}
            response = await self._session.get(url, headers=headers, allow_redirects=False, timeout=_TIMEOUT)
            location = response.headers.get("Location", "")
            if response.status not in (301, 302, 303, 307, 308) or not location:
                return response
            response.release()
            url = urljoin(url, location)
        raise self._error("fetching the recording was redirected too often")

    def _error(self, reason: str, status: int = 0) -> CarrierError:
        return CarrierError(self._carrier, "-", reason, status=status)
