"""The environment variables that Dialog's programs know: what each is, and what it configures.

One table, :data:`VARIABLES`, is read by the factories' ``from_env``, by ``python -m dialog doctor``, and
by docs/environment.md. The library itself takes values and reads no environment.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import urlsplit

from msgspec import Struct

from dialog.errors import ConfigurationError
from dialog.logs import LEVELS
from dialog.providers.builtin import BUILTIN, Kind

__all__ = [
    "VARIABLES",
    "Fault",
    "Variable",
    "configured",
    "fault",
    "options_from",
    "parameters_of",
    "value_of",
    "variable",
]

Form = Literal["text", "key", "sid", "url", "port", "file", "tel", "nats", "level"]


class Variable(Struct, frozen=True, kw_only=True):
    """An environment variable."""

    name: str
    what: str
    """What it is, and where to find it."""
    configures: tuple[str, ...] = ()
    """Arguments of providers: ``stt.deepgram.api_key``. In ``stt.*.model`` the star stands for every
    provider of the kind that has such an argument."""
    aliases: tuple[str, ...] = ()
    """Other names; the variable's own name wins."""
    default: str = ""
    """What holds where it is not set; empty: what the provider itself takes."""
    form: Form = "text"
    """How a value must look. ``key``: no blanks or quotes, never shown."""
    needed: bool = False
    """What it configures cannot be used without it."""

    @property
    def secret(self) -> bool:
        """Its value is never shown or logged."""
        return self.form == "key"


class Fault(NamedTuple):
    """What is wrong with a value."""

    problem: str
    """Follows the variable's name in a sentence; a secret is not shown."""
    fix: str


def _key(name: str, what: str, *configures: str, aliases: tuple[str, ...] = ()) -> Variable:
    return Variable(name=name, what=what, configures=configures, aliases=aliases, form="key", needed=True)


def _base_url(name: str, what: str, *configures: str) -> Variable:
    return Variable(name=name, what=f"another server that speaks {what}", configures=configures, form="url")


def _at_openai(argument: str) -> tuple[str, ...]:
    """The argument, of what is at OpenAI under another name."""
    return tuple(f"{target}.{argument}" for target in ("llm.responses", "agent.responses", "agent.twilio-openai"))


def _speech_at_deepgram(argument: str) -> tuple[str, ...]:
    """The argument, of what is at Deepgram's address for speech: agents have another one."""
    return tuple(f"{target}.{argument}" for target in ("stt.deepgram", "stt.deepgram-flux", "tts.deepgram"))


