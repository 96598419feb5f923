"""A whole agent from one validated value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, TypeVar, cast

from msgspec import Struct, field
from msgspec.structs import replace

from dialog.agent.agent import Agent
from dialog.agent.record import RecordingSink
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import Tool
from dialog.errors import ConfigurationError
from dialog.llm.llm import LLM
from dialog.llm.openai import OpenAILLM
from dialog.mcp.server import MCPServer
from dialog.providers.builtin import DEFAULTS
from dialog.providers.factories import create_llm, create_s2s, create_stt, create_tts
from dialog.providers.registry import find_class
from dialog.providers.variables import options_from, parameters_of
from dialog.s2s.s2s import S2S
from dialog.sessions.spec import SessionSpec
from dialog.stt.stt import STT
from dialog.tts.tts import TTS
from dialog.voip.voip import VoIP

__all__ = ["AgentConfig", "ProviderConfig"]

MadeKind: TypeAlias = Literal["stt", "tts", "llm", "s2s"]
T = TypeVar("T")

_FACTORIES: Mapping[MadeKind, Callable[..., Any]] = {
    "stt": create_stt,
    "tts": create_tts,
    "llm": create_llm,
    "s2s": create_s2s,
}


class ProviderConfig(Struct, frozen=True):
    """A provider by its name, and the arguments of its class: ``ProviderConfig("deepgram", {"api_key": "…"})``."""

    name: str = ""
    """Empty: the default of the kind."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        return f"<ProviderConfig {self.name or 'default'}>"

    def given(self, kind: MadeKind, env: Mapping[str, str] | None) -> dict[str, Any]:
        """All arguments: the options, and what the environment has for the rest.

        Raises:
            ConfigurationError: There is no such provider, it has no such argument, or a variable is not set.
            MissingExtra: A package is not installed.
        """
        name = self.name or DEFAULTS[kind]
        cls = find_class(kind, name)
        known = parameters_of(cls)
        unknown = [option for option in self.options if option not in known]
        if unknown:
            raise ConfigurationError(f"{kind} {name!r} has no argument {unknown[0]!r}; it has {', '.join(known)}")
        options = dict(self.options)
        if env is not None:
            options |= options_from(env, kind, name, cls, options)
        return options


