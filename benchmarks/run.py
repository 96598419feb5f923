"""Measure Dialog beside the bare bridge, and print each figure with its target.

``python benchmarks/run.py`` takes twenty minutes, ``--quick`` two minutes. The servers have core 0, callers and
emulators core 1. Both servers are measured in turn, row by row, so that a machine which slows down slows both of them.
As root it runs in a network namespace of its own with reno instead of bbr, under which loopback measurements go wild,
and goes before all other programs; what was measured while the machine itself stood still is measured again. The cores
are kept awake: one that sleeps between two frames takes a tenth of a millisecond to come back in a virtual machine,
which is the host's time and would be counted three times in every turn.
"""

import argparse
import asyncio
import gc
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvloop

HERE = Path(__file__).resolve().parent
INSIDE = "DIALOG_BENCH_INSIDE"
sys.path[:0] = [str(HERE), str(HERE.parent)]

from emulators import ACCOUNT, AUTH_TOKEN, Figures, World, now, settle, sum_of  # noqa: E402
from pauses import Pauses  # noqa: E402

Sides = dict[str, tuple[World, "Server"]]
TICKS = os.sysconf("SC_CLK_TCK")
_TRIES = 3
SERVERS = {"bare bridge": "bare_bridge.py", "Dialog": "dialog_server.py"}


def quantile(values: Iterable[float], q: float) -> float:
    """In milliseconds; NaN of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000 if ordered else float("nan")


def cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Awake:
    """Keeps the cores from sleeping, with a process on each that runs only when nobody else wants to."""

    pids: tuple[int, ...] = ()
    """Of those processes."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> None:
        # It steps back by itself, before all else: what it inherits goes before everybody, its starter too.
        spin = (
            "import os, sys\n"
            "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n"
            "os.sched_setaffinity(0, {int(sys.argv[1])})\n"
            "starter = os.getppid()\n"
            "while os.getppid() == starter:\n"
            "    for _ in range(1 << 20): pass"
        )
        for core in range(min(2, os.cpu_count() or 1)):
            self._processes.append(subprocess.Popen([sys.executable, "-c", spin, str(core)]))
        Awake.pids = tuple(process.pid for process in self._processes)

    def __exit__(self, *_: object) -> None:
        Awake.pids = ()
        for process in self._processes:
            process.kill()
            process.wait()


def busy_s() -> float:
    """Processor time of the whole machine so far, but for what keeps it awake."""
    user, nice, system, _, _, irq, soft, *_ = Path("/proc/stat").read_text().split(maxsplit=12)[1:]
    return sum(map(int, (user, nice, system, irq, soft))) / TICKS - sum(map(cpu_s, Awake.pids))


def prefer(pid: int) -> None:
    """Let a process go before what else runs on the machine, where we may: that is not what is measured."""
    with suppress(OSError):
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(10))
        return
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, -15)
        # Linux shares the processor among sessions first, and only then by priority.
        Path(f"/proc/{pid}/autogroup").write_text("-15")


class Server:
    """A server process on core 0."""

    def __init__(
        self, script: str, urls: dict[str, str], *, stall: bool = False, arguments: Sequence[str] = ()
    ) -> None:
        environment = os.environ | urls | {"TWILIO_ACCOUNT_SID": ACCOUNT, "TWILIO_AUTH_TOKEN": AUTH_TOKEN}
        environment["PYTHONPATH"] = str(HERE.parent)
        environment.pop("BENCH_STALL", None)
        if stall:
            environment["BENCH_STALL"] = "1"
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        os.sched_setaffinity(self.process.pid, {0})
        prefer(self.process.pid)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("LISTENING"):
            raise RuntimeError(f"{script} did not start: {line!r}")
        self.url = f"http://127.0.0.1:{line.split()[1]}/voice"
        self.pids = [self.process.pid, *map(int, line.split()[2:])]
        """The server's process, and those that it works with."""
        for pid in self.pids[1:]:
            prefer(pid)

    def cpus_s(self) -> list[float]:
        """Processor time of each of its processes so far."""
        return [cpu_s(pid) for pid in self.pids]

    def rss_mb(self) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Load:
    """One measurement: so many calls for so long."""

    figures: Figures = field(default_factory=Figures)
    cpu_per_minute: float = 0.0
    cpus_per_minute: list[float] = field(default_factory=list)
    """Of each process of the server."""
    rss_mb: float = 0.0
    others: float = 0.0
    """Cores that other programs of the machine used meanwhile: more than 0.1 disturbs the figures."""
    own_cpu: float = 0.0
    """How much of its core the load generator used: near 1 the figures mean nothing."""
    pauses: list[float] = field(default_factory=list)
    """How long the whole machine stood still meanwhile, in milliseconds each time: what is late is late by these."""


