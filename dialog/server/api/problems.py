"""Answers that say what is wrong, as RFC 9457 has them."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from dialog.errors import (
    CarrierError,
    ConfigurationError,
    DestinationRefused,
    DialogError,
    LimitError,
    MissingPublicURL,
    NotSupportedError,
    StateError,
)
from dialog.server.api.types import ProblemBody
from dialog.voip.admission import NoWorker

__all__ = ["Problem", "problem_of"]


class Problem(Exception):  # it is an answer, and expected
    """The request is refused with ``status``; the text is for whoever asked."""

    def __init__(self, status: int, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers

    def to_json(self) -> bytes:
        """The body of the answer."""
        title = HTTPStatus(self.status).phrase
        return msgspec.json.encode(ProblemBody(title=title, status=self.status, detail=str(self)))


def problem_of(error: DialogError) -> Problem:
    """What a failed command means for whoever asked for it."""
    match error:
        case MissingPublicURL():
            return Problem(503, str(error))
        case LimitError():
            return Problem(429, str(error), (("Retry-After", "5"),))
        case NoWorker():
            return Problem(503, str(error), (("Retry-After", "5"),))
        case NotSupportedError():
            return Problem(501, str(error))
        case StateError():
            return Problem(409, str(error))
        case DestinationRefused():
            return Problem(403, str(error))
        case CarrierError():
            return Problem(502, str(error))
        case ConfigurationError():
            return Problem(422, str(error))
        case _:
            return Problem(500, "the call could not be taken care of; the log says why")
