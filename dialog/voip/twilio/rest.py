"""Commands to Twilio's REST API, through the official SDK, without blocking the loop.

The SDK is imported in a thread at the first command (about 100 ms and 14 MB that a gateway which
only takes calls never needs), ignores its own timeout and never retries sensibly; the deadline and
the retries are ours. Its HTTP client belongs to the loop of the first command.

Source: Twilio REST API 2010-04-01: Calls, Recordings, Transcriptions, Messages.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp

from dialog.errors import CarrierError, ConfigurationError, MissingExtra
from dialog.message import SentSMS
from dialog.net.retryafter import retry_after_s
from dialog.sms.sms import check_e164, check_text
from dialog.voip.carrier.media import RecordingMedia
from dialog.voip.twilio.media import basic_auth, media_urls, trusts

__all__ = ["TwilioRest", "has_ended"]

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

_API: Final = "https://api.twilio.com"
_ACCOUNT: Final = re.compile(r"AC[0-9a-fA-F]{32}")
_NUMBER: Final = re.compile(r"\+?\d{7,}")
_SENDER: Final = re.compile(r"\+[1-9]\d{6,14}|\d{3,8}|(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9 +\-_&]{1,11}")
"""A number in E.164, a short code, or an alphanumeric sender id."""
_HAS_ENDED: Final = frozenset({(404, 20404), (400, 21220)})
_ATTEMPTS: Final = 3
_ADVICE: Final = {
    20003: "check account_sid and auth_token (or api_key and api_secret)",
    20404: "the call or recording does not exist any more",
    20429: "too many requests at once: raise the account's limit or place fewer calls",
    21211: "the number is not valid: give it in E.164, such as +15551230002",
    21408: "enable the country in the account's messaging geographic permissions",
    21602: "the message needs a text",
    21603: "give a number of the account as from_, or a messaging_service_sid",
    21606: "the sender is no number of the account that can send messages there: choose another from_",
    21608: "a trial account may only write to verified numbers",
    21610: "this person has unsubscribed by answering STOP: do not write to them until they answer START",
    21612: "this sender cannot reach that number: choose another from_",
    21614: "this number cannot receive messages: it may be a landline",
    21617: "the message is too long: at most 1600 characters",
    21659: "the sender is no number of the account: choose another from_",
    21212: "the caller's number is not valid for this account",
    21214: "the number cannot be reached",
    21210: "the caller's number is none of the account: buy or verify it, or choose another from_",
    21215: "enable the country in the account's geographic permissions",
    21216: "the account may not call this number",
    21219: "a trial account may only call verified numbers",
    21220: "the call is not in progress",
    13224: "the number to dial is not valid",
    13227: "enable the country in the account's geographic permissions",
}
_asked_pause_s: ContextVar[float | None] = ContextVar("twilio_retry_after", default=None)
"""What the last 429 of this task asked for: the SDK's exceptions do not have the headers."""
# The SDK writes numbers of callers into its request log: it gets a logger that nobody hears.
_silent = logging.Logger("twilio, silenced", logging.CRITICAL + 1)  # noqa: LOG001  # outside the tree, so that no handler of its root applies


def has_ended(error: CarrierError) -> bool:
    """Whether a command failed because its call is over."""
    return (error.status, error.carrier_code) in _HAS_ENDED


