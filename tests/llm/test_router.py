"""A model chosen anew for every turn, and what an agent on such models tells of it."""

from __future__ import annotations

from typing import Any

import pytest
from vendors import ASK, collect, spoken

from dialog import Agent, FallbackLLM, RouterLLM, tool
from dialog.calls import events as ev
from dialog.errors import ConfigurationError, ProviderError, UserCodeError
from dialog.llm.llm import LLM, Entry, LLMRequest, ToolCall, ToolResult
from dialog.testing import ScriptedLLM, TextSession, ToolUse
from dialog.testing.doubles import HummingTTS


def user(text: str) -> Entry:
    return Entry(role="user", text=text)


def by_words(request: LLMRequest) -> str:
    texts = [item.text for item in request.items if isinstance(item, Entry) and item.role == "user"]
    return "clever" if "why" in texts[-1] else "quick"


def two() -> tuple[ScriptedLLM, ScriptedLLM]:
    return ScriptedLLM(lambda _: "Quick."), ScriptedLLM(lambda _: "Clever.")


async def test_every_turn_goes_to_the_model_that_was_named() -> None:
    quick, clever = two()
    llm = RouterLLM({"quick": quick, "clever": clever}, by_words)
    assert spoken(await collect(llm, LLMRequest(items=(user("hello"),)))) == "Quick."
    assert spoken(await collect(llm, LLMRequest(items=(user("hello"), user("why?"))))) == "Clever."
    assert (llm.name, repr(llm)) == ("RouterLLM(quick, clever)", "<RouterLLM quick, clever>")


async def test_a_turn_stays_with_its_model_while_its_tools_work() -> None:
    asked: list[LLMRequest] = []
    quick, clever = two()

    def alternating(request: LLMRequest) -> LLM:
        asked.append(request)
        return quick if len(asked) % 2 else clever

    llm = RouterLLM({"quick": quick}, alternating)
    step = (ToolCall(id="1", name="f", arguments="{}"), ToolResult(id="1", name="f", content="ok"))
    assert spoken(await collect(llm, LLMRequest(items=(user("hello"),)))) == "Quick."
    assert spoken(await collect(llm, LLMRequest(items=(user("hello"), *step)))) == "Quick."
    assert spoken(await collect(llm, LLMRequest(items=(user("hello"), *step, *step)))) == "Quick."
    assert len(asked) == 1
    assert spoken(await collect(llm, LLMRequest(items=(user("hello"), *step, user("and?"))))) == "Clever."
    assert spoken(await collect(llm, LLMRequest(items=(user("unseen"), *step)))) == "Quick."
    for number in range(300):
        await collect(llm, LLMRequest(items=(user(f"hello {number}"),)))
    assert len(llm._turns) == 256


async def test_a_wrong_name_and_a_route_that_raises_are_told() -> None:
    llm = RouterLLM({"quick": two()[0]}, lambda _: "slow")
    with pytest.raises(ConfigurationError, match="'slow'; there are quick"):
        await collect(llm, ASK)
    llm = RouterLLM({"quick": two()[0]}, lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
    with pytest.raises(UserCodeError, match="ZeroDivisionError"):
        await collect(llm, ASK)
    with pytest.raises(ConfigurationError):
        RouterLLM({}, by_words)


async def test_all_models_are_warmed_and_closed() -> None:
    done: list[str] = []

    class Noting(ScriptedLLM):
        def warm(self) -> None:
            done.append("warm")

        async def close(self) -> None:
            done.append("close")

    llm = RouterLLM({"a": Noting([]), "b": Noting([])}, by_words)
    llm.warm()
    await llm.close()
    assert done == ["warm", "warm", "close", "close"]


# -- on a call ----------------------------------------------------------------------------------------


class Desk(Agent):
    @tool
    async def book(self) -> str:
        """Book."""
        return "booked"


def session(llm: LLM) -> TextSession:
    def factory(voip: Any) -> None:
        Desk(voip=voip, tts=HummingTTS, llm=llm).activate()

    return TextSession(factory)


def switched(call: TextSession) -> list[tuple[str, str, str]]:
    return [(e.instead_of, e.provider, e.reason) for e in call.events if isinstance(e, ev.ProviderSwitched)]


async def test_the_events_of_a_call_tell_who_answered_instead_of_whom() -> None:
    down = ProviderError("a", "HTTP 500", retryable=True)
    llm = FallbackLLM([ScriptedLLM([down, "Fine."]), ScriptedLLM(["Well, hello."])])
    async with session(llm) as call:
        (await call.run("hello")).says("Well, hello")
        assert switched(call) == [("ScriptedLLM", "ScriptedLLM", "a: HTTP 500")]
        (await call.run("how are you")).says("Fine")
        event = next(e for e in call.events if isinstance(e, ev.ProviderSwitched))
        turns = [e.timeline.turn for e in call.events if isinstance(e, ev.TurnMeasured)]
        assert (event.kind, event.turn) == ("llm", turns[0])
        assert len(switched(call)) == 2


async def test_a_routed_turn_with_tools_is_one_models() -> None:
    quick = ScriptedLLM([ToolUse("book"), "Booked."])
    clever = ScriptedLLM(["Because."])
    async with session(RouterLLM({"quick": quick, "clever": clever}, by_words)) as call:
        (await call.run("a table")).calls("book").says("Booked")
        (await call.run("why?")).says("Because")
        assert len(clever.requests) == 1
