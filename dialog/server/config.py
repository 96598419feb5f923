"""What a service is: its agents, accounts and numbers, who may ask it for what, and its limits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias, get_args

from msgspec import Struct, field

from dialog.agent.settings import AgentSettings
from dialog.calls.delivery.endpoint import WebhookEndpoint
from dialog.calls.redact import Redaction
from dialog.calls.spending import SpendLimit
from dialog.checks import check_several
from dialog.errors import ConfigurationError
from dialog.message import CallMetadata
from dialog.providers.builtin import BUILTIN
from dialog.providers.registry import find_class
from dialog.providers.variables import fault, value_of, variable
from dialog.server.callbacks import SessionCallbacks
from dialog.server.tenants import TelnyxTenant, TwilioTenant
from dialog.sessions.config import AgentConfig, ProviderConfig
from dialog.sessions.sessions import OwnAgent, Sessions
from dialog.sessions.spec import SessionResolver
from dialog.sms.sms import check_e164
from dialog.voip.admission import Declined, Reject, Workers
from dialog.voip.voip import VoIP
from dialog.voip.web.rtc.settings import WebRTC

__all__ = [
    "ApiSettings",
    "ApiToken",
    "ClientSettings",
    "PhoneNumber",
    "Scope",
    "ServiceConfig",
    "TwilioTenant",
    "config_from_env",
]

Scope: TypeAlias = Literal["calls:read", "calls:write", "clients:write", "messages:write"]
"""``calls:read``: look at calls, their words and recordings. ``calls:write``: place, transfer, end them, let the agent
say something. ``clients:write``: hand out tokens with which browsers and apps start sessions. ``messages:write``: send
text messages."""

_SCOPES: Final[frozenset[Scope]] = frozenset(get_args(Scope))
_SHORTEST_TOKEN: Final = 16
_LONGEST_NAME: Final = 64
"""Of a tenant: as the call log has room for."""


class ApiToken(Struct, frozen=True, kw_only=True):
    """Who may use the REST API, and for what.

    Raises:
        ConfigurationError: The token is too short to be a secret, or there is no such scope.
    """

    name: str
    """Stands in the log, where the token itself never does."""
    token: str = ""
    """At least 16 characters: ``secrets.token_urlsafe(32)``."""
    sha256: str = ""
    """Its SHA-256 in hexadecimal instead, so that the configuration holds no secret."""
    scopes: frozenset[Scope] = _SCOPES
    tenants: frozenset[str] = frozenset()
    """The tenants whose calls and numbers it may use; empty: all."""

    def __post_init__(self) -> None:
        check_several(f"API token {self.name!r}: scopes", self.scopes)
        check_several(f"API token {self.name!r}: tenants", self.tenants)  # part of its name would be a tenant, too
        if bool(self.token) == bool(self.sha256):
            raise ConfigurationError(f"API token {self.name!r}: give either the token or its sha256")
        if self.token and len(self.token) < _SHORTEST_TOKEN:
            raise ConfigurationError(f"API token {self.name!r}: it must have {_SHORTEST_TOKEN} characters or more")
        if self.sha256 and len(self.digest) != hashlib.sha256().digest_size:
            raise ConfigurationError(f"API token {self.name!r}: sha256 must be 64 hexadecimal digits")
        unknown = set(self.scopes) - _SCOPES
        if unknown:
            raise ConfigurationError(f"API token {self.name!r}: there is no scope {min(unknown)!r}")

    def __repr__(self) -> str:
        return f"<ApiToken {self.name}>"

    def may_use(self, tenant: str) -> bool:
        """Whether it is good for the calls and numbers of a tenant."""
        return not self.tenants or tenant in self.tenants

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the token."""
        if self.token:
            return hashlib.sha256(self.token.encode()).digest()
        try:
            return bytes.fromhex(self.sha256)
        except ValueError:
            return b""


