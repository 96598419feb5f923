"""Errors that cross from one process to another, and are raised again there."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from dialog.errors import (
    CallNotAnswered,
    CarrierError,
    ClientToolError,
    ConfigurationError,
    DestinationRefused,
    DialogError,
    LimitError,
    MissingPublicURL,
    NotSupportedError,
    RemoteProtocolError,
    StateError,
    UnsupportedFormat,
    UserCodeError,
)

__all__ = ["Fault", "error_of", "fault_of"]

_PLAIN: Final[dict[str, type[DialogError]]] = {
    kind.code: kind
    for kind in (
        ConfigurationError,
        LimitError,
        ClientToolError,
        MissingPublicURL,
        NotSupportedError,
        RemoteProtocolError,
        StateError,
        DestinationRefused,
        UnsupportedFormat,
        UserCodeError,
    )
}


class CarrierRefusal(Struct, frozen=True, array_like=True, gc=False):
    """What a :class:`~dialog.errors.CarrierError` says beside its text."""

    carrier: str
    call: str
    reason: str
    status: int
    carrier_code: int
    retry_after_s: float | None = None
    in_doubt: bool = False


class Fault(Struct, frozen=True, array_like=True, gc=False):
    """An error without its cause and traceback, which stay in the log of where it happened."""

    code: str
    text: str
    refusal: CarrierRefusal | None = None
    unanswered: tuple[str, str, str] | None = None
    """Call, reason and detail of a :class:`~dialog.errors.CallNotAnswered`."""


def fault_of(error: BaseException) -> Fault:
    """What of ``error`` can cross."""
    if isinstance(error, CarrierError):
        prefix = f"{error.carrier} call {error.call}: "
        refusal = CarrierRefusal(
            error.carrier,
            error.call,
            str(error).removeprefix(prefix),
            error.status,
            error.carrier_code,
            error.retry_after_s,
            error.in_doubt,
        )
        return Fault(error.code, str(error), refusal)
    if isinstance(error, CallNotAnswered):
        return Fault(error.code, str(error), unanswered=(error.call, error.reason, error.detail))
    if isinstance(error, DialogError):
        return Fault(error.code, str(error))
    return Fault(UserCodeError.code, repr(error))


def error_of(fault: Fault) -> DialogError:
    """The same error on this side: of the same class, where its text alone makes one."""
    if fault.refusal is not None:
        refusal = fault.refusal
        return CarrierError(
            refusal.carrier,
            refusal.call,
            refusal.reason,
            status=refusal.status,
            carrier_code=refusal.carrier_code,
            retry_after_s=refusal.retry_after_s,
            in_doubt=refusal.in_doubt,
        )
    if fault.unanswered is not None:
        return CallNotAnswered(*fault.unanswered)
    return _PLAIN.get(fault.code, DialogError)(fault.text)