VARIABLES: tuple[Variable, ...] = (
    Variable(
        name="TWILIO_ACCOUNT_SID",
        what="account SID, on the first page of the Twilio console",
        configures=("gateway.twilio.account_sid", "sms.twilio.account_sid"),
        form="sid",
        needed=True,
    ),
    _key(
        "TWILIO_AUTH_TOKEN",
        "auth token, on the first page of the Twilio console",
        "gateway.twilio.auth_token",
        "sms.twilio.auth_token",
    ),
    Variable(
        name="TWILIO_API_KEY",
        what="API key of Twilio's (`SK…`), for REST commands instead of the auth token",
        configures=("gateway.twilio.api_key", "sms.twilio.api_key"),
        form="key",
    ),
    Variable(
        name="TWILIO_API_SECRET",
        what="secret of that API key",
        configures=("gateway.twilio.api_secret", "sms.twilio.api_secret"),
        form="key",
    ),
    _base_url("TWILIO_BASE_URL", "Twilio's REST protocol", "gateway.twilio.base_url", "sms.twilio.base_url"),
    Variable(
        name="TWILIO_PHONE_NUMBER",
        what="number of the account, in E.164, that text messages come from",
        configures=("sms.twilio.from_",),
        form="tel",
    ),
    Variable(
        name="TWILIO_MESSAGING_SERVICE_SID",
        what="messaging service (`MG…`) that chooses the sender of text messages instead",
        configures=("sms.twilio.messaging_service_sid",),
    ),
    Variable(
        name="TWILIO_STREAM_URL",
        what="public wss:// address of the media socket of `python -m dialog serve`, if not at the webhook's host",
        form="url",
    ),
    Variable(
        name="TWILIO_PROVIDER",
        what="who hears and speaks in `python -m dialog serve`; `llm.openai` and the like, or a provider that is only "
        "a language model: text mode, with the default STT and TTS",
        default="openai",
    ),
    Variable(name="TWILIO_MODEL", what="the model there"),
    Variable(name="TWILIO_VOICE", what="the voice there"),
    Variable(name="TWILIO_INSTRUCTIONS", what="how the agent there is to behave; else `SYSTEM_PROMPT`"),
    Variable(name="TWILIO_INITIAL_GREETING", what="what it says first; else `GREETING`"),
    Variable(name="TWILIO_VOICE_WEBHOOK_PATH", what="local path of the voice webhook there", default="/twilio/voice"),
    Variable(name="TWILIO_STREAM_WEBSOCKET_PATH", what="local path of the media socket there", default="/ws/twilio"),
    _key(
        "TELNYX_API_KEY",
        "API key (`KEY…`), in the Telnyx portal under API Keys",
        "gateway.telnyx.api_key",
        "sms.telnyx.api_key",
    ),
    Variable(
        name="TELNYX_PUBLIC_KEY",
        what="public key of the account, there under Keys & Credentials: checks webhooks",
        configures=("gateway.telnyx.public_key",),
        needed=True,
    ),
    Variable(
        name="TELNYX_CONNECTION_ID",
        what="id of the Call Control application, there under Voice: needed to place calls",
        configures=("gateway.telnyx.connection_id",),
    ),
    _base_url("TELNYX_BASE_URL", "Telnyx's API v2", "gateway.telnyx.base_url", "sms.telnyx.base_url"),
    Variable(
        name="TELNYX_PHONE_NUMBER",
        what="number of the account, in E.164, that text messages come from",
        configures=("sms.telnyx.from_",),
        form="tel",
    ),
    _key("STREAM_TOKEN", "secret of 16 characters or more in the address of the media socket", "gateway.stream.token"),
    Variable(
        name="DIALOG_API_TOKEN",
        what="token of 16 characters or more for the REST API there, and for the tokens of browsers; without it there "
        "are neither",
        form="key",
    ),
    Variable(
        name="VOICE_MONITOR",
        what="1: the calls of `python -m dialog dial`, `examples/survey` and `examples/appointment_reminder` are heard "
        "on the speakers of this machine",
        default="0",
    ),
    Variable(
        name="WEBHOOK_URL",
        what="public https:// address of the voice webhook; a tunnel gives one, see docs/twilio.md",
        configures=("gateway.twilio.webhook_url", "gateway.telnyx.webhook_url"),
        form="url",
    ),
    _key("OPENAI_API_KEY", "key of the OpenAI platform", "*.openai.api_key", *_at_openai("api_key")),
    Variable(
        name="OPENAI_MODEL",
        what="the language model at OpenAI",
        configures=("llm.openai.model", "agent.openai.model", *_at_openai("model")),
        default="gpt-4.1-mini",
    ),
    _base_url(
        "OPENAI_BASE_URL",
        "the protocol of OpenAI's language models",
        "llm.openai.base_url",
        "agent.openai.base_url",
        *_at_openai("base_url"),
    ),
    _key("ANTHROPIC_API_KEY", "key of the Anthropic console", "*.anthropic.api_key"),
    _base_url("ANTHROPIC_BASE_URL", "Anthropic's protocol", "*.anthropic.base_url"),
    _key("GEMINI_API_KEY", "key of Google's AI Studio", "s2s.gemini.api_key", aliases=("GOOGLE_API_KEY",)),
    Variable(
        name="REALTIME_PROVIDER",
        what="who hears and speaks in `examples/realtime_agent`: a name of [Providers](providers.md)",
        default="openai",
    ),
    _base_url(
        "REALTIME_BASE_URL",
        "the protocol of such a model",
        *(f"s2s.{name}.base_url" for name in ("openai", "grok", "gemini", "deepgram")),
    ),
    _key("XAI_API_KEY", "key of the xAI console", "s2s.grok.api_key"),
    _key("DEEPGRAM_API_KEY", "key of the Deepgram console", "*.deepgram.api_key", "stt.deepgram-flux.api_key"),
    _base_url("DEEPGRAM_BASE_URL", "Deepgram's protocol", *_speech_at_deepgram("base_url")),
    _key("CARTESIA_API_KEY", "key of the Cartesia console", "*.cartesia.api_key"),
    _base_url("CARTESIA_BASE_URL", "Cartesia's protocol", "*.cartesia.base_url"),
    _key(
        "ELEVENLABS_API_KEY",
        "key of the ElevenLabs console",
        "*.elevenlabs.api_key",
        aliases=("ELEVEN_LABS_API_KEY",),
    ),
    Variable(
        name="ELEVENLABS_AGENT_ID",
        what="the agent, made in the ElevenLabs console",
        configures=("s2s.elevenlabs.agent_id",),
        needed=True,
    ),
    Variable(
        name="ELEVENLABS_VOICE_ID",
        what="the voice at ElevenLabs",
        configures=("tts.elevenlabs.voice",),
        default="JBFqnCBsd6RMkjVDRZzb",
    ),
    Variable(
        name="ELEVENLABS_MODEL",
        what="the voice's model at ElevenLabs",
        configures=("tts.elevenlabs.model",),
        default="eleven_flash_v2_5",
    ),
    _base_url("ELEVENLABS_BASE_URL", "ElevenLabs's protocol", "*.elevenlabs.base_url"),
    _key("AZURE_SPEECH_KEY", "key of the speech resource, in the Azure portal", "*.azure.api_key"),
    Variable(
        name="AZURE_SPEECH_REGION",
        what="region of the speech resource",
        configures=("*.azure.region",),
        default="westeurope",
    ),
    _base_url("AZURE_SPEECH_BASE_URL", "Azure's protocols, or the resource's own endpoint", "*.azure.base_url"),
    Variable(
        name="AZURE_TTS_VOICE",
        what="the voice at Azure",
        configures=("tts.azure.voice",),
        default="en-US-AvaMultilingualNeural",
    ),
    Variable(
        name="STT_MODEL_ID",
        what="model of whichever recogniser is made from the environment",
        configures=("stt.*.model",),
    ),
    Variable(
        name="STT_LANGUAGE_CODE",
        what="language of whichever recogniser is made from the environment, as its provider writes it",
        configures=("stt.*.language",),
    ),
    Variable(name="GREETING", what="what the agents of the examples say first", configures=("agent.*.greeting",)),
    Variable(name="SYSTEM_PROMPT", what="how they are to behave", configures=("agent.*.system",)),
    Variable(
        name="HOST_NAME",
        what="address that the programs listen on; `0.0.0.0` in a container",
        default="127.0.0.1",
    ),
    Variable(name="PORT", what="port that the programs listen on", default="8080", form="port"),
    Variable(
        name="COLLEAGUES",
        what="whom `examples/receptionist` can ask: `the workshop=+15550101, the manager=+15550102`",
    ),
    Variable(name="PROCESSES", what="how many worker processes `examples/worker_processes` has; one a core unless set"),
    Variable(
        name="LEAVE_S",
        what="how long `examples/worker_processes` still takes calls after SIGTERM, in seconds",
        default="5",
    ),
    Variable(name="CERT_FILE", what="certificate chain, PEM: TLS without a proxy", form="file"),
    Variable(name="KEY_FILE", what="key of the certificate, PEM", form="file"),
    Variable(name="NATS_URL", what="servers where a fleet meets: `nats://host:4222`, several with commas", form="nats"),
    Variable(name="NATS_PREFIX", what="of all subjects: fleets with different ones share a cluster", default="dialog"),
    Variable(name="NATS_USER", what="user at NATS"),
    Variable(name="NATS_PASSWORD", what="and its password", form="key"),
    Variable(name="NATS_TOKEN", what="token at NATS", form="key"),
    Variable(name="NATS_CREDENTIALS", what="credentials file (`.creds`) for NATS", form="file"),
    Variable(name="NATS_NKEY_SEED", what="file with the seed of an nkey for NATS", form="file"),
    Variable(name="NATS_CA", what="certificates to trust at NATS, PEM, instead of the system's", form="file"),
    Variable(name="NATS_CERTIFICATE", what="our certificate for NATS, PEM, where it asks for one", form="file"),
    Variable(name="NATS_KEY", what="key of that certificate, PEM", form="file"),
    Variable(
        name="CALL_LOG_URL",
        what="database of calls, for `python -m dialog db`: `sqlite:///calls.db`, `postgresql://…`",
        form="key",  # it may have a password in it
    ),
    Variable(name="LOG_LEVEL", what="debug, info, notice, warning, error …", default="info", form="level"),
)
"""All of them, in the order of the documentation."""