class TwilioRest:
    """The few operations that a call needs. Errors are :class:`~dialog.errors.CarrierError`."""

    def __init__(
        self,
        account_sid: str,
        auth_token: str,
        *,
        api_key: str = "",
        api_secret: str = "",
        base_url: str = "",
        timeout_s: float = 10.0,
        retry_s: float = 0.5,
    ) -> None:
        """Keep the settings; nothing is imported or connected yet.

        Args:
            account_sid: ``AC…``, also with an API key.
            auth_token: Used unless there is an API key.
            api_key: ``SK…``.
            api_secret: Of the API key.
            base_url: Instead of Twilio's own, ``http(s)://host:port``.
            timeout_s: Longest time for a command, retries included.
            retry_s: First wait before a retry; doubled each time, with jitter.

        Raises:
            ConfigurationError: Credentials are missing or contradict each other.
        """
        if not account_sid or not (auth_token or (api_key and api_secret)):
            raise ConfigurationError("Twilio's REST API needs account_sid and auth_token (or api_key and api_secret)")
        if bool(api_key) != bool(api_secret):
            raise ConfigurationError("api_key and api_secret of Twilio belong together")
        if _ACCOUNT.fullmatch(auth_token) and not _ACCOUNT.fullmatch(account_sid):
            raise ConfigurationError("account_sid and auth_token of Twilio are swapped: the SID begins with AC")
        if base_url and urlsplit(base_url).scheme not in ("http", "https"):
            raise ConfigurationError(f"Twilio's base_url must be http(s)://host[:port], got {base_url!r}")
        self.account_sid = account_sid
        self.timeout_s = timeout_s
        self.retry_s = retry_s
        self._login = (api_key, api_secret) if api_key else (account_sid, auth_token)
        self._base_url = base_url.rstrip("/")
        self._client: Any = None
        self._http: Any = None
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<TwilioRest {self.account_sid}>"

    async def hangup(self, call_sid: str) -> None:
        """End a call; one that has ended is left in peace.

        Raises:
            CarrierError: Twilio could not be told.
        """
        try:
            await self.run(
                call_sid, "hang up", lambda client: client.calls(call_sid).update_async(status="completed"), safe=True
            )
        except CarrierError as exc:
            if not has_ended(exc):
                raise

    async def redirect(self, call_sid: str, document: str) -> None:
        """Let the call go on with another TwiML document; its stream stops.

        Raises:
            CarrierError: Twilio refused, for instance because the call has ended.
        """
        await self.run(call_sid, "redirect", lambda client: client.calls(call_sid).update_async(twiml=document))

    async def start_recording(self, call_sid: str, *, status_url: str) -> str:
        """Record both channels of a call in progress; returns the recording's id.

        Raises:
            CarrierError: Twilio refused.
        """
        recording = await self.run(
            call_sid,
            "start recording",
            lambda client: client.calls(call_sid).recordings.create_async(
                recording_channels="dual",
                recording_track="both",
                recording_status_callback=status_url,
                recording_status_callback_method="POST",
                recording_status_callback_event=["completed", "absent"],
            ),
        )
        return str(recording.sid)

    async def stop_recording(self, call_sid: str, recording_sid: str = "") -> None:
        """Stop a recording, or the one that is running; it is fine if the call has ended.

        Raises:
            CarrierError: Twilio refused.
        """
        sid = recording_sid or "Twilio.CURRENT"
        try:
            await self.run(
                call_sid,
                "stop recording",
                lambda client: client.calls(call_sid).recordings(sid).update_async(status="stopped"),
                safe=True,
            )
        except CarrierError as exc:
            if not has_ended(exc):
                raise

    async def remove_recording(self, call_sid: str, recording_sid: str) -> None:
        """Delete a recording; it is fine if there is none.

        Raises:
            CarrierError: Twilio refused.
        """
        try:
            await self.run(
                call_sid, "remove recording", lambda client: client.recordings(recording_sid).delete_async(), safe=True
            )
        except CarrierError as exc:
            if exc.status != 404:
                raise

    async def start_transcription(
        self, call_sid: str, *, status_url: str, engine: str, language: str, options: tuple[tuple[str, str], ...] = ()
    ) -> str:
        """Transcribe both tracks of a call in progress; returns the transcription's id.

        Args:
            call_sid: The call.
            status_url: Where the words go.
            engine: ``deepgram`` or ``google``.
            language: Such as ``en-US``.
            options: More fields of Twilio's request, by its names: ``(("SpeechModel", "nova-3"),)``.

        Raises:
            CarrierError: Twilio refused, or does not know an option.
        """
        fields: dict[str, Any] = {
            "track": "both_tracks",
            "status_callback_url": status_url,
            "status_callback_method": "POST",
            "transcription_engine": engine,
            "language_code": language,
        }
        fields.update((_snake(name), value) for name, value in options)
        transcription = await self.run(
            call_sid,
            "start transcription",
            lambda client: client.calls(call_sid).transcriptions.create_async(**fields),
        )
        return str(transcription.sid)

    async def send_message(
        self, *, to: str, text: str, from_: str = "", service_sid: str = "", call_sid: str = ""
    ) -> SentSMS:
        """Hand a text message to Twilio.

        Args:
            to: A number in E.164.
            text: Up to 1600 characters.
            from_: The sender.
            service_sid: ``MG…``: this messaging service chooses the sender.
            call_sid: The call that it is sent in, for errors.

        Raises:
            CarrierError: It cannot be sent like this, or Twilio refused.
        """
        what = "send SMS"
        sender = {"messaging_service_sid": service_sid} if service_sid else {"from_": from_}
        try:
            check_e164(to)
            check_text(text)
            if not service_sid:
                _check_sender(from_)
        except ConfigurationError as exc:
            raise CarrierError("twilio", call_sid, f"{what}: {exc}") from exc
        message = await self.run(
            call_sid, what, lambda client: client.messages.create_async(to=to, body=text, **sender)
        )
        return SentSMS(message_sid=str(message.sid), status=str(message.status), to=str(message.to or to))

    async def download(self, url: str) -> AsyncIterator[bytes]:
        """The bytes of a recording in WAV, piece by piece.

        A recording that is not there yet is asked for again a few times. The credentials go to
        Twilio (and the configured ``base_url``) only, not to the storage that it may redirect to.

        Raises:
            CarrierError: It cannot be fetched.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession()
        base = self._host
        media = RecordingMedia(
            self._session,
            carrier="twilio",
            urls=media_urls(url),
            authorization=basic_auth(self._login),
            trusted=lambda at: trusts(at, base),
            retry_s=self.retry_s,
        )
        async for piece in media.read():
            yield piece

    async def close(self) -> None:
        """Close the connections; a later command opens them again."""
        async with self._opening:
            http, session = self._http, self._session
            self._client = self._http = self._session = None
        if http is not None:
            await http.close()
        if session is not None:
            await session.close()

    async def _open(self) -> Any:
        async with self._opening:
            if self._client is None:
                try:
                    client_class, http_class = await asyncio.to_thread(_import_sdk)
                except ImportError as exc:
                    raise MissingExtra("twilio", "twilio") from exc
                # Made inside the running loop, to which it belongs.
                self._http = http_class(logger=_silent)
                login = {"username": self._login[0], "password": self._login[1], "account_sid": self.account_sid}
                if self._base_url:
                    # TWILIO_REGION and TWILIO_EDGE would rewrite the host.
                    environment = {"TWILIO_REGION": ""}
                    self._client = client_class(**login, http_client=self._http, environment=environment)
                    self._client.api.base_url = self._base_url
                else:
                    self._client = client_class(**login, http_client=self._http)
            return self._client

    async def run(
        self,
        call_sid: str,
        what: str,
        work: Callable[[Any], Awaitable[ResultT]],
        *,
        safe: bool = False,
        attempts: int = _ATTEMPTS,
    ) -> ResultT:
        """Carry out a command with the official client, again where that can neither harm nor be in vain.

        Args:
            call_sid: For errors.
            what: For errors.
            work: The command.
            safe: Doing it twice is the same as once, so failures of unknown outcome are retried too.
            attempts: At most so many.

        Raises:
            CarrierError: It failed.
        """
        attempt = 0
        try:
            async with asyncio.timeout(self.timeout_s):
                client = await self._open()
                while True:
                    attempt += 1
                    try:
                        return await work(client)
                    except (asyncio.CancelledError, TimeoutError):
                        raise
                    except Exception as exc:  # the SDK's exceptions are many, aiohttp's come through
                        error = _carrier_error(exc, call_sid, what)
                        again = error.status in (429, 503) or (safe and (error.status == 0 or error.status >= 500))
                        if not again or attempt >= attempts:
                            raise error from exc
                        logger.info("%s of call %s failed (%d), trying again", what, call_sid or "none", error.status)
                    await asyncio.sleep(self.retry_s * 2 ** (attempt - 1) * random.uniform(0.75, 1.25))
        except TimeoutError as exc:
            raise CarrierError(
                "twilio",
                call_sid,
                f"{what}: no answer within {self.timeout_s:g} s; check the connection to {self._host}",
                in_doubt=True,
            ) from exc

    @property
    def _host(self) -> str:
        return self._base_url or _API


def _import_sdk() -> tuple[Any, Any]:
    import twilio.rest.api.v2010.account.call  # type: ignore[import-untyped]  # noqa: F401  # loads the rest lazily
    from twilio.http.async_http_client import AsyncTwilioHttpClient  # type: ignore[import-untyped]
    from twilio.rest import Client

    class HttpClient(AsyncTwilioHttpClient):  # type: ignore[misc]
        """Writes the header itself: aiohttp has deprecated the way in which the SDK lets it do that."""

        async def request(
            self,
            method: str,
            url: str,
            *args: Any,
            headers: dict[str, str] | None = None,
            auth: tuple[str, str] | None = None,
            **more: Any,
        ) -> Any:
            headers = dict(headers or {})
            if auth is not None:
                headers["Authorization"] = basic_auth(auth)
            response = await super().request(method, url, *args, headers=headers, auth=None, **more)
            if response.status_code == 429:
                answered: Mapping[str, str] = response.headers or {}
                _asked_pause_s.set(retry_after_s(answered.get("Retry-After", "")))
            return response

    return Client, HttpClient


def _carrier_error(exc: Exception, call_sid: str, what: str) -> CarrierError:
    status = getattr(exc, "status", 0)
    code = getattr(exc, "code", 0)
    status = status if isinstance(status, int) else 0
    code = code if isinstance(code, int) else 0
    if isinstance(exc, aiohttp.ClientError | OSError):
        # A connection that was never there has carried nothing.
        doubt = not isinstance(exc, aiohttp.ClientConnectorError)
        return CarrierError("twilio", call_sid, f"{what}: Twilio cannot be reached ({exc!r})", in_doubt=doubt)
    if not status:
        return CarrierError("twilio", call_sid, f"{what}: {exc!r}", in_doubt=True)
    # The legacy shape has msg, problem details have title and detail.
    text = getattr(exc, "msg", None) or getattr(exc, "detail", None) or getattr(exc, "title", None) or "no reason given"
    text = _NUMBER.sub("…", str(text))  # Twilio repeats the number that it does not like
    advice = _ADVICE.get(code) or _advice(status)
    reason = f"{what}: Twilio answered {status}, code {code}: {text}; {advice}"
    return CarrierError(
        "twilio",
        call_sid,
        reason,
        status=status,
        carrier_code=code,
        retry_after_s=_asked_pause_s.get() if status == 429 else None,
        in_doubt=status >= 500 and status != 503,  # 503: it was not even begun
    )


def _check_sender(sender: str) -> None:
    if not sender:
        raise ConfigurationError(_ADVICE[21603])
    if not _SENDER.fullmatch(sender):
        raise ConfigurationError("the sender is no number in E.164, no short code and no sender id")


def _advice(status: int) -> str:
    """What to do about a refusal without a code that says more."""
    if status in (401, 403):
        return "check the credentials"
    if status == 429:
        return _ADVICE[20429]
    if status >= 500:
        return "Twilio has trouble: try again later, and see status.twilio.com"
    return "see the account's error log"


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
