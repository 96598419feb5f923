"""The models of all vendors, each with its emulator, its SDK's client and its words for the same things."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anthropic
import openai

from dialog.llm.anthropic import AnthropicLLM
from dialog.llm.llm import LLM, Entry, LLMEvent, LLMRequest, TextDelta, ToolCall, ToolSpec
from dialog.llm.openai import OpenAILLM
from dialog.llm.responses import ResponsesLLM
from dialog.testing.anthropic import AnthropicEmulator
from dialog.testing.model import ModelEmulator
from dialog.testing.openai import OpenAIEmulator
from dialog.testing.responses import ResponsesEmulator

ASK = LLMRequest(items=(Entry(role="user", text="Hello?"),))
SPEC = ToolSpec(
    name="book",
    description="Book a table.",
    parameters='{"type":"object","properties":{"people":{"type":"integer"},"note":{"type":"string"}},"required":["people"],"additionalProperties":false}',
)


@dataclass(frozen=True, kw_only=True)
class Vendor:
    name: str
    emulator: type[Any]
    llm: type[Any]
    client: type[Any]
    path: str
    length: str
    """Its word for a reply that was cut by its length."""
    filtered: str
    """Its word for a reply that was stopped by a filter."""
    overloaded: dict[str, Any] = field(default_factory=dict)
    """An error in the stream that may pass."""
    too_long: dict[str, Any] = field(default_factory=dict)
    """An error in the stream that will not."""


CHAT = Vendor(
    name="chat",
    emulator=OpenAIEmulator,
    llm=OpenAILLM,
    client=openai.AsyncOpenAI,
    path="/v1/chat/completions",
    length="length",
    filtered="content_filter",
    overloaded={"message": "The server had an error", "type": "server_error", "code": None},
    too_long={"message": "too long", "code": "context_length_exceeded"},
)
RESPONSES = Vendor(
    name="responses",
    emulator=ResponsesEmulator,
    llm=ResponsesLLM,
    client=openai.AsyncOpenAI,
    path="/v1/responses",
    length="max_output_tokens",
    filtered="content_filter",
    overloaded={"message": "The server had an error", "code": "server_error"},
    too_long={"message": "too long", "code": "context_length_exceeded", "type": "error"},
)
ANTHROPIC = Vendor(
    name="anthropic",
    emulator=AnthropicEmulator,
    llm=AnthropicLLM,
    client=anthropic.AsyncAnthropic,
    path="/v1/messages",
    length="max_tokens",
    filtered="refusal",
    overloaded={"type": "overloaded_error", "message": "Overloaded"},
    too_long={"type": "invalid_request_error", "message": "prompt is too long"},
)
VENDORS = (CHAT, RESPONSES, ANTHROPIC)


@dataclass(frozen=True)
class Setup:
    """A vendor's model over Dialog's own connections, or through a client that the user configured."""

    vendor: Vendor
    injected: bool

    @property
    def id(self) -> str:
        return self.vendor.name + (" client" if self.injected else "")

    def emulator(self, *arguments: Any, **settings: Any) -> Any:
        return self.vendor.emulator(*arguments, **settings)

    @asynccontextmanager
    async def connect(self, emulator: ModelEmulator, **settings: Any) -> AsyncIterator[Any]:
        place: Any = emulator
        key = settings.pop("api_key", emulator.api_key)
        base_url = settings.pop("base_url", place.base_url)
        if not self.injected:
            llm = self.vendor.llm(api_key=key, base_url=base_url, **settings)
            try:
                yield llm
            finally:
                await llm.close()
            return
        retries = settings.pop("max_retries", 1)
        async with self.vendor.client(api_key=key, base_url=base_url, max_retries=retries) as client:
            llm = self.vendor.llm(client=client, **settings)
            try:
                yield llm
            finally:
                await llm.close()


SETUPS = [Setup(vendor, injected) for vendor in VENDORS for injected in (False, True)]


async def collect(llm: LLM, request: LLMRequest = ASK, *, into: list[LLMEvent] | None = None) -> list[LLMEvent]:
    """All events of a reply; ``into`` keeps those that came before a failure."""
    events = [] if into is None else into
    async with asyncio.timeout(10):
        async for event in llm.stream(request):
            events.append(event)
    return events


def spoken(events: list[LLMEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def calls(events: list[LLMEvent]) -> list[ToolCall]:
    return [event for event in events if isinstance(event, ToolCall)]


async def nothing_left() -> None:
    """No task but this one is running any more."""
    async with asyncio.timeout(3):
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
