"""Evaluates an agent: does it answer, how fast, does it let itself be interrupted, do customers get what they want?

::

    result = await evaluate(on_voip, seed=7)
    assert result.passed, result.problems

The agent is the user's own, with its own model and tools. A simulated caller rings it up through a
gateway, once for each scenario. Ears and voice are emulated, so that the caller's words arrive as they
were said, and what the caller heard can be read; with ``own_speech`` they are the agent's own. In a simulation the
caller is an agent itself, a customer with a goal.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from xml.sax.saxutils import escape, quoteattr

import msgspec
from msgspec import Struct

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import ConfigurationError
from dialog.llm.llm import LLM
from dialog.stt.stt import STT
from dialog.testing.evaluate_stage import Site, Target, UserStage, open_site
from dialog.testing.evaluate_talks import Cast, check_cast, simulate, together
from dialog.testing.llm_judge import LLMJudge
from dialog.testing.scenario import At, Expect, HangUp, Listen, Noise, Say, Scenario, WaitEnd
from dialog.testing.scenario_check import check
from dialog.testing.scenario_outcome import Outcome
from dialog.testing.scenario_run import run_scenario
from dialog.testing.simulation import Simulation, SimulationResult
from dialog.tts.tts import TTS

__all__ = ["EVALUATION", "Evaluation", "ScenarioResult", "Thresholds", "evaluate"]


_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _scenario(name: str, guards: str, *steps: object, **expect: object) -> Scenario:
    # What an agent says, and how its call ends, is its own business; how fast it is, the thresholds judge.
    usual = {"ends": ".*", "errors": None, "latency_ms": 10_000.0, "dead_air_s": 10.0}
    greeting = Listen(optional=True, timeout_s=5)
    return Scenario(
        name=name,
        guards=guards,
        steps=(greeting, *steps),  # type: ignore[arg-type]
        expect=Expect(**{**usual, **expect}),  # type: ignore[arg-type]
    )


EVALUATION: tuple[Scenario, ...] = (
    _scenario(
        "two questions",
        "every question is answered",
        Say(text="hello, I have a question, can you help me?"),
        Listen(),
        Say(text="what can you do for me?"),
        Listen(),
        HangUp(),
    ),
    _scenario(
        "pause in mid-sentence",
        "a pause to think is no end",
        Say(text="I would like to know [0.8] what you can do for me."),
        Listen(),
        HangUp(),
    ),
    _scenario(
        "long utterance",
        "nobody talks into a caller who speaks at length",
        Say(
            text="well it is a long story, [0.2] we have been thinking about this for a while, [0.2] my sister and I, "
            "and now we would really like to know [0.2] what you can do for us."
        ),
        Listen(),
        HangUp(),
    ),
    _scenario(
        "interruption",
        "an agent that is talked over falls silent, and answers",
        Say(text="please tell me everything that you can do for me."),
        Say(text="stop please, just tell me the most important thing.", at=At(reply_ms=(300, 500))),
        Listen(),
        HangUp(),
    ),
    _scenario(
        "interrupted twice",
        "so it does the second time",
        Say(text="please tell me everything that you can do for me."),
        Say(text="wait, what was the first thing?", at=At(reply_ms=(300, 500))),
        Say(text="and what was the second thing?", at=At(reply_ms=(300, 500))),
        Listen(),
        HangUp(),
    ),
    _scenario(
        "cough",
        "a noise is no words",
        Say(text="what can you do for me?"),
        Noise(at=At(reply_ms=(200, 400))),
        Listen(silence_ms=2500),
        HangUp(),
        interruptions=0,
    ),
    _scenario(
        "correction",
        "who corrects themselves is answered",
        Say(text="can you do something for my brother?"),
        Say(text="no wait, for my sister.", at=At(after_s=(0.5, 0.7))),
        Listen(),
        HangUp(),
    ),
    _scenario(
        "goodbye",
        "a call is ended when all is said, or nobody says anything any more",
        Say(text="thank you, that is all, goodbye."),
        WaitEnd(timeout_s=40),
        ends="(?!caller).*",
    ),
)
"""What fits every agent: nothing here depends on what it is for."""


class Thresholds(Struct, frozen=True, kw_only=True):
    """What the whole evaluation must reach; ``None``: it does not matter."""

    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = 2500.0
    """End of the caller's words to the agent's first sound."""
    dead_air_s: float | None = 4.0
    """Longest silence while it is the agent's turn."""
    answered: float = 1.0
    """Share of the questions that are answered."""
    interruptions: float = 1.0
    """Share of the interruptions that silence the agent in time."""


