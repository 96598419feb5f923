"""The short form of the soak."""

from __future__ import annotations

import pytest
from soak import Soak

pytestmark = pytest.mark.alone


@pytest.mark.timeout(180)
async def test_a_fleet_loses_no_call_while_its_parts_die(tmp_path):
    async with Soak(seed=3, processes=2, log=tmp_path) as soak:
        verdict = await soak.run(seconds=30.0, calls_per_s=1.5, concurrency=16, long_calls=2)
    assert verdict.good, f"{verdict}\n" + "\n".join(path.read_text()[-3000:] for path in tmp_path.glob("*.log"))
    assert sum(verdict.statuses.values()) >= 20
    assert verdict.harm["worker killed"] >= 2
    assert verdict.harm["NATS restarted"] >= 1
