"""Which agent a call gets, or why it gets none: decided once, where it comes in; carried out where its agent runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import TypeAlias

from msgspec.structs import replace

from dialog.agent.agent import Agent
from dialog.errors import ConfigurationError
from dialog.sessions.config import AgentConfig
from dialog.sessions.spec import SessionDecision, SessionRequest, SessionResolver, SessionSpec, request_of
from dialog.voip.admission import Accept, Decision, Declined, Document, Offer, Reject, Resolver, Say
from dialog.voip.voip import VoIP

__all__ = ["OwnAgent", "Sessions", "is_loopback", "reason"]

logger = logging.getLogger(__name__)

OwnAgent: TypeAlias = Callable[[VoIP], object]
"""Gives a call an agent of a class of your own, as a listener for ``voip`` does; it may be a coroutine function."""
_APOLOGY = "We are sorry, an error has occurred. Please call again later."


class Sessions:
    """Decides on sessions, and makes their agents.

    Without a resolver everybody gets what is configured, if it is known who they are: calls of a carrier whose
    signature was checked, requests with a token, clients on this machine. Others are refused unless
    ``allow_anybody``.

    Args:
        assistants: The agents, by their names: as values, or functions that give them their calls.
        default: The one for whoever names none; unless given, the only one.
        resolver: Asked about every session.
        resolver_timeout_s: After that, and when it raises, the session is refused with ``apology``.
        allow_anybody: Without a resolver, take everybody.
        apology: What a caller hears then.
        apology_language: Its language.
        follow: Told of each call before its agent is, wherever that runs: ``Tracing().follow``.

    Raises:
        ConfigurationError: There is no assistant, or none of the name ``default``.
    """

    def __init__(
        self,
        assistants: Mapping[str, AgentConfig | OwnAgent],
        *,
        default: str = "",
        resolver: SessionResolver | None = None,
        resolver_timeout_s: float = 3.0,
        allow_anybody: bool = False,
        apology: str = _APOLOGY,
        apology_language: str = "en-US",
        follow: Callable[[VoIP], object] | None = None,
    ) -> None:
        if not assistants:
            raise ConfigurationError("a service needs at least one assistant")
        if default and default not in assistants:
            raise ConfigurationError(f"there is no assistant {default!r}; there are: {', '.join(assistants)}")
        if not resolver_timeout_s > 0:
            raise ConfigurationError(f"resolver_timeout_s must be positive, got {resolver_timeout_s}")
        self.assistants = dict(assistants)
        self.resolver_timeout_s = resolver_timeout_s
        self._default = default or (next(iter(assistants)) if len(assistants) == 1 else "")
        self._resolver = resolver
        self._allow_anybody = allow_anybody
        self._apology = Say(apology, apology_language)
        self._follow = follow

    async def decide(self, request: SessionRequest) -> SessionDecision:
        """Accept a session, as it will be, or refuse it. Nothing is raised; why something failed is in the log."""
        call_id = request.call.call_id
        if self._resolver is None:
            if not (request.verified or self._allow_anybody or is_loopback(request.peer)):
                logger.warning("session %s: refused, nobody vouches for it and there is no resolver", call_id)
                return Reject()
            decision: object = request.wanted
        else:
            bound = asyncio.timeout(self.resolver_timeout_s)
            try:
                async with bound:
                    decision = await self._resolver(request)
            except Exception:  # the host's code, which may have time-outs of its own
                if bound.expired():
                    logger.error("session %s: the resolver took more than %g s", call_id, self.resolver_timeout_s)  # noqa: TRY400
                else:
                    logger.exception("session %s: the resolver raised", call_id)
                return self._apology
        if isinstance(decision, Declined):
            return decision
        if not isinstance(decision, SessionSpec):
            logger.error("session %s: the resolver returned %r, which is no decision", call_id, type(decision))
            return self._apology
        try:
            return self._completed(request, decision)
        except ConfigurationError as exc:
            logger.error("session %s: it cannot be as it was decided: %s", call_id, exc)  # noqa: TRY400
            return self._apology

    def resolver(self, *, verified: bool = True) -> Resolver:
        """What a gateway asks about calls that come in: ``TwilioGateway(resolver=sessions.resolver(), …)``.

        For a :class:`~dialog.voip.web.gateway.WebGateway` too: see :func:`~dialog.sessions.spec.request_of`.

        Args:
            verified: The gateway checks signatures.
        """

        async def resolve(offer: Offer) -> Decision:
            decision = await self.decide(request_of(offer.metadata, verified=verified))
            return Accept(decision.to_json()) if isinstance(decision, SessionSpec) else decision

        return resolve

    def config(self, session: SessionSpec) -> AgentConfig:
        """The agent of a session.

        Raises:
            ConfigurationError: There is no such assistant, it is a function, or cannot be as the session wants it.
        """
        found = self._find(session)
        if not isinstance(found, AgentConfig):
            raise ConfigurationError("an assistant that is a function has no configuration")
        return found

    def check(self, session: SessionSpec) -> None:
        """Check that there can be such a session.

        Raises:
            ConfigurationError: There is no such assistant, or it cannot be as the session wants it.
        """
        self._find(session)

    def make(self, voip: VoIP) -> Agent:
        """The agent of a call that was accepted, in this process or in another one.

        Raises:
            ConfigurationError: See :meth:`config`.
        """
        return self.config(SessionSpec.from_json(voip.metadata.session)).make(voip)

    def on_voip(self, voip: VoIP) -> None:
        """Let the agent of a call take it: for a gateway, and for workers."""
        found = self._find(SessionSpec.from_json(voip.metadata.session))
        if self._follow is not None:
            self._follow(voip)
        if isinstance(found, AgentConfig):
            found.make(voip).activate()
            return
        made = found(voip)
        if asyncio.iscoroutine(made):
            voip.spawn(made, "on_voip")

    def _find(self, session: SessionSpec) -> AgentConfig | OwnAgent:
        name = session.assistant or self._default
        if not name:
            raise ConfigurationError(f"a session must name its assistant: {', '.join(self.assistants)}")
        if name not in self.assistants:
            raise ConfigurationError(f"there is no assistant {name!r}; there are: {', '.join(self.assistants)}")
        found = self.assistants[name]
        if isinstance(found, AgentConfig):
            return found.with_session(session)
        if session != SessionSpec(assistant=session.assistant, number=session.number, context=session.context):
            raise ConfigurationError(
                f"assistant {name!r} is a function: a session can give it a context, and change nothing else"
            )
        return found

    def _completed(self, request: SessionRequest, decision: SessionSpec) -> SessionSpec:
        """With what is known of the caller, unless the context says otherwise; tried out."""
        self._find(decision)
        completed = replace(decision, context={**request.wanted.context, **decision.context})
        completed.to_json()
        return completed


def is_loopback(peer: str) -> bool:
    """Whether a network address is this machine's own."""
    try:
        return ip_address(peer).is_loopback
    except ValueError:
        return False


def reason(declined: Declined) -> str:
    """A refusal in words, for whoever has no ear for TwiML."""
    match declined:
        case Reject(why):
            return why
        case Say(text):
            return text
        case Document():
            return "rejected"
