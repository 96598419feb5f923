"""Errors that cross from one process to another, and are raised again there."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from dialog.errors import (
    CarrierError,
    ConfigurationError,
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
        MissingPublicURL,
        NotSupportedError,
        RemoteProtocolError,
        StateError,
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


class Fault(Struct, frozen=True, array_like=True, gc=False):
    """An error without its cause and traceback, which stay in the log of where it happened."""

    code: str
    text: str
    refusal: CarrierRefusal | None = None


def fault_of(error: BaseException) -> Fault:
    """What of ``error`` can cross."""
    if isinstance(error, CarrierError):
        prefix = f"{error.carrier} call {error.call}: "
        refusal = CarrierRefusal(
            error.carrier, error.call, str(error).removeprefix(prefix), error.status, error.carrier_code
        )
        return Fault(error.code, str(error), refusal)
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
        )
    return _PLAIN.get(fault.code, DialogError)(fault.text)