class ApiSettings(Struct, frozen=True, kw_only=True):
    """The REST API. Without tokens there is none.

    Raises:
        ConfigurationError: A limit is not positive, or two tokens have one name.
    """

    tokens: tuple[ApiToken, ...] = ()
    requests_per_s: float = 20.0
    """Of each token, on average …"""
    burst: int = 60
    """… and so many at once."""
    max_body: int = 65_536
    """Largest request, in bytes."""
    body_timeout_s: float = 5.0
    max_feeds: int = 100
    """Streams of live events at the same time."""
    feed_limit: int = 1000
    """Events that wait for a reader at most; a slower one is dropped with a marker."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may use the API (``https://app.example``); none unless named."""

    def __post_init__(self) -> None:
        check_several("cors_origins", self.cors_origins)
        for name in ("requests_per_s", "burst", "max_body", "body_timeout_s", "max_feeds", "feed_limit"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} must be positive, got {getattr(self, name)}")
        names = [token.name for token in self.tokens]
        if len(set(names)) != len(names):
            raise ConfigurationError("two API tokens have the same name")
        if len({token.digest for token in self.tokens}) != len(names):
            raise ConfigurationError("two API tokens are the same secret: which of their rights would it have?")


class PhoneNumber(Struct, frozen=True, kw_only=True):
    """A number of a tenant: who answers it, and what it is called in the API is its key in the configuration.

    Raises:
        ConfigurationError: It is no number in E.164.
    """

    number: str
    tenant: str = ""
    """Whose it is; not needed if there is only one."""
    assistant: str = ""
    """Who answers calls to it; empty: the default one."""

    def __post_init__(self) -> None:
        check_e164(self.number)

    def __repr__(self) -> str:
        return "<PhoneNumber>"


class ClientSettings(Struct, frozen=True, kw_only=True):
    """Sessions of browsers, apps and scripts, over the client protocol.

    Raises:
        ConfigurationError: The key is too short, or the path is none.
    """

    path: str = "/ws/realtime"
    """Of the WebSocket, beneath ``prefix``."""
    token_key: str = ""
    """At least 16 characters; signs the tokens of clients, in all processes the same. Unless given, it is made from the
    credentials of the first tenant."""
    origins: tuple[str, ...] = ()
    """Pages of other hosts that may connect, as ``https://app.example``."""
    token_optional: bool = False
    """Ask the resolver about clients without a token, too. Without a resolver those on this machine are taken then,
    and with ``allow_anybody`` all."""
    recordings: str = ""
    """Directory for recordings of their calls, for agents that record; empty: there are none."""
    webrtc: WebRTC | None = None
    """Let them come by WebRTC, too."""

    def __post_init__(self) -> None:
        check_several("origins of clients", self.origins)
        if self.token_key and len(self.token_key) < _SHORTEST_TOKEN:
            raise ConfigurationError(f"token_key of clients must have {_SHORTEST_TOKEN} characters or more")
        _check_path("path of clients", self.path)

    def __repr__(self) -> str:
        return f"<ClientSettings {self.path}>"


