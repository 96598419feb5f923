"""What becomes of calls that an earlier run has left behind, of a carrier that is played here."""

from __future__ import annotations

import asyncio
import errno
from contextlib import contextmanager
from types import SimpleNamespace
from uuid import uuid4

import pytest

from dialog.dialling.batch import Batch, BatchSettings
from dialog.dialling.ledger import Ledger
from dialog.dialling.table import Row, Table
from dialog.errors import CarrierError, ConfigurationError, StateError
from dialog.voip.twilio.placing import PlacedCall

NUMBER = "+15550123"
TABLE = Table(columns=("number",), rows=(Row(line=2, number=NUMBER, fields=(("number", NUMBER),)),))


class Placed:
    """The carrier's list of calls."""

    def __init__(self) -> None:
        self.status = "in-progress"
        self.away = False
        self.asked = asyncio.Event()

    async def fetch(self, call_sid: str) -> PlacedCall:
        self.asked.set()
        if self.away:
            raise CarrierError("twilio", call_sid, "Twilio cannot be reached")
        return PlacedCall(call_sid=call_sid, status=self.status, duration_s=7.0)


@contextmanager
def batch_of(ledger_file, placed):
    ledger = Ledger(ledger_file)
    try:
        yield Batch(SimpleNamespace(placed=placed), TABLE, ledger, BatchSettings(from_="+15550100")), ledger
    finally:
        ledger.close()


@pytest.fixture
async def ledger_file(tmp_path):
    """Of a run that was killed during its call."""
    ledger = Ledger(tmp_path / "numbers.ledger.jsonl")
    call_id = uuid4()
    await ledger.placing(NUMBER, call_id)
    await ledger.placed(call_id, "CA1")
    ledger.close()
    return ledger.path


@pytest.mark.parametrize("why", ["Twilio is away", "stopped"])
async def test_what_could_not_be_found_out_is_asked_again_by_the_next_run(ledger_file, why, monkeypatch):
    monkeypatch.setattr("dialog.dialling.batch._LOOK_S", 0.01)
    placed = Placed()
    placed.away = why == "Twilio is away"
    with batch_of(ledger_file, placed) as (batch, _):
        running = asyncio.create_task(batch.run())
        async with asyncio.timeout(20):
            await placed.asked.wait()
            if why == "stopped":
                batch.stop()
            assert not await running, "something is left"
        (result,) = batch.results()
        assert result["call_outcome"] == "unknown"
        assert ("still in-progress" if why == "stopped" else "cannot be reached") in result["call_detail"]
        assert (batch.progress.outcomes, batch.progress.dialling) == ({"unknown": 1}, 0)
    placed.away, placed.status = False, "completed"
    with batch_of(ledger_file, placed) as (batch, ledger):
        async with asyncio.timeout(20):
            assert await batch.run()
        (result,) = batch.results()
        assert (result["call_outcome"], result["call_duration_s"], result["call_attempts"]) == ("interrupted", "7", 1)
        assert len(ledger.attempts) == 1


async def test_a_ledger_that_cannot_be_written_ends_the_run_before_anybody_is_called(tmp_path, monkeypatch):
    called = []

    class Gateway:
        async def call(self, to, *, before, **_):
            await before()
            called.append(to)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    ledger = Ledger(tmp_path / "numbers.ledger.jsonl")
    monkeypatch.setattr("dialog.dialling.ledger.os.fsync", full)
    batch = Batch(Gateway(), TABLE, ledger, BatchSettings(from_="+15550100"))
    with pytest.raises(ConfigurationError, match=r"ledger cannot be written.*No space left"):
        await batch.run()
    assert not called
    ledger.close()


async def test_a_gateway_that_leaves_takes_no_number_with_it(tmp_path):
    class Gateway:
        ready = False

        async def call(self, to, **_):
            raise StateError("the gateway takes no more calls")

    ledger = Ledger(tmp_path / "numbers.ledger.jsonl")
    batch = Batch(Gateway(), TABLE, ledger, BatchSettings(from_="+15550100"))
    async with asyncio.timeout(20):
        assert not await batch.run(), "somebody is left"
    assert [result["call_outcome"] for result in batch.results()] == ["not_dialled"]
    assert not ledger.attempts
    ledger.close()
