"""How a conversation with Dialog feels, in figures, each beside what it should reach.

``python benchmarks/conversation.py`` takes about three minutes, ``--quick`` about one. Calls through the real
gateway, with emulated providers on loopback, run on a clock four times as fast; calls on a line in memory
run in virtual time. Times vary with the seed, which is printed. How fast an interruption reaches the line
is a matter of microseconds: ``run.py`` measures it in real time.
"""

import argparse
import asyncio
import contextlib
import io
import itertools
import logging
import os
import random
import re
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from uuid import uuid4

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import conversation_line as line  # noqa: E402
import vad  # noqa: E402
from msgspec.structs import replace  # noqa: E402
from run import prefer  # noqa: E402

from dialog.agent.settings import AgentSettings  # noqa: E402
from dialog.agent.turns import signals as sig  # noqa: E402
from dialog.agent.turns.settings import Endpointing, TurnSettings  # noqa: E402
from dialog.agent.turns.taking import TurnTaking  # noqa: E402
from dialog.calls.events import AgentSaid, SpeculationEnded  # noqa: E402
from dialog.message import Utterance  # noqa: E402
from dialog.testing.scenario import At, Expect, HangUp, Listen, Say  # noqa: E402
from dialog.testing.scenario_case import Case, case  # noqa: E402
from dialog.testing.scenario_house import Reply  # noqa: E402
from dialog.testing.scenario_library import LIBRARY, play  # noqa: E402
from dialog.testing.scenario_outcome import Outcome  # noqa: E402
from dialog.testing.scenario_providers import Ears  # noqa: E402

CUTS_A_CALL = 8
_DEAD_MS = 2000.0
FINISHED = (
    "Yes.", "yeah", "No, thanks", "two", "Four of us", "on Tuesday", "at half past seven", "Friday at eight, please.",
    "A table for two tonight", "My name is Miller.", "M I L L E R", "It is under Jones", "That's all I need",
    "What are your opening hours?", "do you have anything with fish", "can I bring my dog", "Nobody is allergic.",
    "My number is 555 123 4567", "it is 12 Baker Street", "for six people", "I would like to book a table.",
    "no wait make it six", "Cancel it please", "is there parking nearby", "I will call again later", "that works",
    "the window seat if you have one", "Yes it is", "tomorrow", "20 dollars is fine", "I don't know",
)  # fmt: skip
"""What callers answer, as finished as it comes: no pause is to be added to the recogniser's."""
ASKED = (
    "what are your opening hours", "a table for two tonight please", "do you have anything with fish",
    "can I bring my dog", "is there parking nearby", "tell me about your restaurant",
)  # fmt: skip


