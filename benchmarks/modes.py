"""What Dialog itself adds in text mode and in realtime mode, on the way to the provider and on the way back.

``python benchmarks/modes.py [--calls 20] [--seconds 30]``. Whole conversations, in which the caller interrupts every
reply, with the server of ``run.py`` on core 0, and everything around it on core 1. Providers take a fixed time, which
is not in the figures: each is the time between what one socket sent and another received.
"""

import argparse
import os
import sys

import uvloop
from emulators import World
from realtime_model import RealtimeWorld
from run import Load, isolate, load, note, prefer, quantile, serving

MODES = {"text": World, "realtime": RealtimeWorld}


def legs(result: Load) -> dict[str, list[float]]:
    """The measured times, in seconds."""
    figures = result.figures
    return {
        "caller's frame → provider": figures.frame_to_stt,
        "end of their utterance → reply asked for": list(figures.final_to_llm.values()),
        "first token → voice asked for": list(figures.token_to_tts.values()),
        "first audio of the reply → line": list(figures.audio_to_line.values()),
        "caller speaks over a reply → line cleared": figures.speech_to_clear,
    }


def table(results: dict[str, Load]) -> str:
    """All figures side by side."""
    lines = ["| p50 / p99 in ms | " + " | ".join(results) + " |", "|---|" + "---:|" * len(results)]
    measured = {mode: legs(result) for mode, result in results.items()}
    for name in legs(Load()):
        cells = [
            f"{quantile(values[name], 0.5):.2f} / {quantile(values[name], 0.99):.2f}" if values[name] else "-"
            for values in measured.values()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    cpu = " | ".join(f"{result.cpu_per_minute:.2f} s" for result in results.values())
    return "\n".join([*lines, f"| CPU per call-minute | {cpu} |"])


async def main(calls: int, seconds: float) -> None:
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {1})
    prefer(os.getpid())
    results: dict[str, Load] = {}
    for mode, around in MODES.items():
        async with serving("dialog_server.py", world=around()) as (world, server):
            results[mode] = await load(world, server, calls, seconds, turn_s=2.0)
        note(mode, calls, results[mode])
        if results[mode].figures.failed or not results[mode].figures.audio_to_line:
            sys.exit(f"{mode}: calls failed, or nothing was said")
    print(table(results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30.0)
    parsed = parser.parse_args()
    isolate()
    uvloop.run(main(parsed.calls, parsed.seconds))