@asynccontextmanager
async def serving(script: str, *, stall: bool = False, world: World | None = None, arguments: Sequence[str] = ()):
    world = world or World()
    await world.open()
    server = await asyncio.to_thread(Server, script, world.urls, stall=stall, arguments=arguments)
    try:
        yield world, server
    finally:
        await asyncio.to_thread(server.stop)
        await world.close()


@asynccontextmanager
async def side_by_side(scripts: dict[str, str], *, stall: bool = False):
    """All servers at once, each with a world of its own: one is loaded while the others are idle."""
    async with AsyncExitStack() as stack:
        yield {who: await stack.enter_async_context(serving(script, stall=stall)) for who, script in scripts.items()}


async def load(
    world: World,
    server: Server,
    calls: int,
    seconds: float,
    *,
    first: int = 1,
    barge_in: bool = True,
    turn_s: float = 5.0,
) -> Load:
    """Let ``calls`` callers talk, and measure for ``seconds`` once all of them are there."""
    # A full collection takes the load generator a tenth of a second, in which its voices give no audio.
    gc.collect()
    gc.disable()
    try:
        return await _load(world, server, calls, seconds, first=first, barge_in=barge_in, turn_s=turn_s)
    finally:
        gc.enable()


async def _load(
    world: World, server: Server, calls: int, seconds: float, *, first: int, barge_in: bool, turn_s: float
) -> Load:
    out, pauses = Load(), Pauses()
    callers = await settle(
        world,
        server.url,
        calls,
        first=first,
        over_s=min(20.0, calls * 0.05),
        barge_in=barge_in,
        turn_s=turn_s,
        turns=None,
    )
    setup = world.figures.greeting
    await asyncio.sleep(2.5)
    world.figures = out.figures
    out.figures.greeting = setup
    pauses.start()
    cpus, own, busy, started = server.cpus_s(), time.process_time(), busy_s(), now()
    await asyncio.sleep(seconds)
    elapsed = now() - started
    each = [after - before for after, before in zip(server.cpus_s(), cpus, strict=True)]
    served, own = sum(each), time.process_time() - own
    out.cpus_per_minute = [used / (calls * elapsed / 60) for used in each]
    out.cpu_per_minute = sum(out.cpus_per_minute)
    out.own_cpu = own / elapsed
    out.others = max(0.0, busy_s() - busy - served - own) / elapsed
    out.rss_mb = server.rss_mb()
    out.pauses = pauses.stop()
    for caller in callers:
        caller.hang_up()
    await asyncio.sleep(0.5)
    return out


async def calm_load(*args: Any, first: int = 1, **options: Any) -> Load:
    """The same, again when the machine stood still meanwhile: at most three times, and then the calmest."""
    tries = []
    for attempt in range(_TRIES):
        tries.append(await load(*args, first=first + 10_000 * attempt, **options))
        if not tries[-1].pauses:
            break
    return min(tries, key=lambda tried: sum(tried.pauses))


async def churn(world: World, server: Server, calls: int, *, first: int, at_once: int) -> None:
    """Short calls, one after another."""
    gate = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with gate:
            (caller,) = await settle(
                world, server.url, 1, first=number, over_s=0.0, barge_in=False, turn_s=0.2, turns=0
            )
            loop = asyncio.get_running_loop()
            loop.call_later(0.3, caller.hang_up)
            await caller.over

    await asyncio.gather(*(one(first + index) for index in range(calls)))
    await asyncio.sleep(2.0)


@dataclass
class Row:
    name: str
    unit: str
    target: str
    values: dict[str, float] = field(default_factory=dict)
    limit: float | None = None
    ratio: float | None = None
    """Of the bare bridge's figure, at most."""
    least: float | None = None

    def verdict(self) -> str:
        ours, bare = self.values.get("Dialog"), self.values.get("bare bridge")
        if ours is None or ours != ours or not self.target or (self.ratio is not None and bare is None):
            return ""
        good = (
            (self.limit is None or ours <= self.limit)
            and (self.least is None or ours >= self.least)
            and (self.ratio is None or bare is None or ours <= self.ratio * bare)
        )
        return "reached" if good else "MISSED"


class Table:
    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def put(self, who: str, name: str, value: float, unit: str, target: str = "", **bounds: float) -> None:
        row = self.rows.setdefault(name, Row(name, unit, target, **bounds))  # type: ignore[arg-type]
        row.values[who] = value
        print(f"  {who}: {name} {value:.3g} {unit}", file=sys.stderr, flush=True)

    def __str__(self) -> str:
        lines = [
            "| what | bare bridge | Dialog | ratio | to reach | |",
            "|---|---:|---:|---:|---|---|",
        ]
        for row in self.rows.values():
            bare, ours = row.values.get("bare bridge"), row.values.get("Dialog")
            show = [
                f"{value:.3g} {row.unit}" if value is not None and value == value else "-" for value in (bare, ours)
            ]
            ratio = f"{ours / bare:.2f}" if bare and ours and bare == bare and ours == ours else ""
            lines.append(f"| {row.name} | {show[0]} | {show[1]} | {ratio} | {row.target} | {row.verdict()} |")
        return "\n".join(lines)