def quantile(values: Iterable[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")


class Table:
    """The figures as they come, then all of them in Markdown."""

    def __init__(self) -> None:
        self.lines = ["| what | measured | to reach | |", "|---|---:|---|---|"]
        self.missed = 0

    def put(self, name: str, measured: str, target: str = "", good: bool | None = None) -> None:
        verdict = "" if good is None else "reached" if good else "MISSED"
        self.missed += good is False
        self.lines.append(f"| {name} | {measured} | {target} | {verdict} |")
        print(f"  {name}: {measured} {f'({target}: {verdict})' if verdict else ''}", file=sys.stderr, flush=True)


# What was heard, and what history says was heard.


def cutting(number: int, *, timings: bool, count: int) -> Case:
    """A call in which each reply is interrupted at a random instant."""
    cuts = tuple(Say(text="no wait tell me again", at=At(reply_ms=(200, 5000))) for _ in range(count))
    return case(
        f"cuts {number}",
        "",
        Say(text="tell me about your restaurant"),
        *cuts,
        HangUp(at=At(reply_ms=(900, 1500))),
        expect=Expect(errors=None),
        replies=(Reply(match="", text=line.STORY),),
        timings=timings,
    )


async def heard_over_sockets(table: Table, seed: int, *, calls: int) -> None:
    for timings, limit in ((True, 1), (False, 2)):
        cases = [cutting(number, timings=timings, count=CUTS_A_CALL) for number in range(calls)]
        # Once each: a call that is played again until it is good would make the figures better than they are.
        outcomes = await play(cases, seed=seed, parallel=20, attempts=1)
        differ: list[int] = []
        for outcome in outcomes:
            events = [event for event in outcome.events if isinstance(event, AgentSaid)]
            cut = {(event.turn, event.part) for event in events if event.state == "cut"}
            differ += [part.word_diff for part in outcome.parts if (part.turn, part.part) in cut]
        words(table, f"through the gateway, {'with' if timings else 'without'} word timings", differ, limit)
        note_stalls(outcomes)


def heard_on_a_line(table: Table, seed: int, *, calls: int) -> None:
    for timings, limit in ((True, 1), (False, 2)):
        differ = [one for number in range(calls) for one in line.cuts(seed + number, timings=timings)]
        name = f"on lines with 20 to 200 ms round trip and jitter, {'with' if timings else 'without'} word timings"
        words(table, name, differ, limit)


def words(table: Table, name: str, differ: Sequence[int], limit: int) -> None:
    p95 = quantile(differ, 0.95)
    table.put(
        f"words that history and the line differ by after {len(differ)} cuts, {name}, p50 / p95 / most",
        f"{quantile(differ, 0.5):.0f} / {p95:.0f} / {max(differ, default=0)}",
        f"p95 <= {limit}",
        p95 <= limit,
    )


def note_stalls(outcomes: Sequence[Outcome]) -> None:
    worst = max(outcome.stall_ms for outcome in outcomes)
    print(f"    (the machine stood still for up to {worst:.0f} ms of the calls' clock)", file=sys.stderr)


# False interruptions.


def false_interruptions(table: Table, seed: int, *, calls: int) -> None:
    for timings in (True, False):
        costs = [line.false_interruption(seed + number, timings=timings) for number in range(calls)]
        beyond = [ms for ms, _ in costs]
        lost = [count for _, count in costs]
        name = f"false interruption, {calls} calls, {'with' if timings else 'without'} word timings"
        table.put(
            f"{name}: silence beyond its detection, p50 / p95 / most",
            f"{quantile(beyond, 0.5):.0f} / {quantile(beyond, 0.95):.0f} / {max(beyond):.0f} ms",
            "<= 300 ms",
            max(beyond) <= 300,
        )
        table.put(
            f"{name}: words lost or said again, mean / most",
            f"{statistics.mean(lost):.2f} / {max(lost)}",
            "<= 1",
            max(lost) <= 1,
        )


# Latency: how long an answer waits, and what speculation saves.


def waits(table: Table) -> None:
    """What endpointing adds to the recogniser's own end of an utterance."""
    longest, worst = 0.0, ""
    for text in FINISHED:
        taking, now = TurnTaking(), 100.0
        uuid = uuid4()
        taking.feed(sig.LineUp(), now)
        taking.feed(sig.SpeechStarted(), now)
        decisions = taking.feed(sig.Final(Utterance(uuid=uuid, data=text)), now + 1.0)
        begun = now + 1.0
        while not any(isinstance(decision, sig.Infer) for decision in decisions) and taking.deadline is not None:
            begun = taking.deadline
            decisions = taking.feed(sig.Tick(), begun)
        if begun - now - 1.0 > longest:
            longest, worst = begun - now - 1.0, text
    table.put(
        f"what endpointing adds to the recogniser's end of {len(FINISHED)} finished answers, most",
        f"{longest * 1000:.0f} ms{f' ({worst})' if longest else ''}",
        "0 ms",
        longest == 0,
    )


def asking(number: int, **setup: object) -> Case:
    steps: list[object] = []
    for text in ASKED:
        steps += [Say(text=text), Listen(silence_ms=500)]
    expect = Expect(errors=None)
    return case(f"asked {number}", "", *steps, HangUp(), expect=expect, otherwise="Of course.", **setup)


def local(after_s: float | None) -> AgentSettings:
    return AgentSettings(vad="local", turns=TurnSettings(endpointing=Endpointing(speculate_after_s=after_s)))


async def speculation_saves(table: Table, seed: int, *, calls: int) -> None:
    variants: tuple[tuple[str, dict[str, object], dict[str, object], str], ...] = (
        ("eager end after 150 ms, final after 600 ms", {"endpointing_ms": 600}, {"ears": Ears(eager_s=0.15)}, "x"),
        ("eager end after 150 ms, final after 300 ms", {"endpointing_ms": 300}, {"ears": Ears(eager_s=0.15)}, ""),
        ("local endpointing", {"settings": local(None)}, {"settings": local(0.1)}, "x"),
    )
    setups = [setup for _, without, extra, _ in variants for setup in (without, {**without, **extra})]
    played = await play([asking(number, **setup) for setup in setups for number in range(calls)], seed=seed)
    groups = [played[start : start + calls] for start in range(0, len(played), calls)]
    for (name, *_, wanted), waiting, speculating in zip(variants, groups[::2], groups[1::2], strict=True):
        p50 = [
            quantile([ms for outcome in group for ms in outcome.latencies_ms], 0.5) for group in (waiting, speculating)
        ]
        ended = [event for outcome in speculating for event in outcome.events if isinstance(event, SpeculationEnded)]
        gain = p50[0] - p50[1]
        table.put(
            f"end of speech -> first audio, {name}: waiting / speculating, p50",
            f"{p50[0]:.0f} / {p50[1]:.0f} ms, saved {gain:.0f} ms, "
            f"{sum(event.outcome == 'wasted' for event in ended)} of {len(ended)} wasted",
            ">= 200 ms saved" if wanted else "",
            gain >= 200 if wanted else None,
        )


# The library.


def noisy_ms(outcome: Outcome, silence_ms: float) -> float:
    """For how much of a silence of the agent's the caller's side made a noise: nobody takes that for a dead line."""
    for before, after in itertools.pairwise(outcome.stretches):
        begin, end = before.ended_ms, after.started_ms
        if abs(end - begin - silence_ms) < 50:
            noises = (sound for sound in outcome.sounds if not sound.text)
            return sum(max(0.0, min(end, noise.ended_ms) - max(begin, noise.started_ms)) for noise in noises)
    return 0.0


async def library(table: Table, seed: int) -> None:
    outcomes = await play(LIBRARY, seed=seed)
    held = sum(not outcome.problems for outcome in outcomes)
    table.put(f"scenarios of the library that hold, of {len(outcomes)}", f"{held}")
    silences = [(ms, outcome.scenario) for outcome in outcomes for ms in outcome.dead_air_ms]
    dead = [
        f"{outcome.scenario} ({ms:.0f} ms)"
        for outcome in outcomes
        for ms in outcome.dead_air_ms
        if ms > _DEAD_MS and ms - noisy_ms(outcome, ms) > _DEAD_MS
    ]
    table.put(
        f"dead air in the library, {len(silences)} silences of the agent's, p50 / p95 / most",
        f"{quantile([ms for ms, _ in silences], 0.5):.0f} / {quantile([ms for ms, _ in silences], 0.95):.0f} / "
        f"{max(silences)[0]:.0f} ms",
    )
    table.put("... over 2 s without filler or apology", f"{len(dead)} {'; '.join(dead)}".strip(), "none", not dead)


def eager(one: Case) -> Case:
    """The same with ears that tell early ends; what was begun in vain is counted by itself."""
    ears = replace(one.setup.ears, eager_s=one.setup.ears.eager_s or 0.15)
    scenario = replace(one.scenario, expect=replace(one.scenario.expect, dropped=None))
    return Case(scenario=scenario, setup=replace(one.setup, ears=ears))


async def speculation_wastes(table: Table, seed: int) -> None:
    """The library again, every ear telling early ends."""
    outcomes = await play([eager(one) for one in LIBRARY], seed=seed)
    ended = [
        (event.outcome, outcome.scenario)
        for outcome in outcomes
        for event in outcome.events
        if isinstance(event, SpeculationEnded)
    ]
    wasted = [scenario for outcome, scenario in ended if outcome == "wasted"]
    saved = len(ended) - len(wasted)
    share = len(wasted) / max(1, len(ended))
    where = ", ".join(f"{wasted.count(name)} in {name!r}" for name in dict.fromkeys(wasted))
    table.put(
        "replies begun early in the library: used / wasted",
        f"{saved} / {len(wasted)}, {share:.0%} wasted{f' ({where})' if where else ''}",
        "< 20 %",
        share < 0.2,
    )
    failed = [f"{outcome.scenario}: {'; '.join(outcome.problems)}" for outcome in outcomes if outcome.problems]
    table.put("scenarios that hold with early ends, too", f"{len(outcomes) - len(failed)} of {len(outcomes)}")
    for problem in failed:
        print(f"    {problem}", file=sys.stderr)


# The local VAD.


async def voices(table: Table) -> None:
    """The rows of ``vad.py`` that have a target, from its quick run."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        await vad.main(argparse.Namespace(quick=True, seed=1))
    for row in shown.getvalue().splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if len(cells) == 8 and "10 dB" in cells[1]:
            start = float(cells[2].split()[0])
            measured = f"{cells[2]}, {cells[3]} missed, {cells[5]} false starts a minute"
            table.put(f"{cells[0]}, {cells[1]}: start told, p50 / p95", measured, "p50 <= 100 ms", start <= 100)
        elif (
            found := re.match(r"(\w+): a call takes ([\d.]+) % of a core on the loop and ([\d.]+) %", row)
        ) is not None:
            loop, beside = float(found[2]), float(found[3])
            table.put(f"{found[1]}: a core's share per call", f"{loop + beside:.2f} %", "< 1.5 %", loop + beside < 1.5)


async def measure(arguments: argparse.Namespace) -> Table:
    quick, seed = arguments.quick, arguments.seed
    table = Table()
    print(f"seed {seed}", file=sys.stderr)
    waits(table)
    await library(table, seed)
    await speculation_wastes(table, seed)
    await speculation_saves(table, seed, calls=3 if quick else 10)
    await heard_over_sockets(table, seed, calls=8 if quick else 39)
    await voices(table)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer calls")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="of all times")
    arguments = parser.parse_args()
    prefer(os.getpid())
    # Emulators whose client has hung up in the middle of an answer, which is what an interruption does.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    started = time.monotonic()
    table = asyncio.run(measure(arguments))
    # On loops of their own.
    heard_on_a_line(table, arguments.seed, calls=5 if arguments.quick else 30)
    false_interruptions(table, arguments.seed, calls=20 if arguments.quick else 100)
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    print("\n".join(table.lines))


if __name__ == "__main__":
    main()
