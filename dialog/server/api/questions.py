"""What processes of a service ask each other about calls, and the answers."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Struct

from dialog.server.api.feeds import Batch
from dialog.server.api.types import CallView
from dialog.server.limits import Stamp

__all__ = [
    "Answer",
    "Answered",
    "Batches",
    "Before",
    "Counted",
    "Counts",
    "Do",
    "Follow",
    "Followed",
    "Has",
    "Here",
    "Leave",
    "Listed",
    "Listing",
    "Next",
    "Question",
    "Refused",
    "Whereabouts",
    "decode_answer",
    "decode_question",
    "encode",
]

Before: TypeAlias = tuple[float, UUID]
"""The place of a call in a list, newest first: when it began, in seconds since 1970, and its id."""


class Do(Struct, frozen=True, array_like=True, tag="do"):
    """An operation on the call of the frame, which is with you; it was checked where it landed."""

    operation: str
    path: dict[str, str]
    body: bytes
    token: str
    """The name of the API token; what that may see you know."""


class Listing(Struct, frozen=True, array_like=True, tag="list"):
    """Your calls, newest first."""

    state: Literal["live", "ended"]
    limit: int
    before: Before | None
    token: str


class Has(Struct, frozen=True, array_like=True, tag="has"):
    """Is that call with you, or was it lately?"""

    call_id: UUID


class Whereabouts(Struct, frozen=True, array_like=True, tag="where"):
    """The place in lists of a call that is with you."""

    call_id: UUID
    token: str


class Counts(Struct, frozen=True, array_like=True, tag="count"):
    """How many calls are with you, as seen by one that came at ``stamp``."""

    stamp: Stamp


class Follow(Struct, frozen=True, array_like=True, tag="follow"):
    """Keep the events of a call, or of all, for me; I ask for them with :class:`Next`."""

    call_id: UUID | None
    token: str


class Next(Struct, frozen=True, array_like=True, tag="next"):
    """The batch of that number of what you keep for me."""

    reader: int
    number: int


class Leave(Struct, frozen=True, array_like=True, tag="leave"):
    """I do not read that any more."""

    reader: int


Question: TypeAlias = Do | Has | Listing | Whereabouts | Counts | Follow | Next | Leave


class Answered(Struct, frozen=True, array_like=True, tag="did"):
    """The HTTP answer."""

    status: int
    body: bytes
    headers: list[tuple[str, str]]


class Refused(Struct, frozen=True, array_like=True, tag="no"):
    """A problem, for whoever asked first."""

    status: int
    detail: str
    headers: list[tuple[str, str]]


class Here(Struct, frozen=True, array_like=True, tag="here"):
    """It is, or not."""

    here: bool


class Listed(Struct, frozen=True, array_like=True, tag="listed"):
    """Calls, each with its place."""

    calls: list[tuple[Before, CallView]]


class Counted(Struct, frozen=True, array_like=True, tag="counted"):
    """Calls by tenant."""

    counts: dict[str, int]


class Followed(Struct, frozen=True, array_like=True, tag="following"):
    """They are kept under that number."""

    reader: int


class Batches(Struct, frozen=True, array_like=True, tag="batch"):
    """What was asked for."""

    batch: Batch


Answer: TypeAlias = Answered | Refused | Here | Listed | Counted | Followed | Batches

encode: Final = msgspec.msgpack.Encoder().encode
decode_question: Final = msgspec.msgpack.Decoder(Question).decode
decode_answer: Final = msgspec.msgpack.Decoder(Answer).decode
