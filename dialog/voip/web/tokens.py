"""The short-lived token with which a client starts a session, and the secret with which it comes back to it.

The host's server knows its users; it signs a token for one of them and gives it to their page, over the session that
they have there anyway. The token travels in the first message and never in a URL, so no log has it. It names the call
that it is for, so it is used once: a call has one first stream.

The secret is made by the gateway that has the session, and says where that is: whichever process a client comes back
to, it knows.
"""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar
from uuid import UUID, uuid4

import msgspec
from msgspec import Struct

from dialog.errors import ConfigurationError, RemoteProtocolError
from dialog.message import AudioFormat
from dialog.voip.web.messages import LONGEST_TOKEN

__all__ = ["LONGEST_LIFE_S", "Grant", "SessionSecrets", "SessionTokens", "Ticket"]

_TOKEN: Final = b"dialog session token, version 1"
_SECRET: Final = b"dialog session secret, version 1"
_MIN_KEY: Final = 16
LONGEST_LIFE_S: Final = 3600.0
"""So long it is remembered which tokens were used."""


class Grant(Struct, frozen=True, kw_only=True):
    """What a token says."""

    call_id: UUID
    expires_at: float
    """Seconds since the epoch."""
    user: str = ""
    agent: str = ""
    """The only agent that it is good for; empty: any."""
    parameters: dict[str, str] = {}
    """What the host wants the agent and the resolver to know."""
    account: str = ""
    """Whose session it is, where a host serves several: :attr:`CallMetadata.account_id`."""
    session: str = ""
    """What the host wants the session to be like: :attr:`CallMetadata.session`."""

    def __repr__(self) -> str:
        return f"<Grant for call {self.call_id}>"


class Ticket(Struct, frozen=True, kw_only=True):
    """What a secret says."""

    call_id: UUID
    node: str
    """Which gateway has the session; empty: the only one."""
    generation: int
    """Of the stream that it was told on."""
    audio: AudioFormat

    def __repr__(self) -> str:
        return f"<Ticket for call {self.call_id} at {self.node or 'its gateway'}>"


SignedT = TypeVar("SignedT", Grant, Ticket)


class _Signer(Generic[SignedT]):
    """Signs values of one type, for one purpose."""

    def __init__(self, key: bytes, purpose: bytes, kind: type[SignedT]) -> None:
        if len(key) < _MIN_KEY:
            raise ConfigurationError(f"token_key must have at least {_MIN_KEY} bytes, got {len(key)}")
        self._key = hmac.digest(key, purpose, "sha256")
        self._decoder: msgspec.json.Decoder[SignedT] = msgspec.json.Decoder(kind)

    def sign(self, value: SignedT) -> str:
        body = urlsafe_b64encode(msgspec.json.encode(value)).rstrip(b"=")
        return f"{body.decode()}.{self._mac(body)}"

    def verify(self, text: str, what: str) -> SignedT:
        """The value, if we have signed it.

        Raises:
            RemoteProtocolError: It is malformed or forged.
        """
        text, _, mac = text.partition(".")
        body = text.encode("ascii", "replace")
        if not hmac.compare_digest(self._mac(body).encode(), mac.encode("ascii", "replace")):
            raise RemoteProtocolError(f"the session's {what} is not one of ours")
        try:
            return self._decoder.decode(urlsafe_b64decode(body + b"=" * (-len(body) % 4)))
        except (Base64Error, msgspec.MsgspecError) as exc:
            raise RemoteProtocolError(f"the session's {what} is malformed") from exc

    def _mac(self, body: bytes) -> str:
        return urlsafe_b64encode(hmac.digest(self._key, body, "sha256")).rstrip(b"=").decode()


class SessionSecrets:
    """Makes and verifies what a client comes back with.

    Args:
        key: That of the tokens.
    """

    def __init__(self, key: bytes) -> None:
        self._signer = _Signer(key, _SECRET, Ticket)

    def __repr__(self) -> str:
        return "<SessionSecrets>"

    def issue(self, ticket: Ticket) -> str:
        """The secret that says so."""
        return self._signer.sign(ticket)

    def verify(self, secret: str, call_id: UUID) -> Ticket:
        """What a secret says.

        Raises:
            RemoteProtocolError: It is malformed, forged, or of another session.
        """
        ticket = self._signer.verify(secret, "secret")
        if ticket.call_id != call_id:
            raise RemoteProtocolError("the secret is of another session")
        return ticket


class SessionTokens:
    """Signs and verifies tokens.

    Args:
        key: At least 16 bytes, the same in all processes that serve sessions.
        time: The wall clock, so that processes agree on it.

    Raises:
        ConfigurationError: The key is too short.
    """

    def __init__(self, key: bytes, *, time: Callable[[], float] = time.time) -> None:
        self._signer = _Signer(key, _TOKEN, Grant)
        self._time = time

    def __repr__(self) -> str:
        return "<SessionTokens>"

    def issue(
        self,
        *,
        user: str = "",
        agent: str = "",
        parameters: Mapping[str, str] | None = None,
        account: str = "",
        session: str = "",
        call_id: UUID | None = None,
        life_s: float = 60.0,
    ) -> str:
        """A token for one session, to be started within ``life_s`` seconds, an hour at most.

        Raises:
            ConfigurationError: It would live longer: a new one is easily had. Or it says too much.
        """
        if not 0 < life_s <= LONGEST_LIFE_S:
            raise ConfigurationError(f"a token lives for up to {LONGEST_LIFE_S:g} s, not {life_s:g} s")
        grant = Grant(
            call_id=call_id or uuid4(),
            expires_at=self._time() + life_s,
            user=user,
            agent=agent,
            parameters=dict(parameters or {}),
            account=account,
            session=session,
        )
        token = self._signer.sign(grant)
        if len(token) > LONGEST_TOKEN:
            raise ConfigurationError(
                f"a token has at most {LONGEST_TOKEN} characters, and this one {len(token)}: let it say less, and the "
                "session resolver look up the rest"
            )
        return token

    def verify(self, token: str) -> Grant:
        """What a token says.

        Raises:
            RemoteProtocolError: It is malformed, forged, or has expired.
        """
        grant = self._signer.verify(token, "token")
        if self._time() > grant.expires_at:
            raise RemoteProtocolError("the session's token has expired")
        return grant