class ServiceConfig(Struct, frozen=True, kw_only=True):
    """A whole service: ``python -m dialog serve app:config``.

    Raises:
        ConfigurationError: Something is missing, unknown, or contradicts something else.
    """

    assistants: Mapping[str, AgentConfig | OwnAgent]
    """The agents, by their ids: as values, or as functions that give them their calls (``on_voip``)."""
    tenants: Mapping[str, TwilioTenant | TelnyxTenant] = field(default_factory=dict[str, TwilioTenant | TelnyxTenant])
    """The accounts, by their names. Of several, each has the paths below with its name behind them. None are needed
    where only ``clients`` come."""
    numbers: Mapping[str, PhoneNumber] = field(default_factory=dict[str, PhoneNumber])
    """The numbers, by their ids."""
    default_assistant: str = ""
    """Who takes calls to numbers that are not listed; not needed if there is only one."""
    resolver: SessionResolver | None = None
    resolver_timeout_s: float = 3.0
    allow_anybody: bool = False
    """Without a resolver: take also those for whom nobody vouches. See :class:`~dialog.sessions.sessions.Sessions`."""
    max_calls: int | None = None
    """Calls of all tenants at the same time."""
    when_full: Declined = Reject("busy")
    """What callers are told then."""
    spending: SpendLimit | None = None
    """Stops taking and placing calls once too much was spent lately; callers are told as when all are busy."""
    webhook_url: str = ""
    """Public ``https://`` URL of the voice webhook, needed to place calls; empty: as each request has it."""
    stream_url: str = ""
    """Public ``wss://`` URL of the media socket; empty: the host of the webhook, with ``stream_path``."""
    trust_forwarded_headers: bool = False
    """Believe ``X-Forwarded-*`` of the proxy in front."""
    prefix: str = ""
    """Before all paths of the service: ``/voice``."""
    webhook_path: str = "/twilio/voice"
    stream_path: str = "/ws/twilio"
    clients: ClientSettings | None = None
    """Browsers and apps are served as well; ``None``: they are not."""
    api: ApiSettings = ApiSettings()
    console: str = "/console"
    """Path of the page for people who look after calls; empty: there is none, nor without tokens of the API."""
    workers: Workers | None = None
    """Run the agents: ``WorkerPool("app:config.on_voip")``."""
    redaction: Redaction | None = None
    log: str = ""
    """URL of the :class:`call log <dialog.calls.store.log.CallLog>`; empty: there is none."""
    keep_days: float | None = None
    """Calls that ended longer ago are deleted from the log; ``None``: never."""
    webhooks: tuple[WebhookEndpoint, ...] = ()
    """Who is told of calls; needs the call log."""
    callbacks: SessionCallbacks | None = None
    follow: Callable[[VoIP], object] | None = None
    """Told of each call before its agent is, in the process of the agent: ``Tracing().follow``, for instance."""
    keep_ended: int = 1000
    """So many calls can still be looked at after their end without a call log."""

    def __post_init__(self) -> None:
        if not self.tenants and self.clients is None:
            raise ConfigurationError("a service needs a tenant, the account at the carrier, or clients")
        accounts = [tenant.account_id for tenant in self.tenants.values()]
        if len(set(accounts)) != len(accounts):
            raise ConfigurationError("two tenants have the same account: calls tell their tenant by it")
        for name in (*self.assistants, *self.tenants, *self.numbers):
            if not name or not name.isprintable() or set(name) & set("/?#% "):
                raise ConfigurationError(f"{name!r} cannot be an id: it stands in paths")
        for name in self.tenants:
            if len(name) > _LONGEST_NAME:
                raise ConfigurationError(f"{name!r} is too long for a tenant: {_LONGEST_NAME} characters are the most")
        for what in ("prefix", "webhook_path", "stream_path", "console"):
            if path := getattr(self, what):
                _check_path(what, path)
        if not self.webhook_path or self.webhook_path == self.stream_path:
            raise ConfigurationError("webhook_path and stream_path must be two paths")
        if self.clients is not None and self.clients.path in (self.webhook_path, self.stream_path):
            raise ConfigurationError(f"{self.clients.path} cannot be a path of the carrier's and of clients at once")
        if self.numbers and not self.tenants:
            raise ConfigurationError("numbers are of a tenant, the account at the carrier, and there is none")
        for number_id, number in self.numbers.items():
            if number.assistant and number.assistant not in self.assistants:
                raise ConfigurationError(f"number {number_id!r}: there is no assistant {number.assistant!r}")
            if (number.tenant or len(self.tenants) > 1) and number.tenant not in self.tenants:
                raise ConfigurationError(f"number {number_id!r}: there is no tenant {number.tenant!r}")
        for token in self.api.tokens:
            strange = token.tenants - set(self.tenants)
            if strange:
                raise ConfigurationError(f"API token {token.name!r}: there is no tenant {min(strange)!r}")
        if len({endpoint.name for endpoint in self.webhooks}) != len(self.webhooks):
            raise ConfigurationError("two webhook endpoints have the same name")
        if self.webhooks and not self.log:
            raise ConfigurationError("webhooks are delivered from the call log: give log=")
        if self.keep_days is not None and not (self.log and self.keep_days > 0):
            raise ConfigurationError("keep_days is for a call log (log=), and positive")
        limits = [self.max_calls, *(tenant.max_calls for tenant in self.tenants.values())]
        if self.keep_ended < 1 or any(limit is not None and limit < 1 for limit in limits):
            raise ConfigurationError("keep_ended and max_calls, also of a tenant, must be at least 1")
        self.sessions()

    def __repr__(self) -> str:
        return f"<ServiceConfig of {len(self.assistants)} assistants and {len(self.numbers)} numbers>"

    def sessions(self) -> Sessions:
        """Who decides on sessions.

        Raises:
            ConfigurationError: There is no assistant, or none of a name.
        """
        return Sessions(
            self.assistants,
            default=self.default_assistant,
            resolver=self.resolver,
            resolver_timeout_s=self.resolver_timeout_s,
            allow_anybody=self.allow_anybody,
            follow=self.follow,
        )

    def on_voip(self, voip: Any) -> None:
        """Let the agent of a call take it: what workers run."""
        self.sessions().on_voip(voip)

    def tenant_of(self, number: PhoneNumber) -> str:
        """The name of the tenant whose number it is."""
        return number.tenant or next(iter(self.tenants))

    def number_called(self, tenant: str, call: CallMetadata) -> PhoneNumber | None:
        """The number that a call came in at, if it is listed."""
        return next(
            (each for each in self.numbers.values() if each.number == call.to and self.tenant_of(each) == tenant), None
        )


