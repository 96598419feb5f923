"""Whether a call is taken, decided before anything is spent on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

from msgspec import Struct

from dialog.message import CallMetadata

__all__ = ["Accept", "Decision", "Offer", "Reject", "Resolver", "Say"]


class Offer(Struct, frozen=True):
    """A call that has come in and was not answered yet."""

    metadata: CallMetadata


class Accept(Struct, frozen=True):
    """Take the call: the ``voip`` event follows."""


class Reject(Struct, frozen=True):
    """Let the carrier refuse it, unanswered and unbilled: a busy tone or "not in service"."""

    reason: Literal["busy", "rejected"] = "rejected"


class Say(Struct, frozen=True):
    """Answer, say a sentence in the carrier's voice, and hang up."""

    text: str
    language: str = "en-US"


Decision: TypeAlias = Accept | Reject | Say
Resolver: TypeAlias = Callable[[Offer], Awaitable[Decision]]
"""What a host gives to decide; bounded by the gateway's ``resolver_timeout_s``."""
