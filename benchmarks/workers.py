"""A gateway and its worker process under whole conversations: what each takes of a core, beside one process for both.

``python benchmarks/workers.py [--calls 100] [--seconds 20]``. Emulators and callers have core 1, as in ``run.py``;
gateway and worker share core 0, so that their times add up. How many calls a core could carry follows from the CPU
that one call takes; how the latency is, from the figures of the run.
"""

import argparse
import os

import uvloop
from run import Load, isolate, load, prefer, quantile, serving

SHARE = 0.8
"""Of a core that may be used: above it latencies grow."""


def show(title: str, result: Load, names: tuple[str, ...]) -> None:
    figures = result.figures
    print(f"\n{title}")
    for name, each in zip(names, result.cpus_per_minute, strict=True):
        print(f"  {name:8} {each:.3f} s CPU per call-minute: {SHARE:.0%} of a core carry {SHARE * 60 / each:.0f} calls")
    for name, values in (("added latency", figures.added()), ("caller's frame to STT", figures.frame_to_stt)):
        print(f"  {name:22} p50 {quantile(values, 0.5):7.2f} ms, p99 {quantile(values, 0.99):7.2f} ms")
    print(f"  underruns {figures.underruns}, failed calls {figures.failed}")
    print(f"  other programs used {result.others:.2f} cores, the load {result.own_cpu:.2f} of its own")


async def main(calls: int, seconds: float) -> None:
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {1})
    prefer(os.getpid())
    async with serving("dialog_server.py") as (world, server):
        show(f"one process, {calls} calls", await load(world, server, calls, seconds), ("process",))
    async with serving("worker_server.py") as (world, server):
        show(f"two processes, {calls} calls", await load(world, server, calls, seconds), ("gateway", "worker"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    parsed = parser.parse_args()
    isolate()
    uvloop.run(main(parsed.calls, parsed.seconds))