async def alternately(
    sides: Sides, calls: int, seconds: float, *, rounds: int, first: int = 1, **options: Any
) -> dict[str, Load]:
    """Load every server in turn, in both orders, and add up each one's: a machine that slows down slows all of them."""
    parts: dict[str, list[Load]] = {who: [] for who in sides}
    for number in range(rounds):
        for who, (world, server) in reversed(sides.items()) if number % 2 else sides.items():
            part = await calm_load(world, server, calls, seconds / rounds, first=first + number * calls, **options)
            note(who, calls, part)
            parts[who].append(part)
    return {who: added_up(loads) for who, loads in parts.items()}


def added_up(loads: list[Load]) -> Load:
    """Loads that were as long as each other, as one."""
    whole = replace(loads[-1], figures=sum_of([part.figures for part in loads]))
    each = zip(*(part.cpus_per_minute for part in loads), strict=True)
    whole.cpus_per_minute = [sum(used) / len(loads) for used in each]
    whole.cpu_per_minute = sum(whole.cpus_per_minute)
    return whole


async def measure(scripts: dict[str, str], table: Table, *, quick: bool) -> None:
    # Not where a core is to be full: the kernel would give them a part of it.
    with Awake():
        await _side_by_side(scripts, table, quick=quick)
    if quick:
        return
    for who, script in scripts.items():
        await endure(who, script, table)


