"""What a process of many calls sets for itself."""

from __future__ import annotations

import subprocess
import sys

HOUSE = """
import gc
from dialog.loop import calm_collector

def call():
    ring = [[] for _ in range(240)]  # what of a call only the collector takes away
    ring[0].append(ring)
    return [ring, [[] for _ in range(260)]]

most = 0
def collected(phase, info):
    global most
    if phase == "stop" and info["generation"] == 2:
        most = max(most, info["collected"])

calm_collector()
gc.callbacks.append(collected)
for _ in range(10):
    calls = [call() for _ in range(100)]
    calls.clear()
print(most)
"""


def test_what_is_left_of_calls_is_collected_before_there_is_much_of_it():
    """All lines wait for it: for 70,000 objects it was longer than what lies ahead at the carriers."""
    done = subprocess.run([sys.executable, "-c", HOUSE], capture_output=True, text=True, check=True, timeout=60)
    assert 0 < int(done.stdout) < 50_000
