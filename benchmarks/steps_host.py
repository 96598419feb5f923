"""Runs a server for ``steps.py``, and counts its steps from SIGUSR1 to SIGUSR2: ``steps_host.py SCRIPT OUT``."""

import atexit
import json
import runpy
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

steps: Counter[CodeType] = Counter()
began = lasted = 0.0


def enter(frame: FrameType, _event: str, _arg: Any) -> Any:
    """Count the instructions of a function that is called, or goes on."""
    frame.f_trace_opcodes, frame.f_trace_lines = True, False
    code = frame.f_code

    def step(_frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "opcode":
            steps[code] += 1
        return step

    return step


def start(*_: object) -> None:
    global began
    steps.clear()
    began = time.monotonic()
    sys.settrace(enter)


def stop(*_: object) -> None:
    global lasted
    sys.settrace(None)
    lasted = time.monotonic() - began


def write() -> None:
    of = Counter[str]()
    for code, count in steps.items():
        of[f"{code.co_filename.rpartition('site-packages/')[2]}:{code.co_qualname}"] += count
    Path(out).write_text(json.dumps({"seconds": lasted, "steps": of}))


if __name__ == "__main__":
    script, out = sys.argv[1:]
    signal.signal(signal.SIGUSR1, start)
    signal.signal(signal.SIGUSR2, stop)
    atexit.register(write)
    runpy.run_path(script, run_name="__main__")
