"""What one session is to be like: asked for by whoever begins it, decided by the session resolver."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from dialog.agent.vadmode import VADMode
from dialog.checks import check_choice, check_several
from dialog.errors import ConfigurationError
from dialog.message import CallMetadata
from dialog.voip.admission import Declined

__all__ = ["SessionDecision", "SessionRequest", "SessionResolver", "SessionSpec", "phone_context", "request_of"]

InterruptionMode: TypeAlias = Literal["immediate", "after_sentence", "disabled"]

_encoder = msgspec.json.Encoder()


class SessionSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What an agent is to be like in one session, over its configuration. What is left out is as configured.

    It is JSON on the way to the process that runs the agent; functions and clients belong to the configuration.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    assistant: str = ""
    """Which of the configured agents."""
    provider: str = ""
    """Name of the model's provider: of what hears and speaks in realtime mode, else of the language model."""
    model: str = ""
    """The model, as that provider calls it."""
    stt: str = ""
    """Name of the provider that hears, in text mode."""
    tts: str = ""
    """Name of the provider that speaks."""
    voice: str = ""
    """The voice, as its provider calls it."""
    system: str | None = None
    """The model's instructions, instead of the assistant's; ``None``: those."""
    greeting: str | None = None
    """Said first, instead of the assistant's greeting; empty: nothing is; ``None``: that."""
    tools: tuple[str, ...] | None = None
    """Names of the configured tools that it has; ``None``: all."""
    vad: VADMode | None = None
    """Who hears the caller start and stop, as ``AgentSettings.vad``; ``None``: as the assistant has it."""
    interruption: InterruptionMode | None = None
    """What the caller's words do to a reply, as ``BargeIn.mode``; ``None``: as the assistant has it."""
    max_duration_s: float | None = None
    """The call is ended after this, as by ``Silence.max_duration_s``; ``None``: as the assistant has it."""
    number: str = ""
    """Of a call that is placed: the id of the number it comes from."""
    context: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the host wants to be known in the session; opaque to Dialog. Agents read
    :attr:`CallMetadata.context <dialog.message.CallMetadata.context>`."""

    def __post_init__(self) -> None:
        if self.vad is not None:
            check_choice("vad", self.vad, get_args(VADMode))
        if self.interruption is not None:
            check_choice("interruption", self.interruption, get_args(InterruptionMode))
        check_several("tools", self.tools)
        if self.max_duration_s is not None and not self.max_duration_s > 0:
            raise ConfigurationError(f"max_duration_s must be positive, got {self.max_duration_s}")

    def __repr__(self) -> str:
        return f"<SessionSpec {self.assistant or 'of the default assistant'}>"

    def to_json(self) -> str:
        """For :attr:`CallMetadata.session <dialog.message.CallMetadata.session>`.

        Raises:
            ConfigurationError: The context is not made of what JSON knows.
        """
        try:
            return _encoder.encode(self).decode()
        except (TypeError, ValueError, RecursionError) as exc:
            raise ConfigurationError(f"the context of a session must be JSON: {exc}") from exc

    @classmethod
    def from_json(cls, text: str | bytes) -> SessionSpec:
        """What :meth:`to_json` made; of an empty text, a spec that asks for nothing.

        Raises:
            ConfigurationError: It is not one.
        """
        if not text:
            return cls()
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as exc:
            raise ConfigurationError(f"the session is described wrongly: {exc}") from exc


class SessionRequest(Struct, frozen=True, kw_only=True):
    """A session that somebody wants: a call that comes in or is to be placed, a client that connects."""

    source: Literal["phone", "api", "client"]
    """``phone``: a call comes in. ``api``: one is to be placed. ``client``: an app or a browser connects."""
    call: CallMetadata
    wanted: SessionSpec = SessionSpec()
    """What a client asks for, or what is configured for the number; ``context`` says what is known of the caller."""
    verified: bool = False
    """The carrier's signature was checked, or a token was."""
    peer: str = ""
    """Network address of a client."""

    def __repr__(self) -> str:
        return f"<SessionRequest {self.source} {self.call.call_id}>"


SessionDecision: TypeAlias = SessionSpec | Declined
"""How it is to be, or how it is refused: busy, rejected, with spoken words, or with TwiML."""
SessionResolver: TypeAlias = Callable[[SessionRequest], Awaitable[SessionDecision]]
"""What a host gives to decide; bounded in time. Nothing is connected before it has accepted."""


_WISHES: Final = ("provider", "model", "stt", "tts", "voice", "system", "greeting")
_CLIENT: Final = "client."
"""Before the names of parameters that nobody but the client vouches for."""


def request_of(call: CallMetadata, *, verified: bool) -> SessionRequest:
    """What is asked for by a call that has come in, from a telephone or from a client.

    A client asks by its parameters: ``provider``, ``model``, ``voice``, ``system`` and so on, and ``context``, a
    JSON object. That it has a token says who it is, not what it may ask for: it is not ``verified``. It is if the token
    says what the session is to be like; then that is what is wanted, and what the client asks for is in
    ``context["client"]`` only.

    Raises:
        ConfigurationError: The token's session is none that this version understands.
    """
    if call.carrier != "web":
        return SessionRequest(
            source="phone", call=call, wanted=SessionSpec(context=phone_context(call)), verified=verified
        )
    client = {name.removeprefix(_CLIENT): value for name, value in call.parameters if name.startswith(_CLIENT)}
    host = {name: value for name, value in call.parameters if not name.startswith(_CLIENT)}
    peer = host.get("remote", "")
    context: dict[str, Any] = {"source": "client", "user": call.from_, "parameters": host, "client": client}
    if call.session:
        signed = SessionSpec.from_json(call.session)
        signed = replace(signed, assistant=signed.assistant or call.to, context={**context, **signed.context})
        return SessionRequest(source="client", call=call, wanted=signed, verified=True, peer=peer)
    wishes: dict[str, Any] = {name: client.pop(name) for name in _WISHES if name in client}
    with suppress(msgspec.MsgspecError, RecursionError):  # what is no JSON is among the client's parameters as it is
        context |= msgspec.json.decode(client.get("context", "{}"), type=dict[str, Any])
    wanted = SessionSpec(assistant=call.to, context=context, **wishes)
    return SessionRequest(source="client", call=call, wanted=wanted, peer=peer)


def phone_context(call: CallMetadata) -> dict[str, Any]:
    """What is known of a phone call, for its session's context."""
    return {
        "source": "phone",
        "call_sid": call.carrier_call_id,
        "account_sid": call.account_id,
        "from": call.from_,
        "to": call.to,
    }
