"""What the emulated Twilio REST API is asked, and how it refuses."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TypeAlias

from aiohttp import web

__all__ = ["E164", "Asked", "Handler", "RestRefusal", "now"]

E164 = re.compile(r"\+[1-9]\d{6,14}")
"""A telephone number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that was let in."""

    path: str
    names: Mapping[str, str]
    """What its path names: ``call``, ``recording`` …"""
    query: Mapping[str, str]
    form: dict[str, str]
    """Fields that come more than once are joined by spaces."""

    def missing(self) -> RestRefusal:
        """There is no such resource."""
        return RestRefusal(404, 20404, f"The requested resource {self.path} was not found")


Handler: TypeAlias = Callable[[Asked], Awaitable[web.Response]]
"""Answers a request, or raises :class:`RestRefusal`."""


class RestRefusal(Exception):  # an answer, and expected
    """A request is refused with an HTTP status, and Twilio's code for why."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def response(self, *, problem_json: bool) -> web.Response:
        """The answer: problem details, or the older shape."""
        more = f"https://www.twilio.com/docs/errors/{self.code}"
        if problem_json:
            problem = {"type": more, "title": str(self), "status": self.status, "code": self.code, "detail": str(self)}
            return web.json_response(problem, status=self.status, content_type="application/problem+json")
        error = {"code": self.code, "message": str(self), "more_info": more, "status": self.status}
        return web.json_response(error, status=self.status)


def now() -> str:
    """The time, as resources have it."""
    return format_datetime(datetime.now(UTC))