class ScenarioResult(Struct, frozen=True, kw_only=True):
    """One scenario: what was measured, and what is wrong."""

    name: str
    guards: str
    problems: tuple[str, ...]
    answered: int
    asked: int
    obeyed: int
    """Interruptions that silenced the agent in time …"""
    interruptions: int
    """… of so many."""
    dead_air_s: float
    latencies_ms: tuple[float, ...]
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    duration_s: float
    transcript: str
    """What the caller heard; empty with the agent's own speech."""

    @property
    def passed(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


class Evaluation(Struct, frozen=True, kw_only=True):
    """What came of all scenarios and simulations."""

    seed: int
    passed: bool
    problems: tuple[str, ...]
    """Thresholds that were missed; the scenarios have their own."""
    answered: int
    asked: int
    obeyed: int
    interruptions: int
    dead_air_s: float
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    scenarios: tuple[ScenarioResult, ...]
    simulations: tuple[SimulationResult, ...] = ()

    def to_json(self) -> bytes:
        """All of it as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2)

    def to_junit(self) -> bytes:
        """JUnit's XML: a test case for each scenario and simulation, and one for the thresholds."""
        cases = [(one.name, one.duration_s, one.problems, "") for one in self.scenarios]
        for each in self.simulations:
            talks = "\n\n".join("\n".join(map(str, run.lines)) for run in each.runs if not run.passed)
            cases.append((each.name, sum(run.duration_s for run in each.runs), each.problems, talks))
        cases.append(("thresholds", 0.0, self.problems, ""))
        failures = sum(bool(problems) for _, _, problems, _ in cases)
        seconds = sum(duration for _, duration, _, _ in cases)
        lines = ['<?xml version="1.0" encoding="UTF-8"?>']
        lines.append(
            f'<testsuite name="dialog evaluate" tests="{len(cases)}" failures="{failures}" errors="0" '
            f'time="{seconds:.3f}"><properties><property name="seed" value="{self.seed}"/></properties>'
        )
        for name, duration, problems, talks in cases:
            lines.append(f'<testcase classname="dialog.evaluate" name={_quoted(name)} time="{duration:.3f}">')
            if problems:
                lines.append(f"<failure message={_quoted(problems[0])}>{_escaped(chr(10).join(problems))}</failure>")
            if talks:
                lines.append(f"<system-out>{_escaped(talks)}</system-out>")
            lines.append("</testcase>")
        return "\n".join([*lines, "</testsuite>", ""]).encode()


def _escaped(text: str) -> str:
    """Text for XML, in which most control characters cannot be written at all: models and people say anything."""
    return escape(_NO_XML.sub("\ufffd", text))


def _quoted(text: str) -> str:
    return quoteattr(_NO_XML.sub("\ufffd", text))


async def evaluate(
    target: Target,
    *,
    scenarios: Sequence[Scenario] = EVALUATION,
    simulations: Sequence[Simulation] = (),
    seed: int | None = None,
    own_speech: bool = False,
    speed: float = 1.0,
    parallel: int = 4,
    thresholds: Thresholds | None = None,
    env: Mapping[str, str] | None = None,
    customer_llm: Callable[[], LLM] | None = None,
    customer_stt: Callable[[], STT] | None = None,
    customer_tts: Callable[[], TTS] | None = None,
    judges: Sequence[Callable[[], LLM]] = (),
    played: Callable[[str], object] | None = None,
) -> Evaluation:
    """Play scenarios and simulations against an agent, and judge it.

    Args:
        target: ``on_voip(voip)``, a ``TwilioGateway``, an aiohttp application with one, or a function
            without arguments, async or not, that makes one of these.
        scenarios: What the caller does; see :func:`dialog.testing.scenario.load_scenarios`.
        simulations: Customers, and what has to come of their calls; see
            :func:`dialog.testing.simulation.load_simulations`.
        seed: Varies the times by a tenth; another one each time by default. It is in the result.
        own_speech: Use the STT and TTS that the agent brings; the caller then speaks with espeak's voice
            (``local`` extra), and what was heard is not read.
        speed: So many times as fast; only for an agent whose model needs no real time. An application has
            a clock of its own, and no other speed than 1.
        parallel: So many calls at once.
        thresholds: What has to be reached.
        env: ``TWILIO_AUTH_TOKEN`` and ``WEBHOOK_URL`` of an application; the process's by default.
        customer_llm: Makes the model that plays the customers; without one they say the answers that they have.
        customer_stt: Makes a customer's ears, with ``own_speech``.
        customer_tts: Makes a customer's voice, with ``own_speech``.
        judges: Make the models that judge the criteria of simulations; the majority decides.
        played: Told the name of each scenario and simulation when it is over.

    Raises:
        ConfigurationError: The target takes no calls, made no agent, or something cannot be played against it.
        Refused: It did not take a call.
        MissingExtra: ``own_speech`` needs the ``local`` extra.
    """
    seed = random.randrange(1_000_000) if seed is None else seed
    clock = Clock(speed, SYSTEM_CLOCK.now)
    free = asyncio.Semaphore(parallel)
    cast = Cast(llm=customer_llm, stt=customer_stt, tts=customer_tts, judge=LLMJudge(*judges) if judges else None)

    async def one(scenario: Scenario, stage: UserStage) -> Outcome:
        async with free, stage.opened():
            outcome = await run_scenario(scenario, stage, seed=seed, spells=not own_speech)
        if not outcome.events:
            why = "on_voip has to activate one" if stage.raised is None else f"on_voip raised {stage.raised!r}"
            raise ConfigurationError(f"scenario {scenario.name!r}: the call got no agent: {why}") from stage.raised
        outcome.problems = check(scenario.expect, outcome)
        if played is not None:
            played(scenario.name)
        return outcome

    async def talk(simulation: Simulation, site: Site) -> SimulationResult:
        result = await simulate(simulation, site, cast, free)
        if played is not None:
            played(simulation.name)
        return result

    async with open_site(target, clock, own_speech=own_speech, env=os.environ if env is None else env) as site:
        for simulation in simulations:
            check_cast(simulation, cast, site)
        outcomes = await together(one(scenario, UserStage(site)) for scenario in scenarios)
        talked = await together(talk(simulation, site) for simulation in simulations)
    results = [_result(scenario, outcome) for scenario, outcome in zip(scenarios, outcomes, strict=True)]
    return _judge(results, talked, seed, thresholds or Thresholds())


def _result(scenario: Scenario, outcome: Outcome) -> ScenarioResult:
    aimed = [sound for sound in outcome.sounds if sound.over_reply and sound.text]
    stops = [stop for sound, stop in outcome.interruptions if sound in aimed]
    return ScenarioResult(
        name=scenario.name,
        guards=scenario.guards,
        problems=tuple(outcome.problems),
        answered=outcome.answered,
        asked=outcome.asked,
        obeyed=sum(stop <= scenario.expect.stops_ms for stop in stops),
        interruptions=len(stops),
        dead_air_s=round(max(outcome.dead_air_ms, default=0.0) / 1000, 3),
        latencies_ms=tuple(round(latency, 1) for latency in outcome.latencies_ms),
        latency_p50_ms=_percentile(outcome.latencies_ms, 50),
        latency_p95_ms=_percentile(outcome.latencies_ms, 95),
        duration_s=round(outcome.duration_ms / 1000, 3),
        transcript=outcome.transcript,
    )


def _judge(
    results: Sequence[ScenarioResult], talked: Sequence[SimulationResult], seed: int, thresholds: Thresholds
) -> Evaluation:
    runs = [run for each in talked for run in each.runs]
    latencies = [latency for one in results for latency in one.latencies_ms]
    latencies += [latency for run in runs for latency in run.latencies_ms]
    p50, p95 = _percentile(latencies, 50), _percentile(latencies, 95)
    dead_air_s = max([one.dead_air_s for one in results] + [run.dead_air_s for run in runs], default=0.0)
    answered, asked = sum(one.answered for one in results), sum(one.asked for one in results)
    obeyed, interruptions = sum(one.obeyed for one in results), sum(one.interruptions for one in results)
    problems: list[str] = []
    for what, value, limit, unit in (
        ("latency p50", p50, thresholds.latency_p50_ms, "ms"),
        ("latency p95", p95, thresholds.latency_p95_ms, "ms"),
        ("dead air", dead_air_s, thresholds.dead_air_s, "s"),
    ):
        if value is not None and limit is not None and value > limit:
            problems.append(f"{what} of {value:g} {unit}: more than {limit:g}")
    if asked and answered < thresholds.answered * asked:
        problems.append(f"{answered} of {asked} answered: less than {thresholds.answered:.0%}")
    if interruptions and obeyed < thresholds.interruptions * interruptions:
        problems.append(f"{obeyed} of {interruptions} interruptions obeyed: less than {thresholds.interruptions:.0%}")
    return Evaluation(
        seed=seed,
        passed=not problems and all(one.passed for one in results) and all(each.passed for each in talked),
        problems=tuple(problems),
        answered=answered,
        asked=asked,
        obeyed=obeyed,
        interruptions=interruptions,
        dead_air_s=dead_air_s,
        latency_p50_ms=p50,
        latency_p95_ms=p95,
        scenarios=tuple(results),
        simulations=tuple(talked),
    )


def _percentile(values: Sequence[float], percent: int) -> float | None:
    """The middle one, or the nearest rank; ``None`` of nothing."""
    if not values:
        return None
    if percent == 50:
        return round(median(values), 1)
    ordered = sorted(values)
    return round(ordered[max(0, -(-len(ordered) * percent // 100) - 1)], 1)
