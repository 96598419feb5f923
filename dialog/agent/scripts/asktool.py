"""A tool that asks the caller for one thing, and tells the model what it got."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from dialog.agent.agent import Agent
from dialog.agent.tools import tool
from dialog.answers.answer import Answer
from dialog.answers.forms import Form
from dialog.errors import NotUnderstood, Timeout

__all__ = ["ask_tool"]

T = TypeVar("T")

_TIMEOUT_S = 300.0


def ask_tool(
    name: str,
    prompt: str,
    answer: Answer[T] | Form,
    *,
    description: str = "",
    confirm: bool = False,
    private: bool = False,
    keep: Callable[[Any, Any], str | None] | None = None,
) -> Callable[[Agent], Coroutine[Any, Any, str]]:
    """Make a tool to be set in an agent's class: a script asks the caller, and the model gets the answer.

    ::

        class Desk(OpenAIAgent):
            ask_phone = ask_tool("ask_phone", "What is your telephone number?", answers.Phone("US"), confirm=True)

    Args:
        name: Of the tool.
        prompt: The question; of a form what is said before its own questions.
        answer: The kind of answer, or a form.
        description: Tells the model when to use it.
        confirm: Read the answer back; a form has its own way.
        private: Neither the answer nor what was said is told to the model: only what may be told to anybody.
        keep: Given the agent and the value; what it returns is told to the model instead.
    """

    async def ask(self: Agent) -> str:
        try:
            async with self.script(private=private) as call:
                if isinstance(answer, Form):
                    if prompt:
                        await call.say(prompt)
                    value: Any = await call.collect(answer)
                else:
                    value = await call.ask(prompt, answer, confirm=confirm)
        except (Timeout, NotUnderstood):
            return "the caller did not give an answer that would do"
        told = keep(self, value) if keep is not None else None
        if told is not None:
            return told
        return f"answered: {answer.masked(value) if private else _plain(answer, value)}"

    ask.__doc__ = description or f"Ask the caller, word for word: {prompt} Say nothing yourself before it."
    return tool(name=name, timeout_s=_TIMEOUT_S)(ask)


def _plain(answer: Answer[Any] | Form, value: Any) -> str:
    if isinstance(answer, Form):
        return ", ".join(f"{name}: {each}" for name, each in value.items())
    return str(value)
