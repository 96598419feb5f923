"""Answers of the API and of the console to ASGI servers."""

from __future__ import annotations

from collections.abc import Iterable

from dialog.net.asgi import Message, Receive, Send, deny, respond, stream
from dialog.server.api.core import Answer, refused
from dialog.server.api.problems import Problem

__all__ = ["deny_socket", "send_answer"]


async def send_answer(answer: Answer, receive: Receive, send: Send, headers: Iterable[tuple[str, str]] = ()) -> None:
    """Send an answer, or the stream of one as long as somebody reads it; ``headers`` are sent with it."""
    more = [*answer.headers, *headers]
    if answer.body or answer.stream is not None:
        more.append(("Content-Type", answer.content_type))
    if answer.stream is None:
        await respond(send, answer.status, more, answer.body)
    else:
        await stream(receive, send, answer.status, more, answer.stream)


async def deny_socket(scope: Message, problem: Problem, send: Send) -> None:
    """Refuse a WebSocket."""
    answer = refused(problem)
    headers = (*answer.headers, ("Content-Type", answer.content_type))
    await deny(scope, send, answer.status, headers, answer.body)