_BY_NAME = {name: variable for variable in VARIABLES for name in (variable.name, *variable.aliases)}
_SCHEMES = {"WEBHOOK_URL": ("http", "https"), "TWILIO_STREAM_URL": ("ws", "wss")}
_TEL = re.compile(r"\+[1-9]\d{6,14}")
_SID = re.compile(r"AC[0-9a-fA-F]{32}")


def variable(name: str) -> Variable:
    """The variable that has this name or alias; raises KeyError for an unknown one."""
    return _BY_NAME[name]


def value_of(env: Mapping[str, str], variable: Variable) -> str:
    """Its value, under its own name or an alias; empty if there is none."""
    return next((env[name] for name in (variable.name, *variable.aliases) if env.get(name)), "")


def configured(variable: Variable) -> tuple[tuple[Kind, str, str], ...]:
    """Kind, name and argument of every provider of Dialog's own that it is for.

    Where its :attr:`~Variable.configures` has a star for the name, not all of them may have the argument.
    """
    return tuple(
        (kind, name, argument)
        for kind, names in BUILTIN.items()
        for name in names
        if (argument := _argument(variable, kind, name)) is not None
    )


def fault(variable: Variable, value: str) -> Fault | None:
    """What is wrong with ``value``, if anything is."""
    if variable.form in ("key", "sid") and (value != value.strip() or any(sign in value for sign in "\"' \t")):
        return Fault("has spaces or quotes in it", "copy it again, without quotes")
    if variable.form == "sid" and not _SID.fullmatch(value):
        return Fault("does not look like one", "it is AC and 32 hexadecimal digits")
    if variable.form == "tel" and not _TEL.fullmatch(value):
        return Fault("is no number in E.164", "write + and the country first, without blanks: +15551230002")
    if variable.form == "port" and (not value.isdigit() or int(value) > 65_535):
        return Fault(f"is no port: {value}", "a number up to 65535")
    if variable.form == "level" and value.lower() not in LEVELS:
        return Fault(f"is no level: {value}", f"one of {', '.join(LEVELS)}")
    if variable.form == "nats" and not all(_is_address(part.strip(), ("nats", "tls")) for part in value.split(",")):
        return Fault("is no address of NATS servers", "write nats://host:4222, several with commas in between")
    if variable.form == "url":
        schemes = _SCHEMES.get(variable.name, ("http", "https", "ws", "wss"))
        if not _is_address(value, schemes):
            return Fault(f"is no address: {value}", f"write {' or '.join(f'{scheme}://' for scheme in schemes)}")
    return None