def _check_path(what: str, path: str) -> None:
    if not path.startswith("/") or path.endswith("/"):
        raise ConfigurationError(f"{what} must begin with a slash and end without one, got {path!r}")


def config_from_env(env: Mapping[str, str]) -> ServiceConfig:
    """A service with one agent and one account, from the environment alone; with an API token for clients, too.

    ``TWILIO_PROVIDER`` names who hears and speaks (``openai``, ``gemini`` …); ``llm.openai`` and the like, or a
    provider that is only a language model, make an agent in text mode, with the default STT and TTS.

    Raises:
        ConfigurationError: Variables are not set or malformed; the message names them.
    """

    def read(name: str) -> str:
        known = variable(name)
        value = value_of(env, known)
        wrong = fault(known, value) if value else None
        if wrong is not None:
            raise ConfigurationError(f"{name} {wrong.problem} ({wrong.fix})")
        return value or known.default

    missing = [name for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN") if not read(name)]
    if missing:
        raise ConfigurationError(f"not set: {', '.join(missing)}. Set them in the environment or in .env")
    number, token = read("TWILIO_PHONE_NUMBER"), read("DIALOG_API_TOKEN")
    return ServiceConfig(
        assistants={"default": _agent_from(env, read("TWILIO_PROVIDER"), read("TWILIO_MODEL"), read("TWILIO_VOICE"))},
        tenants={
            "default": TwilioTenant(
                account_sid=read("TWILIO_ACCOUNT_SID"),
                auth_token=read("TWILIO_AUTH_TOKEN"),
                api_key=read("TWILIO_API_KEY"),
                api_secret=read("TWILIO_API_SECRET"),
                base_url=read("TWILIO_BASE_URL"),
                messaging_service_sid=read("TWILIO_MESSAGING_SERVICE_SID"),
            )
        },
        numbers={"default": PhoneNumber(number=number)} if number else {},
        webhook_url=read("WEBHOOK_URL"),
        stream_url=read("TWILIO_STREAM_URL"),
        webhook_path=read("TWILIO_VOICE_WEBHOOK_PATH"),
        stream_path=read("TWILIO_STREAM_WEBSOCKET_PATH"),
        clients=ClientSettings() if token else None,
        api=ApiSettings(tokens=(ApiToken(name="environment", token=token),) if token else ()),
    )


def _agent_from(env: Mapping[str, str], provider: str, model: str, voice: str) -> AgentConfig:
    kind, _, name = provider.rpartition(".")
    if kind not in ("", "llm", "s2s"):
        raise ConfigurationError(f"TWILIO_PROVIDER must be a name, llm.name or s2s.name, got {provider!r}")
    if not kind:
        kind = "llm" if name in BUILTIN["llm"] and name not in BUILTIN["s2s"] else "s2s"
    system = value_of(env, variable("TWILIO_INSTRUCTIONS")) or value_of(env, variable("SYSTEM_PROMPT"))
    greeting = value_of(env, variable("TWILIO_INITIAL_GREETING")) or value_of(env, variable("GREETING"))
    chosen: dict[str, Any] = {"model": model} if model else {}
    spoken: dict[str, Any] = {"voice": voice} if voice else {}
    if kind == "llm":
        return AgentConfig(
            stt=ProviderConfig(),
            tts=ProviderConfig("", spoken),
            llm=ProviderConfig(name, chosen),
            env=env,
            system=system,
            greeting=greeting,
        )
    verbatim: bool = find_class("s2s", name).capabilities.verbatim  # type: ignore[attr-defined]  # an S2S
    if greeting and not verbatim:
        system = f'{system}\nBegin the call with: "{greeting}"'.strip()
    return AgentConfig(
        s2s=ProviderConfig(name, {**chosen, **spoken}),
        env=env,
        system=system,
        greeting=greeting if verbatim else "",
        settings=AgentSettings(model_opens=bool(greeting) and not verbatim),
    )