class AgentConfig(Struct, frozen=True, kw_only=True):
    """An agent without a class of its own: providers, models, prompt, greeting, tools, limits, interruption.

    With ``s2s`` it runs in realtime mode, else in text mode with ``stt``, ``llm`` and ``tts``. A provider is a name,
    a :class:`ProviderConfig`, or a function that makes one. It is checked when it is made, before the first call. ::

        AgentConfig(
            stt=ProviderConfig("deepgram", {"api_key": "…"}),
            llm=ProviderConfig("openai", {"api_key": "…", "model": "gpt-4.1-mini"}),
            tts=ProviderConfig("cartesia", {"api_key": "…"}),
            system="You answer the phone at Luigi's.",
            greeting="Luigi's, good evening!",
        )

    Raises:
        ConfigurationError: Something is missing, unknown, or contradicts something else.
        MissingExtra: A package is not installed.
    """

    stt: str | ProviderConfig | Callable[[], STT] | None = None
    tts: str | ProviderConfig | Callable[[], TTS] | None = None
    llm: str | ProviderConfig | Callable[[], LLM] | None = None
    s2s: str | ProviderConfig | Callable[[], S2S] | None = None
    client: Any = None
    """A configured client of ``openai`` or ``anthropic``, for the language model: it wins over the provider and the key
    of ``llm``, of which options such as ``model`` stay. It stays yours."""
    env: Mapping[str, str] | None = None
    """Where keys, models and voices are taken from that are not given; ``read_env()`` reads the environment."""
    system: str = ""
    """The model's instructions."""
    greeting: str = ""
    """Said first; empty: the caller speaks first, or with ``settings.model_opens`` the model."""
    tools: tuple[Tool, ...] = ()
    """Made by :func:`~dialog.agent.schematool.schema_tool`."""
    settings: AgentSettings = field(default_factory=AgentSettings)
    """Interruption mode, VAD mode, limits, what is said in an emergency."""
    mcp_servers: tuple[MCPServer, ...] = ()
    """Servers whose tools the model may call, too; they are shared by all calls."""
    recording_sink: RecordingSink | None = None
    """Takes the carrier's recording, where ``settings.record`` is on."""

    def __repr__(self) -> str:
        return f"<AgentConfig in {'realtime' if self.s2s is not None else 'text'} mode, {len(self.tools)} tools>"

    def __post_init__(self) -> None:
        if self.s2s is not None and self.stt is not None:
            raise ConfigurationError("an agent with an s2s hears with it: leave out the stt")
        if self.s2s is not None and self.client is not None:
            raise ConfigurationError("a client is for a language model: an s2s has none")
        if self.s2s is None:
            if self.tts is None or self.stt is None:
                raise ConfigurationError("an agent needs an stt and a tts, or an s2s that does the work of both")
            if self.llm is None and self.client is None:
                raise ConfigurationError("an agent in text mode needs an llm, or a client of one")
        if self.client is not None:
            _model_of(self.client)
        names = [each.options.name for each in self.tools]
        twice = next((name for name in names if names.count(name) > 1), "")
        if twice:
            raise ConfigurationError(f"two tools are named {twice!r}")
        for kind in cast("tuple[MadeKind, ...]", ("stt", "tts", "s2s", "llm")):
            provider = _provider(getattr(self, kind))
            if provider is not None and not (kind == "llm" and self.client is not None):
                provider.given(kind, self.env)
        s2s = _provider(self.s2s)
        if s2s is not None and self.greeting and self.tts is None:
            cls: type[S2S] = find_class("s2s", s2s.name)
            if not cls.capabilities.verbatim:
                raise ConfigurationError(
                    f"{cls.__name__} says nothing word for word: give a tts for the greeting, or no greeting but "
                    "AgentSettings(model_opens=True) and instructions that tell how to greet"
                )

    def with_session(self, session: SessionSpec) -> AgentConfig:
        """The agent as one session wants it; the assistant's name and the context are not its business.

        Raises:
            ConfigurationError: It cannot be like that.
        """
        changes: dict[str, Any] = {}
        model: MadeKind = "s2s" if self.s2s is not None else "llm"
        if session.provider and self.client is None:
            changes[model] = _renamed(getattr(self, model), session.provider)
        if session.stt:
            changes["stt"] = _renamed(self.stt, session.stt)
        if session.tts:
            changes["tts"] = _renamed(self.tts, session.tts)
        if session.model:
            of = ProviderConfig() if self.client is not None and self.llm is None else getattr(self, model)
            changes[model] = _with(changes.get(model, of), model, "model", session.model)
        if session.voice:
            voice: MadeKind = "s2s" if self.s2s is not None else "tts"
            changes[voice] = _with(changes.get(voice, getattr(self, voice)), voice, "voice", session.voice)
        if session.system is not None:
            changes["system"] = session.system
        if session.greeting is not None:
            changes["greeting"] = session.greeting
        if session.tools is not None:
            changes["tools"] = self._tools_named(session.tools)
        settings = _settings(self.settings, session)
        if settings is not self.settings:
            changes["settings"] = settings
        return replace(self, **changes) if changes else self

    def make(self, voip: VoIP) -> Agent:
        """An agent for a call; :meth:`~dialog.agent.agent.Agent.activate` is up to you.

        Raises:
            ConfigurationError: A provider refuses what it is given.
        """
        return Agent(
            voip=voip,
            stt=self._maker("stt", self.stt),
            tts=self._maker("tts", self.tts),
            s2s=self._maker("s2s", self.s2s),
            llm=self._make_llm(),
            system=self.system,
            greeting=self.greeting,
            settings=self.settings,
            tools=self.tools,
            mcp_servers=self.mcp_servers,
            recording_sink=self.recording_sink,
        )

    def _maker(self, kind: MadeKind, given: str | ProviderConfig | Callable[[], T] | None) -> Callable[[], T] | None:
        provider = _provider(given)
        if provider is None:
            return cast("Callable[[], T] | None", given)
        return lambda: _FACTORIES[kind](provider.name, **provider.given(kind, self.env))

    def _make_llm(self) -> LLM | None:
        if self.client is None:
            make: Callable[[], LLM] | None = self._maker("llm", self.llm)
            return None if make is None else make()
        provider = _provider(self.llm)
        options = {} if provider is None else dict(provider.options)
        for superseded in ("api_key", "base_url"):
            options.pop(superseded, None)
        made: LLM = _model_of(self.client)(client=self.client, **options)
        return made

    def _tools_named(self, names: tuple[str, ...]) -> tuple[Tool, ...]:
        tools = {each.options.name: each for each in self.tools}
        unknown = [name for name in names if name not in tools]
        if unknown:
            raise ConfigurationError(f"there is no tool {unknown[0]!r}; there are: {', '.join(tools) or 'none'}")
        return tuple(tools[name] for name in names)


def _provider(given: object) -> ProviderConfig | None:
    """``given`` as a provider by name; ``None``: it is a function, or nothing."""
    if isinstance(given, str):
        return ProviderConfig(given)
    return given if isinstance(given, ProviderConfig) else None


def _renamed(given: object, name: str) -> ProviderConfig:
    """Another provider: the arguments of the one before are not its."""
    provider = _provider(given)
    return provider if provider is not None and provider.name == name else ProviderConfig(name)


def _with(given: object, kind: MadeKind, argument: str, value: str) -> ProviderConfig:
    provider = _provider(given)
    if provider is None:
        raise ConfigurationError(f"the {argument} of the {kind} cannot be chosen: it is made by a function")
    return replace(provider, options={**provider.options, argument: value})


def _settings(settings: AgentSettings, session: SessionSpec) -> AgentSettings:
    turns = settings.turns
    if session.interruption is not None:
        turns = replace(
            turns, barge_in=replace(turns.barge_in, mode=session.interruption), greeting=None, thinking=None
        )
    if session.max_duration_s is not None:
        turns = replace(turns, silence=replace(turns.silence, max_duration_s=session.max_duration_s))
    if turns is not settings.turns:
        settings = replace(settings, turns=turns)
    if session.vad is not None:
        settings = replace(settings, vad=session.vad)
    return settings


def _model_of(client: object) -> Callable[..., LLM]:
    """The model that a client is for.

    Raises:
        ConfigurationError: It is no client of a model that is known.
    """
    packages = {base.__module__.partition(".")[0] for base in type(client).__mro__}
    if "openai" in packages:
        return OpenAILLM
    if "anthropic" in packages:
        from dialog.llm.anthropic import AnthropicLLM

        return AnthropicLLM
    raise ConfigurationError(
        f"client must be an AsyncOpenAI or an AsyncAnthropic, not {type(client).__name__}; for anything else let llm "
        "be a function that makes the model"
    )