def options_from(env: Mapping[str, str], kind: Kind, name: str, cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that ``env`` has for a provider, checked; those ``given`` are not looked for.

    A provider of another package says by a class attribute ``environment``, a tuple of
    :class:`Variable`, what of its own it reads.

    Raises:
        ConfigurationError: Variables that it needs are not set, or values are malformed. All are named.
    """
    found: dict[str, Any] = {}
    missing: list[tuple[str, Variable]] = []
    malformed: list[str] = []
    parameters = parameters_of(cls)
    # Agents hand what all agents take to their base class, as keywords.
    any_ = kind == "agent" and any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    # A client has its key and its server.
    known = {*given, "api_key", "base_url"} if given.get("client") is not None else given
    own = cast("tuple[Variable, ...]", getattr(cls, "environment", ()))
    for each in (*VARIABLES, *own):
        argument = _argument(each, kind, name)
        if argument is None or argument in known or not (any_ or argument in parameters):
            continue
        value = value_of(env, each)
        wrong = fault(each, value) if value else None
        if wrong is not None:
            malformed.append(f"{each.name} {wrong.problem} ({wrong.fix})")
        elif value:
            found[argument] = value
        elif each.needed:
            missing.append((argument, each))
    # A server of one's own may want no key, and an API key takes the place of an account's token.
    instead = {"base_url", "api_key"} & {*found, *given}
    unset = [
        f"{each.name} is not set ({each.what})"
        for argument, each in missing
        if not instead or parameters[argument].default is inspect.Parameter.empty
    ]
    if malformed or unset:
        raise ConfigurationError(
            f"{kind} {name!r} cannot be made from the environment: {'; '.join((*malformed, *unset))}. "
            "Set it in the environment or in .env; python -m dialog doctor checks all of them"
        )
    return found


@lru_cache(maxsize=64)  # a call is made from it, and looking takes half a millisecond
def parameters_of(cls: type) -> Mapping[str, inspect.Parameter]:
    """The arguments of a class's constructor."""
    # Not of the class: a base may have a __new__ that takes anything, and would hide them.
    parameters = dict(inspect.signature(cast(Any, cls).__init__).parameters)
    del parameters[next(iter(parameters))]  # self
    return parameters


def _argument(variable: Variable, kind: Kind, name: str) -> str | None:
    """Which argument of a provider it configures, if any."""
    for target in variable.configures:
        its_kind, its_name, argument = target.split(".")
        if its_kind in (kind, "*") and its_name in (name, "*"):
            return argument
    return None


def _is_address(value: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in schemes and bool(parts.hostname)
    except ValueError:  # brackets that are no IPv6 address
        return False
