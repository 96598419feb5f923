"""How many steps of Python's interpreter a second of a call takes, and where: beside the bare bridge, of a few calls.

``python benchmarks/steps.py`` takes a minute. Processor time says what a call costs, and changes by a fifth from run to
run on a shared machine; this says the same to one percent, so a small saving shows, and a small loss. What is done in C
is not in it: decoding, base64, system calls.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import uvloop

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from emulators import settle  # noqa: E402
from run import SERVERS, isolate, serving  # noqa: E402


async def steps_of(script: str, *, calls: int, seconds: float, turn_s: float) -> dict[str, float]:
    """Steps of each function, per second of a call."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "steps.json"
        async with serving("steps_host.py", arguments=[str(HERE / script), str(out)]) as (world, server):
            callers = await settle(
                world, server.url, calls, first=1, over_s=1.0, barge_in=True, turn_s=turn_s, turns=None
            )
            await asyncio.sleep(3.0)
            os.kill(server.process.pid, signal.SIGUSR1)
            await asyncio.sleep(seconds)
            os.kill(server.process.pid, signal.SIGUSR2)
            for caller in callers:
                caller.hang_up()
            await asyncio.sleep(0.5)
        found = json.loads(out.read_text())
    if world.figures.failed or world.figures.unanswered:
        raise SystemExit(f"{script}: calls failed or were not answered: the machine is too slow for these figures")
    return {name: count / calls / found["seconds"] for name, count in found["steps"].items()}


async def main(arguments: argparse.Namespace) -> None:
    found = {
        who: await steps_of(script, calls=arguments.calls, seconds=arguments.seconds, turn_s=arguments.turn_s)
        for who, script in SERVERS.items()
    }
    totals = {who: sum(steps.values()) for who, steps in found.items()}
    bare, ours = totals["bare bridge"], totals["Dialog"]
    print("| steps per second of a call | bare bridge | Dialog | ratio |")
    print("|---|---:|---:|---:|")
    print(f"| all | {bare:,.0f} | {ours:,.0f} | {ours / bare:.2f} |")
    for name, steps in sorted(found["Dialog"].items(), key=lambda item: -item[1])[: arguments.show]:
        print(f"| {name.removeprefix(f'{HERE.parent}/')} | | {steps:,.0f} | |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--turn-s", type=float, default=5.0, help="pause between two turns of a caller")
    parser.add_argument("--show", type=int, default=25, help="how many functions")
    parsed = parser.parse_args()
    isolate()
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {1})
    uvloop.run(main(parsed))
