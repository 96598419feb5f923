"""A model made of rules: it answers what it was given sentences for, and nothing else.

It needs no account and no network, always says the same, and calls tools like any other model, so a
whole agent can be run, shown and tested with it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import ConfigurationError
from dialog.llm.llm import LLM, Entry, Finish, Item, LLMEvent, LLMRequest, TextDelta, ToolCall, ToolResult, Usage

__all__ = ["Rule", "RuleLLM"]

Arguments: TypeAlias = Mapping[str, Any] | Callable[["re.Match[str]"], Mapping[str, Any]]
Condition: TypeAlias = Callable[[Sequence[Item]], bool]

_WORD = re.compile(r"\s*\S+(?:\s+$)?")
_TEMPLATE = re.compile(r"\{(\w+)\}")


class Rule(Struct, frozen=True, kw_only=True):
    r"""What to do about an utterance that a pattern matches.

    ::

        Rule(
            pattern=r"table for (?P<people>\d+)",
            tool="book_table",
            arguments={"people": "{people}"},
            result="Done: {result}.",
        )

    Raises:
        ConfigurationError: It neither replies nor calls a tool, or its pattern is no regular expression.
    """

    pattern: str
    """Regular expression, searched in the caller's words without regard to case."""
    reply: str | None = None
    """What to say; ``{group}`` stands for a named group. With a tool, said before it is called."""
    tool: str | None = None
    """Name of the tool to call."""
    arguments: Arguments = msgspec.field(default_factory=dict[str, Any])
    """Of the tool: a mapping, in whose texts ``{group}`` stands for a named group, or a function of
    the match. A group that matched nothing leaves its argument out."""
    result: str = "{result}"
    """What to say when the tool has answered; ``{result}`` is its answer."""
    failure: str = "I am sorry, that did not work."
    """What to say when it failed; ``{result}`` is why."""
    when: Condition | None = None
    """Looks at the conversation so far, its last item the utterance: does the rule apply?"""

    def __post_init__(self) -> None:
        if self.reply is None and self.tool is None:
            raise ConfigurationError(f"rule {self.pattern!r} has neither a reply nor a tool")
        try:
            re.compile(self.pattern)
        except re.error as exc:
            raise ConfigurationError(f"rule {self.pattern!r} is no regular expression: {exc}") from exc


class RuleLLM(LLM):
    """Answers by the first rule whose pattern is found in the caller's last words.

    When the conversation ends in tool results, it speaks them through their rules; when it ends in
    a ``system`` or ``developer`` entry after a reply, the rules are tried on that, and without one
    that fits nothing is said. A rule whose tool
    is not offered is passed over. The words come one by one, as from any model.

    Args:
        rules: In the order in which they are tried.
        fallback: Said when no rule fits.
        opening: Said when nobody has spoken yet.
        first_token_s: Wait before the first event.
        token_s: Wait before each further word.
        clock: On which the waits are measured.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        fallback: str = "I am sorry, I did not understand that.",
        opening: str = "Hello.",
        first_token_s: float = 0.0,
        token_s: float = 0.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._rules = tuple((rule, re.compile(rule.pattern, re.IGNORECASE)) for rule in rules)
        self._fallback = fallback
        self._opening = opening
        self._first_token_s = first_token_s
        self._token_s = token_s
        self._clock = clock

    async def stream(self, request: LLMRequest) -> AsyncIterator[LLMEvent]:
        """See :meth:`LLM.stream`; it never fails."""
        text, calls = self.answer(request)
        if self._first_token_s:
            await self._clock.sleep(self._first_token_s)
        words = _WORD.findall(text)
        for number, word in enumerate(words):
            if number and self._token_s:
                await self._clock.sleep(self._token_s)
            yield TextDelta(word)
        for call in calls:
            yield call
        heard = sum(len(item.text.split()) for item in request.items if isinstance(item, Entry))
        yield Usage(model="rules", input_tokens=heard, output_tokens=len(words))
        yield Finish("tool_calls" if calls else "stop")

    def answer(self, request: LLMRequest) -> tuple[str, list[ToolCall]]:
        """Return the words and the tool calls for a request; pure, for tests of rules."""
        items = request.items
        results = _last_results(items)
        if results:
            return " ".join(filter(None, (self._speak(items, result) for result in results))), []
        at = _last_user(items)
        if at is None:
            return self._opening, []
        news = _is_news(items)
        offered = {tool.name for tool in request.tools}
        found = self._find(items if news else items[: at + 1], offered)
        if found is None:
            return "" if news else self._fallback, []
        rule, match = found
        text = _filled(rule.reply or "", match.groupdict())
        if rule.tool is None:
            return text, []
        arguments = rule.arguments(match) if callable(rule.arguments) else _arguments(rule.arguments, match)
        made = sum(isinstance(item, ToolCall) for item in items)
        call = ToolCall(id=f"rule_{made}", name=rule.tool, arguments=msgspec.json.encode(arguments).decode())
        return text, [call]

    def _find(self, items: Sequence[Item], offered: set[str] | None) -> tuple[Rule, re.Match[str]] | None:
        entry = items[-1]
        assert isinstance(entry, Entry)
        for rule, pattern in self._rules:
            if offered is not None and rule.tool is not None and rule.tool not in offered:
                continue
            match = pattern.search(entry.text)
            if match and (rule.when is None or rule.when(items)):
                return rule, match
        return None

    def _speak(self, items: Sequence[Item], result: ToolResult) -> str:
        """Say a result in the words of the rule that asked for it."""
        at = _last_user(items)
        found = self._find(items[: at + 1], None) if at is not None else None
        rule, groups = (found[0], found[1].groupdict()) if found else (None, {})
        if rule is None or rule.tool != result.name:
            rule = next((rule for rule, _ in self._rules if rule.tool == result.name), None)
            groups = {}
        if rule is None:
            return result.content
        template = rule.result if result.state in ("done", "running") else rule.failure
        return _filled(template, {**groups, "result": result.content})


def _last_user(items: Sequence[Item]) -> int | None:
    for number in range(len(items) - 1, -1, -1):
        item = items[number]
        if isinstance(item, Entry) and item.role == "user":
            return number
    return None


def _is_news(items: Sequence[Item]) -> bool:
    """Whether the last thing is a fact that came after the caller had been answered."""
    if len(items) < 2 or not isinstance(items[-1], Entry) or items[-1].role not in ("system", "developer"):
        return False
    return not (isinstance(items[-2], Entry) and items[-2].role == "user")


def _last_results(items: Sequence[Item]) -> list[ToolResult]:
    results: list[ToolResult] = []
    for item in reversed(items):
        if isinstance(item, ToolResult):
            results.append(item)
        elif results or not (isinstance(item, Entry) and item.role == "assistant"):
            # What a tool itself has said (``dispatch_message``) stands behind its result.
            break
    return results[::-1]


def _filled(template: str, groups: Mapping[str, str | None]) -> str:
    """Put groups into a template; what is no group stays as it is, also a lone brace."""
    return _TEMPLATE.sub(lambda hit: (groups[hit[1]] or "") if hit[1] in groups else hit[0], template)


def _arguments(template: Mapping[str, Any], match: re.Match[str]) -> dict[str, Any]:
    groups = match.groupdict()
    arguments: dict[str, Any] = {}
    for name, value in template.items():
        if isinstance(value, str):
            group = _TEMPLATE.fullmatch(value)
            if group and group[1] in groups and groups[group[1]] is None:
                continue
            arguments[name] = _filled(value, groups)
        else:
            arguments[name] = value
    return arguments
