"""Commands to Telnyx's API v2.

Every command of a call has a ``command_id``, so one that is sent again because its answer was lost is carried out
once; that is why lost answers are tried again here.

Source: Telnyx API v2, Call Control commands, Recordings, Messages.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, quote, urlsplit
from uuid import uuid4

import aiohttp
import msgspec
from msgspec import Struct

from dialog.errors import CarrierError, ConfigurationError
from dialog.message import SentSMS
from dialog.net import shared
from dialog.net.malformed import UNDECODABLE
from dialog.net.retryafter import retry_after_s
from dialog.sms.sms import check_e164, check_text
from dialog.voip.carrier.media import RecordingMedia

__all__ = ["HAS_ENDED", "TelnyxRest"]

logger = logging.getLogger(__name__)

KindT = TypeVar("KindT")

_API: Final = "https://api.telnyx.com"
_NUMBER: Final = re.compile(r"\+?\d{7,}")
_ATTEMPTS: Final = 3
_MAX_ANSWER: Final = 1_000_000
HAS_ENDED: Final = 90018
"""The code of a command to a call that is over."""


class _Fault(Struct, frozen=True):
    code: str = ""
    title: str = ""
    detail: str = ""


class _Answer(Struct, frozen=True):
    data: msgspec.Raw = msgspec.Raw(b"{}")
    errors: tuple[_Fault, ...] = ()


class _Placed(Struct, frozen=True):
    call_control_id: str


class _Recording(Struct, frozen=True):
    id: str


class _Target(Struct, frozen=True):
    status: str = "queued"


class _Message(Struct, frozen=True):
    id: str
    to: tuple[_Target, ...] = ()


_ADVICE: Final = {
    10009: "check api_key",
    10010: "the API key may not do this: check its permissions in the portal",
    10011: "too many requests at once: raise the account's limit or place fewer calls",
    10015: "a value is not valid: see the reason, and the Call Control application's settings",
    HAS_ENDED: "the call has ended",
    90034: "the call was not answered yet: wait for it",
}


class TelnyxRest:
    """The few operations that a call needs. Errors are :class:`~dialog.errors.CarrierError`.

    Args:
        api_key: ``KEY…``.
        base_url: Instead of Telnyx's own, ``http(s)://host:port``, without ``/v2``.
        timeout_s: Longest time for a command, retries included.
        retry_s: First wait before a retry; doubled each time, with jitter.

    Raises:
        ConfigurationError: The key is missing, or the URL is none.
    """

    def __init__(self, api_key: str, *, base_url: str = "", timeout_s: float = 10.0, retry_s: float = 0.5) -> None:
        if not api_key:
            raise ConfigurationError("Telnyx's API needs an api_key")
        if base_url and urlsplit(base_url).scheme not in ("http", "https"):
            raise ConfigurationError(f"Telnyx's base_url must be http(s)://host[:port], got {base_url!r}")
        self.timeout_s = timeout_s
        self.retry_s = retry_s
        self._authorization = f"Bearer {api_key}"
        self._base = (base_url or _API).rstrip("/")
        self._lease: shared.Lease[aiohttp.ClientSession] | None = None

    def __repr__(self) -> str:
        return f"<TelnyxRest {self._base}>"

    async def dial(self, fields: Mapping[str, Any], *, command_id: str) -> str:
        """Place a call, once; returns its call_control_id.

        Nothing is tried again here but what was certainly not begun: whoever paces the account's calls does that.

        Raises:
            CarrierError: Telnyx refused; with ``in_doubt`` the call may have been placed all the same.
        """
        body = {**fields, "command_id": command_id}
        answer = await self.request("POST", "/calls", "", "place a call", body=body, attempts=1)
        return _understood(answer, _Placed, "", "place a call").call_control_id

    async def command(self, call: str, action: str, fields: Mapping[str, Any] | None = None) -> None:
        """Let Telnyx do ``action`` in the call of that call_control_id.

        Raises:
            CarrierError: It refused; :data:`HAS_ENDED` is the code if the call is over.
        """
        body = {"command_id": str(uuid4()), **(fields or {})}
        path = f"/calls/{quote(call, safe='')}/actions/{action}"
        await self.request("POST", path, call, action.replace("_", " "), body=body, safe=True)

    async def hangup(self, call: str) -> None:
        """End a call; one that has ended is left in peace.

        Raises:
            CarrierError: Telnyx could not be told.
        """
        try:
            await self.command(call, "hangup")
        except CarrierError as exc:
            if exc.carrier_code != HAS_ENDED and exc.status != 404:
                raise

    async def remove_recordings(self, call: str, *, call_leg_id: str) -> None:
        """Delete the recordings of a call's leg, which is what Telnyx knows them by; it is fine if there are none.

        Raises:
            CarrierError: Telnyx refused.
        """
        listed = f"/recordings?filter[call_leg_id]={quote(call_leg_id, safe='')}"
        what = "look up recordings"
        found = await self.request("GET", listed, call, what, safe=True)
        for recording in _understood(found, list[_Recording], call, what):
            try:
                path = f"/recordings/{quote(recording.id, safe='')}"
                await self.request("DELETE", path, call, "remove recording", safe=True)
            except CarrierError as exc:
                if exc.status != 404:
                    raise

    async def send_message(self, *, to: str, text: str, from_: str, call: str = "") -> SentSMS:
        """Hand a text message to Telnyx.

        Raises:
            CarrierError: It cannot be sent like this, or Telnyx refused.
        """
        try:
            check_e164(to)
            check_e164(from_)
            check_text(text)
        except ConfigurationError as exc:
            raise CarrierError("telnyx", call, f"send SMS: {exc}") from exc
        what = "send SMS"
        answer = await self.request("POST", "/messages", call, what, body={"from": from_, "to": to, "text": text})
        message = _understood(answer, _Message, call, what)
        return SentSMS(message_sid=message.id, status=message.to[0].status if message.to else "queued", to=to)

    async def download(self, url: str) -> AsyncIterator[bytes]:
        """The bytes of a recording; the key goes to Telnyx only, not to the storage where it lies.

        Raises:
            CarrierError: It cannot be fetched: Telnyx's links are good for ten minutes.
        """
        media = RecordingMedia(
            self._session(),
            carrier="telnyx",
            urls=(url,),
            authorization=self._authorization,
            trusted=self._trusts,
            retry_s=self.retry_s,
        )
        async for piece in media.read():
            yield piece

    async def close(self) -> None:
        """Let go of the connections; a later command opens them again."""
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.release()

    async def request(
        self,
        method: str,
        path: str,
        call: str,
        what: str,
        *,
        body: Mapping[str, Any] | None = None,
        safe: bool = False,
        attempts: int = _ATTEMPTS,
    ) -> bytes:
        """Send a request, again where that can neither harm nor be in vain; returns its ``data``, in JSON.

        Args:
            method: Of HTTP.
            path: Beneath ``/v2``.
            call: For errors.
            what: For errors.
            body: Sent as JSON.
            safe: Doing it twice is the same as once, so failures of unknown outcome are tried again too.
            attempts: At most so many.

        Raises:
            CarrierError: It failed.
        """
        attempt = 0
        refused: CarrierError | None = None
        try:
            async with asyncio.timeout(self.timeout_s):
                while True:
                    attempt += 1
                    try:
                        return await self._send(method, path, call, what, body)
                    except CarrierError as exc:
                        again = exc.status in (429, 503) or (safe and (exc.status == 0 or exc.status >= 500))
                        if not again or attempt >= attempts:
                            raise
                        refused = exc
                        pause = self.retry_s * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)
                        logger.info("%s of call %s failed (%d), trying again", what, call or "none", exc.status)
                        await asyncio.sleep(max(pause, exc.retry_after_s or 0.0))
        except TimeoutError as exc:
            if refused is not None:  # which says more
                raise refused from None
            raise CarrierError(
                "telnyx",
                call,
                f"{what}: no answer within {self.timeout_s:g} s; check the connection to {self._base}",
                in_doubt=True,
            ) from exc

    async def _send(self, method: str, path: str, call: str, what: str, body: Mapping[str, Any] | None) -> bytes:
        headers = {"Authorization": self._authorization, "Accept": "application/json"}
        data = None
        if body is not None:
            data = msgspec.json.encode({name: value for name, value in body.items() if value is not None})
            headers["Content-Type"] = "application/json"
        try:
            async with self._session().request(
                method, f"{self._base}/v2{path}", data=data, headers=headers, allow_redirects=False
            ) as response:
                text = await response.content.read(_MAX_ANSWER)
                status, retry_after = response.status, response.headers.get("Retry-After", "")
        except (aiohttp.ClientError, OSError) as exc:
            # A connection that was never there has carried nothing.
            doubt = not isinstance(exc, aiohttp.ClientConnectorError)
            reason = f"{what}: Telnyx cannot be reached ({exc!r})"
            raise CarrierError("telnyx", call, reason, in_doubt=doubt) from exc
        answer = _decoded(text)
        if 200 <= status < 300:
            return bytes(answer.data)
        raise _refused(answer, status, call, what, retry_after)

    def _session(self) -> aiohttp.ClientSession:
        if self._lease is None:
            self._lease = shared.session()
        return self._lease.value

    def _trusts(self, url: SplitResult) -> bool:
        ours = urlsplit(self._base)
        return (url.scheme, url.netloc) == (ours.scheme, ours.netloc)


def _decoded(text: bytes) -> _Answer:
    try:
        return msgspec.json.decode(text, type=_Answer, strict=False)
    except UNDECODABLE:
        return _Answer()  # a proxy's page, for instance: its status says enough


def _understood(data: bytes, kind: type[KindT], call: str, what: str) -> KindT:
    try:
        return msgspec.json.decode(data, type=kind)
    except UNDECODABLE as exc:
        reason = f"{what}: Telnyx's answer cannot be understood ({exc})"
        raise CarrierError("telnyx", call, reason, in_doubt=True) from exc


def _refused(answer: _Answer, status: int, call: str, what: str, retry_after: str) -> CarrierError:
    fault = answer.errors[0] if answer.errors else _Fault()
    code = int(fault.code) if fault.code.isdecimal() and len(fault.code) < 10 else 0
    said = " ".join(part for part in (fault.title, fault.detail) if part) or "no reason given"
    said = _NUMBER.sub("…", said)  # Telnyx repeats the number that it does not like
    advice = _ADVICE.get(code) or _advice(status)
    return CarrierError(
        "telnyx",
        call,
        f"{what}: Telnyx answered {status}, code {fault.code or 'none'}: {said}; {advice}",
        status=status,
        carrier_code=code,
        retry_after_s=retry_after_s(retry_after) if status == 429 else None,
        in_doubt=status >= 500 and status != 503,  # 503: it was not even begun
    )


def _advice(status: int) -> str:
    if status in (401, 403):
        return _ADVICE[10009]
    if status == 404:
        return "it does not exist (any more)"
    if status == 429:
        return _ADVICE[10011]
    if status >= 500:
        return "Telnyx has trouble: try again later, and see status.telnyx.com"
    return "see the reason, and the call in the portal under Debugging"
