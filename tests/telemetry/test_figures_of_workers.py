"""What a gateway tells of the workers that it knows."""

from __future__ import annotations

import sys
from pathlib import Path

from figures import House, scraped

from dialog.telemetry import Metrics
from dialog.voip.memory import memory_call

sys.path.insert(0, str(Path(__file__).parents[1] / "workers"))
from bridges import bridge, until


class Pool:
    """What a pool or a fleet is to the metrics."""

    def __init__(self, host) -> None:
        self.host = host


async def test_workers_slots_and_load_are_those_that_the_host_knows():
    async with bridge() as made:
        house = House()
        house.workers = Pool(made.host)
        other = House()
        other.workers = house.workers
        metrics = Metrics()
        metrics.watch(house)
        metrics.watch(other)
        nobody = scraped(metrics)
        assert (nobody.get("dialog_workers", state="working"), nobody.get("dialog_workers_load")) == (0, 1)
        await made.worker("a", capacity=3)
        await made.worker("b", capacity=1)
        await made.ring()
        figures = scraped(metrics)
        assert figures.get("dialog_workers", state="working") == 2
        assert figures.get("dialog_workers_slots") == 4
        assert figures.get("dialog_workers_calls") == 1
        assert figures.get("dialog_workers_load") == 0.25
        assert figures.get("dialog_calls_without_worker") == 0
        made.workers["b"].drain()
        await until(lambda: scraped(metrics).get("dialog_workers", state="leaving") == 1)
        assert scraped(metrics).get("dialog_workers_slots") == 3


async def test_a_call_without_a_worker_is_seen():
    async with bridge() as made:
        house = House()
        house.workers = Pool(made.host)
        metrics = Metrics()
        metrics.watch(house)
        call, _ = memory_call(made.host.take)
        assert scraped(metrics).get("dialog_calls_without_worker") == 1
        call.end("over")
        await call.wait_closed()
        assert scraped(metrics).get("dialog_calls_without_worker") == 0
