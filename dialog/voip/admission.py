"""Whether a call is taken, and who runs its agent: decided before anything is spent on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from dialog.errors import DialogError
from dialog.message import CallMetadata
from dialog.voip.peers import Peers
from dialog.voip.voip import VoIP

__all__ = [
    "Accept",
    "Decision",
    "Declined",
    "Document",
    "NoWorker",
    "Offer",
    "Reject",
    "Resolver",
    "Say",
    "Workers",
    "decide",
]

logger = logging.getLogger(__name__)


class Offer(Struct, frozen=True):
    """A call that has come in and was not answered yet."""

    metadata: CallMetadata


class Accept(Struct, frozen=True):
    """Take the call: the ``voip`` event follows."""

    session: str = ""
    """What its agent is told, in whatever process: see :attr:`~dialog.message.CallMetadata.session`."""


class Reject(Struct, frozen=True):
    """Let the carrier refuse it, unanswered and unbilled: a busy tone or "not in service"."""

    reason: Literal["busy", "rejected"] = "rejected"


class Say(Struct, frozen=True):
    """Answer, say a sentence in the carrier's voice, and hang up."""

    text: str
    language: str = "en-US"


class Document(Struct, frozen=True):
    """Let the carrier do what this document of its own language (TwiML) says: forward, queue, take a message."""

    text: str


Declined: TypeAlias = Reject | Say | Document
Decision: TypeAlias = Accept | Declined
Resolver: TypeAlias = Callable[[Offer], Awaitable[Decision]]
"""What a host gives to decide; bounded by the gateway's ``resolver_timeout_s``."""


class NoWorker(DialogError):
    """No worker could take the call in time."""

    code = "no_worker"


class Workers(Protocol):
    """Runs the agents of a gateway's calls somewhere else: in processes of this machine, or in a fleet."""

    async def start(self) -> None:
        """Get ready, with the gateway's server."""

    def take(self, voip: VoIP) -> asyncio.Future[None]:
        """Give a call to a worker; inside the call's scope.

        The future is done when a worker has the call, or fails with :class:`NoWorker` if none had room in
        time, and with :class:`~dialog.errors.UserCodeError` if ``on_voip`` raised there. Cancelling it
        changes nothing.
        """
        ...

    @property
    def ready(self) -> bool:
        """Whether there is a worker at all."""
        ...

    @property
    def peers(self) -> Peers | None:
        """The other gateways that share these workers, if they can be reached that way."""
        ...

    async def close(self) -> None:
        """Let go of the workers; the gateway has ended its calls before."""


async def decide(resolver: Resolver | None, offer: Offer, timeout_s: float) -> Decision | None:
    """What ``resolver`` decides about a call, or ``None`` if it fails, which is logged; without one each is taken."""
    if resolver is None:
        return Accept()
    call_id = offer.metadata.call_id
    bound = asyncio.timeout(timeout_s)
    try:
        async with bound:
            decision: object = await resolver(offer)
    except Exception:  # it may have time-outs of its own
        if bound.expired():
            logger.error("call %s: the resolver took more than %g s", call_id, timeout_s)  # noqa: TRY400
        else:
            logger.exception("call %s: the resolver raised", call_id)
        return None
    if isinstance(decision, Accept | Reject | Say | Document):
        return decision
    logger.error("call %s: the resolver returned %r instead of a decision", call_id, type(decision))
    return None