async def _side_by_side(scripts: dict[str, str], table: Table, *, quick: bool) -> None:
    """What is measured of all servers in turn."""
    seconds = 4.0 if quick else 20.0
    rounds = 2 if quick else 4
    sizes = (20,) if quick else (5, 50, 100)
    turn_s = 2.0 if quick else 5.0
    most = sizes[-1]

    def put(values: dict[str, float], name: str, unit: str, target: str = "", **bounds: float) -> None:
        for who, value in values.items():
            table.put(who, name, value, unit, target, **bounds)

    def median(loads: dict[str, Load], figure: Callable[[Figures], Iterable[float]]) -> dict[str, float]:
        return {who: quantile(figure(result.figures), 0.5) for who, result in loads.items()}

    async with side_by_side(scripts) as sides:
        idle = {who: server.rss_mb() for who, (_, server) in sides.items()}
        put(idle, "memory, idle", "MB", "<= 60 MB", limit=60)
        # One call before and after every size, minutes apart: a shared machine is fast or slow for minutes.
        ones = [await alternately(sides, 1, 1.5 * seconds, rounds=rounds // 2, turn_s=1.0)]
        several: dict[int, dict[str, Load]] = {}
        number = 100
        for calls in sizes:
            several[calls] = await alternately(sides, calls, 2 * seconds, rounds=rounds, first=number, turn_s=turn_s)
            number += rounds * calls
            ones.append(await alternately(sides, 1, 1.5 * seconds, rounds=rounds // 2, first=number, turn_s=1.0))
            number += rounds
        one = {who: added_up([each[who] for each in ones]) for who in sides}
        name, target = "added latency, 1 call, p50", "<= 1.5 ms, <= 1.3 x bare"
        put(median(one, Figures.added), name, "ms", target, limit=1.5, ratio=1.3)
        put(median(one, lambda f: f.final_to_llm.values()), "... final -> LLM request, p50", "ms")
        put(median(one, lambda f: f.token_to_tts.values()), "... LLM token -> TTS request, p50", "ms")
        put(median(one, lambda f: f.audio_to_line.values()), "... TTS audio -> line, p50", "ms")
        clear = median(one, lambda f: f.speech_to_clear)
        put(clear, "speech start -> clear, p50", "ms", "<= 0.4 ms", limit=0.4)
        frame = median(one, lambda f: f.frame_to_stt)
        put(frame, "caller frame -> STT, 1 call, p50", "ms", "<= 0.3 ms", limit=0.3)
        for calls, many in several.items():
            used = {who: result.cpu_per_minute for who, result in many.items()}
            put(used, f"CPU per call-minute, {calls} calls", "s", "<= 1.4 x bare", ratio=1.4)
        put(median(many, Figures.added), f"added latency, {most} calls, p50", "ms")
        slow = {who: quantile(result.figures.added(), 0.99) for who, result in many.items()}
        put(slow, f"added latency, {most} calls, p99", "ms", "<= 10 ms", limit=10)
        greeting = {who: quantile(one[who].figures.greeting + many[who].figures.greeting, 0.5) for who in sides}
        put(greeting, "webhook -> first greeting audio, p50", "ms", "<= 10 ms", limit=10)
        if not quick:
            many = await alternately(sides, most, seconds, rounds=1, first=number, barge_in=False, turn_s=9.0)
        underruns = {who: float(result.figures.underruns) for who, result in many.items()}
        put(underruns, f"underruns, {most} calls", "", "0", limit=0)
    async with side_by_side(scripts, stall=True) as sides:
        calls = 10 if quick else 100
        stalled = await alternately(sides, calls, seconds, rounds=1, barge_in=False, turn_s=9.0)
        underruns = {who: float(result.figures.underruns) for who, result in stalled.items()}
        put(underruns, f"underruns, {calls} calls, loop stalled 100 ms a second", "", "0", limit=0)


async def endure(who: str, script: str, table: Table) -> None:
    """A thousand calls one after the other, and as many at once as it can do."""
    put = table.put
    async with serving(script) as (world, server):
        await churn(world, server, 1000, first=1, at_once=20)
        before = server.rss_mb()
        await churn(world, server, 500, first=2000, at_once=20)
        put(who, "memory growth, calls 1,000 to 1,500", server.rss_mb() - before, "MB", "flat (<= 2 MB)", limit=2)
    most = 0
    for calls in (200, 250, 300, 350, 400):
        async with serving(script) as (world, server):
            idle = server.rss_mb()
            result = await calm_load(world, server, calls, 20.0)
            note(who, calls, result)
            transit, added = quantile(result.figures.frame_to_stt, 0.99), quantile(result.figures.added(), 0.99)
            if calls == 200:
                put(who, "memory per call, 200 calls", (result.rss_mb - idle) / calls, "MB", "<= 0.3 MB", limit=0.3)
                put(who, "caller frame -> STT, 200 calls, p50", quantile(result.figures.frame_to_stt, 0.5), "ms")
                put(who, "caller frame -> STT, 200 calls, p99", transit, "ms", "< 20 ms", limit=20)
            if not (transit < 20 and added < 100 and not result.figures.failed):
                break
            most = calls
    put(who, "calls on one core within 20 ms transit and 100 ms added, p99", most, "", ">= 200", least=200)


def note(who: str, calls: int, result: Load) -> None:
    f = result.figures
    print(
        f"  {who}: {calls} calls: {f.turns} turns, {len(f.added())} measured, {f.unanswered} unanswered, "
        f"{f.failed} failed, {f.played_s:.0f} s played, load generator {result.own_cpu:.0%} of its core and "
        f"{quantile(f.lag, 0.99):.1f} ms late (p99), other programs {result.others:.2f} cores, "
        f"the machine stood still {len(result.pauses)} times for {sum(result.pauses):.0f} ms",
        file=sys.stderr, flush=True,
    )  # fmt: skip


def import_time(statement: str) -> float:
    """Seconds, the best of five."""
    code = f"import time; t=time.perf_counter(); {statement}; print(time.perf_counter()-t)"
    runs = [
        float(
            subprocess.run(
                [sys.executable, "-c", code], cwd=HERE.parent, capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(5)
    ]
    return min(runs)


def isolate() -> None:
    """Start again inside a network namespace with reno, where that is possible."""
    if os.environ.get(INSIDE) or os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
        return
    setup = "ip link set lo up && sysctl -qw net.ipv4.tcp_congestion_control=reno"
    if subprocess.run(["unshare", "-n", "sh", "-c", setup], check=False, capture_output=True).returncode:
        return
    os.environ[INSIDE] = "1"
    command = [sys.executable, str(Path(sys.argv[0]).resolve()), *sys.argv[1:]]
    os.execvp("unshare", ["unshare", "-n", "sh", "-c", f'{setup} && exec "$@"', "sh", *command])


async def main(arguments: argparse.Namespace) -> None:
    table = Table()
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {1})
    prefer(os.getpid())
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    print(f"TCP congestion control: {control}", file=sys.stderr)
    scripts = {who: script for who, script in SERVERS.items() if arguments.only in ("", who)}
    await measure(scripts, table, quick=arguments.quick)
    table.put("Dialog", "import dialog", import_time("import dialog"), "s", "< 0.3 s", limit=0.3)
    used = import_time("from dialog import CartesiaTTS, DeepgramSTT, OpenAIAgent, TwilioGateway")
    table.put("Dialog", "... and all that a call needs", used, "s")
    print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer calls and shorter, less than a minute")
    parser.add_argument("--only", default="", choices=["", *SERVERS], help="measure one server")
    parsed = parser.parse_args()
    isolate()
    uvloop.run(main(parsed))
