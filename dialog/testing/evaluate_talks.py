"""Plays simulations against the user's agent: a customer rings it up, and the talk is judged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar
from uuid import uuid4

from msgspec import Struct

from dialog.agent.agent import Agent
from dialog.errors import ConfigurationError
from dialog.llm.llm import LLM
from dialog.stt.stt import STT
from dialog.testing.agent_caller import AgentCaller
from dialog.testing.agent_line import join_agents
from dialog.testing.call import CallSpec
from dialog.testing.evaluate_stage import Site, UserStage
from dialog.testing.judge import judge_talk
from dialog.testing.llm_judge import LLMJudge
from dialog.testing.persona import customer
from dialog.testing.simulation import Simulation, SimulationResult, SimulationRun
from dialog.testing.talk import AgentTalk, TalkRecorder
from dialog.tts.tts import TTS
from dialog.voip.voip import VoIP

__all__ = ["Cast", "check_cast", "simulate", "together"]

T = TypeVar("T")


class Cast(Struct, frozen=True, kw_only=True):
    """Who plays the customers, and who judges."""

    llm: Callable[[], LLM] | None = None
    """Makes the model that plays a customer; ``None``: their answers do."""
    stt: Callable[[], STT] | None = None
    """Makes a customer's ears, where the agent speaks with its own voice."""
    tts: Callable[[], TTS] | None = None
    judge: LLMJudge | None = None
    """Judges criteria; ``None``: there is only what rules can tell."""

    def customer(self, simulation: Simulation, *, own_speech: bool = False) -> Callable[[VoIP], Agent]:
        """What makes the customer of a call.

        Raises:
            ConfigurationError: Nobody can play the customer.
        """
        persona = simulation.persona
        llm = self.llm if persona.goal else None  # a persona of answers needs no model
        try:
            return customer(
                persona, llm=llm, stt=self.stt if own_speech else None, tts=self.tts if own_speech else None
            )
        except ConfigurationError as exc:
            raise ConfigurationError(f"simulation {simulation.name!r}: {exc}") from exc


def check_cast(simulation: Simulation, cast: Cast, site: Site) -> None:
    """Check that the simulation can be played and judged, before any call is placed.

    Raises:
        ConfigurationError: It cannot; the message says what is missing.
    """
    name = simulation.name
    cast.customer(simulation)
    if simulation.criteria and cast.judge is None:
        raise ConfigurationError(f"simulation {name!r} has criteria: name a model that judges them")
    if simulation.medium == "text" and site.on_voip is None:
        raise ConfigurationError(f"simulation {name!r}: by text only on_voip or a gateway is reached, no application")
    if simulation.medium == "voice" and site.own_speech and (cast.stt is None or cast.tts is None):
        raise ConfigurationError(
            f"simulation {name!r}: with the agent's own speech the customer needs an STT and a TTS as well"
        )


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all of ``work``, done at the same time; when one fails the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            if not task.cancelling():  # a second time would break off how it hangs up
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def simulate(simulation: Simulation, site: Site, cast: Cast, free: asyncio.Semaphore) -> SimulationResult:
    """Play all runs of ``simulation``, as many at once as ``free`` lets, and judge them.

    Raises:
        ConfigurationError: A call got no agent.
        Refused: The gateway did not take a call.
    """

    async def one() -> SimulationRun:
        async with free:
            play = _by_text if simulation.medium == "text" else _by_voice
            talk = await play(simulation, site, cast)
        return await judged(simulation, talk, cast.judge)

    runs = await together(one() for _ in range(simulation.runs))
    return SimulationResult(
        name=simulation.name,
        guards=simulation.guards,
        medium=simulation.medium,
        pass_rate=simulation.pass_rate,
        runs=tuple(runs),
    )


async def judged(simulation: Simulation, talk: AgentTalk, judge: LLMJudge | None) -> SimulationRun:
    """The verdict on one talk: of the rules, and of the models where there are criteria."""
    charges = judge_talk(talk, simulation.rules)
    if simulation.criteria:
        assert judge is not None, "it was checked"
        persona = simulation.persona
        about = f"{persona.who}; wants: {persona.goal}" if persona.goal else persona.who
        charges += await judge.judge(talk, simulation.criteria, about=about)
    return SimulationRun(
        charges=charges,
        ended_by=talk.ended_by,
        reason=talk.reason,
        duration_s=talk.duration_s,
        caller_turns=talk.caller_turns,
        latencies_ms=talk.latencies_ms,
        dead_air_s=talk.dead_air_s,
        lines=talk.lines,
    )


async def _by_text(simulation: Simulation, site: Site, cast: Cast) -> AgentTalk:
    assert site.on_voip is not None, "it was checked"
    return await join_agents(
        site.on_voip, cast.customer(simulation), medium="text", clock=site.clock, limits=simulation.limits
    )


async def _by_voice(simulation: Simulation, site: Site, cast: Cast) -> AgentTalk:
    recorder = TalkRecorder(site.clock)
    stage = _TalkStage(site, recorder)
    spec = CallSpec(
        url=stage.url,
        auth_token=stage.auth_token,
        account_sid=stage.account_sid,
        from_="+15551230001",
        to="+15551230002",
        clock=stage.clock,
        public_url=stage.public_url,
        call_sid=f"CA{uuid4().hex}",
    )
    caller = AgentCaller(spec, cast.customer(simulation, own_speech=site.own_speech), recorder)
    async with stage.opened():
        stage.dialled(caller)
        exceeded = await caller.hold(simulation.limits)
        await stage.call_over(caller.call_sid)
    if stage.agent(caller.call_sid) is None:
        why = "on_voip has to activate one" if stage.raised is None else f"on_voip raised {stage.raised!r}"
        raise ConfigurationError(f"simulation {simulation.name!r}: the call got no agent: {why}") from stage.raised
    return caller.talk(exceeded)


class _TalkStage(UserStage):
    """A stage whose agent is recorded."""

    def __init__(self, site: Site, recorder: TalkRecorder) -> None:
        super().__init__(site)
        self._recorder = recorder

    def take(self, agent: Agent) -> None:
        """An agent was made for this call."""
        if not self._agents:
            self._recorder.watch(agent.voip, "agent")
        super().take(agent)
