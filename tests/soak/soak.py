"""A fleet under load in which everything dies now and then: ``make soak``, or a short form of it as a test.

Two gateways and two machines' worth of workers meet on a NATS server; providers are emulated here. Callers dial short
calls without end, and a few long ones. Meanwhile worker processes are killed with -9, NATS is restarted, providers drop
and stall their connections, and callers' media sockets are torn. In the end every call has to be accounted for, nobody
may have sat in silence for more than two seconds, and nothing may be left.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

from dialog.testing.cartesia import CartesiaEmulator
from dialog.testing.deepgram import DeepgramEmulator
from dialog.testing.load import CallOutcome, Load, LoadPlan
from dialog.testing.nats_server import NatsServer
from dialog.testing.openai import OpenAIEmulator
from dialog.testing.server import Faults
from dialog.testing.twilio_rest import TwilioRestEmulator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ACCOUNT, TOKEN = "AC" + "0" * 32, "token-of-the-soak"
REPLIES = (
    "We are open from noon to midnight, every day but Monday, and the kitchen closes at eleven.",
    "With pleasure. For how many people may I book the table, and at what time would you like to come?",
    "Your table is booked, we are looking forward to seeing you this evening.",
)
DEAD_AIR_MS = 2000.0


@dataclass
class Verdict:
    """What became of it."""

    statuses: Counter[str] = field(default_factory=Counter)
    failed: list[CallOutcome] = field(default_factory=list)
    silences: list[tuple[str, float]] = field(default_factory=list)
    """SID of the call and length, of every silence that was too long."""
    harm: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)
    void: str = ""

    @property
    def good(self) -> bool:
        return not (self.failed or self.silences or self.left)

    def __str__(self) -> str:
        lines = [
            f"calls      {dict(self.statuses)}",
            f"harm done  {dict(self.harm)}",
            f"failed     {len(self.failed)}",
            *(f"           {each.status} {each.detail} after {each.duration_s:.1f} s" for each in self.failed[:20]),
            f"silences   {len(self.silences)} of more than {DEAD_AIR_MS / 1000:g} s",
            *(f"           {sid} {length / 1000:.2f} s" for sid, length in self.silences[:20]),
            f"left over  {self.left or 'nothing'}",
        ]
        if self.void:
            lines.append(f"VOID       {self.void}")
        return "\n".join(lines)


class Soak:
    """The fleet, its harm, and its callers."""

    def __init__(self, *, seed: int, processes: int, log: Path) -> None:
        self.chance = random.Random(seed)
        self.verdict = Verdict()
        self.log = log
        self._processes = processes
        self._stack = AsyncExitStack()
        self._roles: dict[str, asyncio.subprocess.Process] = {}
        self._ports: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        enter = self._stack.enter_async_context
        self.nats = await enter(NatsServer("max_payload: 4MB"))
        self.deepgram = await enter(DeepgramEmulator(sentences=["when are you open", "a table please"], interim_s=0.3))
        self.openai = await enter(OpenAIEmulator(lambda fields: REPLIES[len(fields["messages"]) % len(REPLIES)]))
        self.cartesia = await enter(CartesiaEmulator(ms_per_char=55.0))
        self.rest = await enter(TwilioRestEmulator(account_sid=ACCOUNT, auth_token=TOKEN))
        self.http = await enter(aiohttp.ClientSession())
        for number in (1, 2):
            await self._start(
                f"worker-{number}",
                "worker",
                f"{HERE / 'soak_agent.py'}:on_voip",
                "--processes",
                str(self._processes),
                "--calls-per-process",
                "60",
                "--drain-s",
                "30",
                "--health-port",
                "{port}",
            )
            await self._start(f"gateway-{number}", "gateway", "--port", "{port}", "--leave-s", "0", "--drain-s", "30")
        for name, port in self._ports.items():
            await self._until_ready(name, port)
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._roles.values():
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        for name, process in self._roles.items():
            try:
                async with asyncio.timeout(40):
                    await process.wait()
            except TimeoutError:
                self.verdict.left.append(f"{name} did not end")
                process.kill()
                await process.wait()
        await self._stack.aclose()

    async def run(self, *, seconds: float, calls_per_s: float, concurrency: int, long_calls: int) -> Verdict:
        """Dial for so long, doing harm meanwhile; judge when all calls are over."""
        urls = [f"http://127.0.0.1:{port}/twilio" for name, port in self._ports.items() if name.startswith("gateway")]
        usual: dict[str, Any] = {
            "auth_token": TOKEN,
            "account_sid": ACCOUNT,
            "reply_s": 10.0,
            "allow_hosts": ("127.0.0.1",),
        }
        loads = [
            Load(
                LoadPlan(
                    url=url,
                    duration_s=seconds,
                    calls_per_s=calls_per_s / 2,
                    concurrency=concurrency // 2,
                    turns=2,
                    call_s=60.0,
                    hang_up=hang_up,
                    seed=number,
                    **usual,
                ),
                on_outcome=self._over,
            )
            for number, (url, hang_up) in enumerate(zip(urls, ("after-reply", "reset"), strict=True))
        ]
        loads += [
            Load(
                LoadPlan(
                    url=url,
                    calls=max(1, long_calls // 2),
                    calls_per_s=2.0,
                    turns=None,
                    call_s=seconds,
                    seed=7 + number,
                    **usual,
                ),
                on_outcome=self._over,
            )
            for number, url in enumerate(urls)
        ]
        harm = asyncio.create_task(self._harm(seconds), name="harm")
        reports = await asyncio.gather(*(load.run() for load in loads))
        harm.cancel()
        await asyncio.wait([harm])
        if not harm.cancelled() and harm.exception() is not None:
            raise RuntimeError("the harm failed") from harm.exception()
        self.verdict.void = "; ".join(report.void for report in reports if report.void)
        await self._nothing_left()
        return self.verdict

    def _over(self, outcome: CallOutcome) -> None:
        self.verdict.statuses[outcome.status] += 1
        if outcome.failed:
            self.verdict.failed.append(outcome)
        self.verdict.silences += [(outcome.call_sid, length) for _, length in outcome.dead_air if length > DEAD_AIR_MS]

    async def _harm(self, seconds: float) -> None:
        ways: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            # What the short form must have seen comes first: a busy machine gets through fewer.
            ("worker killed", self._kill_worker),
            ("NATS restarted", self._restart_nats),
            ("worker killed", self._kill_worker),
            ("recogniser dropped", self._drop_recogniser),
            ("voice dropped", self._drop_voice),
            ("model refused", self._refuse_model),
        ]
        until = time.monotonic() + seconds - 5.0
        await asyncio.sleep(3.0)
        turn = 0
        while time.monotonic() < until:
            name, way = ways[turn % len(ways)] if turn < len(ways) else self.chance.choice(ways)
            turn += 1
            await way()
            self.verdict.harm[name] += 1
            print(
                f"  {name}; {sum(self.verdict.statuses.values())} calls over, {len(self.verdict.failed)} failed",
                flush=True,
            )
            await asyncio.sleep(self.chance.uniform(2.5, 4.5))

    async def _kill_worker(self) -> None:
        children = [
            pid for name, role in self._roles.items() if name.startswith("worker") for pid in children_of(role.pid)
        ]
        if children:
            os.kill(self.chance.choice(children), signal.SIGKILL)

    async def _restart_nats(self) -> None:
        self.nats.kill()
        await asyncio.sleep(0.2)
        await self.nats.start()

    async def _drop_recogniser(self) -> None:
        self.deepgram.faults = Faults(drop_after=self.chance.randint(1, 6), times=3)

    async def _drop_voice(self) -> None:
        self.cartesia.faults = Faults(drop_after=self.chance.randint(1, 10), times=2)

    async def _refuse_model(self) -> None:
        self.openai.faults = Faults(refuse=self.chance.choice([429, 500, 503]), times=2)

    async def _nothing_left(self) -> None:
        """Wait a moment, then look at what the roles still hold."""
        for name, port in self._ports.items():
            if not name.startswith("worker"):
                continue
            calls = -1.0
            for _ in range(100):
                calls = await self._calls_of(port)
                if calls == 0:
                    break
                await asyncio.sleep(0.1)
            if calls != 0:
                self.verdict.left.append(f"{calls:g} calls at {name}")

    async def _calls_of(self, port: int) -> float:
        async with self.http.get(f"http://127.0.0.1:{port}/metrics") as response:
            for line in (await response.text()).splitlines():
                if line.startswith("dialog_worker_calls"):
                    return float(line.rsplit(" ", 1)[1])
        return -1.0

    async def _start(self, name: str, *arguments: str) -> None:
        port = free_port()
        self._ports[name] = port
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "NATS_URL": self.nats.url,
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_BASE_URL": self.rest.url,
            "WEBHOOK_URL": f"http://127.0.0.1:{port}/twilio",
            "DEEPGRAM_API_KEY": self.deepgram.api_key,
            "DEEPGRAM_BASE_URL": self.deepgram.url.replace("http", "ws", 1),
            "CARTESIA_API_KEY": self.cartesia.api_key,
            "CARTESIA_BASE_URL": self.cartesia.url,
            "OPENAI_API_KEY": self.openai.api_key,
            "OPENAI_BASE_URL": self.openai.base_url,
        }
        filled = [argument.format(port=port) for argument in arguments]
        filled += ["--nats", self.nats.url, "--log-level", "warning"]
        with (self.log / f"{name}.log").open("wb") as log:
            self._roles[name] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "dialog",
                *filled,
                env=environment,
                cwd=self.log,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
            )

    async def _until_ready(self, name: str, port: int) -> None:
        async with asyncio.timeout(40):
            while True:
                if self._roles[name].returncode is not None:
                    raise RuntimeError(f"{name} ended: {(self.log / f'{name}.log').read_text()}")
                try:
                    async with self.http.get(f"http://127.0.0.1:{port}/ready") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass  # not there yet
                await asyncio.sleep(0.1)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def main(options: argparse.Namespace) -> int:
    options.log.mkdir(parents=True, exist_ok=True)
    async with Soak(seed=options.seed, processes=2, log=options.log) as soak:
        verdict = await soak.run(
            seconds=options.minutes * 60,
            calls_per_s=options.rate,
            concurrency=options.concurrency,
            long_calls=options.long_calls,
        )
    print(f"\n{verdict}")
    return 0 if verdict.good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=4.0, help="short calls a second")
    parser.add_argument("--concurrency", type=int, default=60, help="short calls at a time, at most")
    parser.add_argument("--long-calls", type=int, default=6, help="calls that last to the end")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--log", type=Path, default=Path("build/soak"))
    sys.exit(asyncio.run(main(parser.parse_args())))
