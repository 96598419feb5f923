"""Calls that are placed, and callers who are handed over, while the agents run in workers of a fleet."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bridges import until

from dialog.calls.events import AgentSaid
from dialog.loading import load_function
from dialog.testing.callee import Callee
from dialog.testing.caller import Caller
from dialog.testing.nats_server import NatsServer
from dialog.testing.twilio_rest import TwilioRestEmulator
from dialog.voip.admission import NoWorker
from dialog.voip.answering import MachineDetection
from dialog.voip.call import CallSettings
from dialog.voip.twilio import TwilioGateway
from dialog.voip.voip import VoIP
from dialog.workers.fleet import Fleet, nats_settings
from dialog.workers.hosting import HostingSettings
from dialog.workers.nats import NatsFabric
from dialog.workers.worker import Worker

sys.path.insert(0, str(Path(__file__).parents[1] / "twilio"))
from twilio_phone import ACCOUNT, TOKEN, outbound_line

APPS = Path(__file__).parent / "apps"
ROOT = Path(__file__).parents[2]
PERSON = "+15550123"
PATIENT = HostingSettings(admit_s=20.0, answer_s=10.0)


class Line:
    """A gateway of a fleet, its account, and NATS in between."""

    def __init__(self, nats: NatsServer, fleet: Fleet, gateway: TwilioGateway, account: TwilioRestEmulator) -> None:
        self.nats = nats
        self.fleet = fleet
        self.gateway = gateway
        self.account = account

    @property
    def hosted(self):
        """The first of the calls that workers have."""
        return self.fleet.host.calls[0]

    def kill_worker(self) -> None:
        """End the process that has the first call with -9; whoever started it is named in its name."""
        supervisor = int(self.hosted.worker.split("-")[-2])
        for child in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)

    async def restart_nats(self) -> None:
        """As long as it takes: the gateway notices, and comes back."""
        self.nats.kill()
        await until(lambda: not self.fleet._fabric.connected)
        await self.nats.start()
        await until(lambda: self.fleet._fabric.connected)

    def dial(self, **options):
        """A caller, who can be brought elsewhere and back."""
        made: list[Caller] = []
        call = self.account.add_call(
            on_update=lambda update: made[0].update(status=update.status, twiml=update.twiml, url=update.url)
        )
        dialling = Caller.dial(
            self.gateway.webhook_url, auth_token=TOKEN, account_sid=ACCOUNT, call_sid=call.sid, **options
        )
        made.append(dialling._caller)
        return dialling


@asynccontextmanager
async def worker_here(app: str, nats: NatsServer):
    """A worker in the tests' own process."""
    fabric = NatsFabric("worker", nats_settings(nats.url), listens="workers", tells="hosts")
    worker = Worker(fabric, load_function(str(APPS / app)), settings=CallSettings(settle_s=0.2))
    await fabric.connect()
    worker.start()
    try:
        yield
    finally:
        await worker.close()
        await fabric.close()


@asynccontextmanager
async def workers_elsewhere(app: str, nats: NatsServer):
    """Two workers in processes of their own, as of two machines."""
    processes = [
        await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "dialog", "worker", str(APPS / app), "--nats", nats.url, "--drain-s", "0"],
            *["--processes", "1", "--log-level", "warning"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(2)
    ]
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            await process.wait()


@asynccontextmanager
async def fleet_line(app: str, *, elsewhere: bool = False):
    """A line whose agents run here, or in other processes."""
    async with NatsServer() as nats:
        fleet = Fleet(nats.url, hosting=PATIENT)
        async with (
            outbound_line(on_voip=False, workers=fleet) as (gateway, account, _),
            (workers_elsewhere if elsewhere else worker_here)(app, nats),
        ):
            await until(lambda: len(fleet.host.directory) == (2 if elsewhere else 1), 30.0)
            yield Line(nats, fleet, gateway, account)


async def placed(line: Line, **callee):
    """A call to somebody, whose worker tells what became of it in ``words``."""
    line.account.callees[PERSON] = Callee(light=True, **callee)
    words: list[str] = []
    voip = await line.gateway.call(
        PERSON, from_="+15550100", parameters={"name": "Ada"}, machine_detection=MachineDetection()
    )
    voip.on(VoIP.EVENT, lambda event: words.append(event.text))
    return voip, words


@pytest.mark.parametrize(("outcome", "told"), [("answers", "answered human"), ("busy", "busy")])
async def test_who_waits_in_the_fleet_is_told_what_became_of_a_placed_call(outcome, told):
    async with fleet_line("waiting.py:on_voip") as line:
        _, words = await placed(line, ring_s=0.05, outcome=outcome)
        await until(lambda: words == [f"Ada: {told}"])


async def test_a_placed_call_is_handled_in_the_fleet():
    async with fleet_line("greeting.py:on_voip") as line:
        heard = asyncio.get_running_loop().create_future()

        async def talk(caller):
            heard.set_result(await caller.listen())
            caller.press("1")  # it hangs up
            await caller.wait_ended()

        line.account.callees[PERSON] = Callee(ring_s=0.05, on_answer=talk)
        voip = await line.gateway.call(PERSON, from_="+15550100", machine_detection=MachineDetection())
        assert (await voip.wait_answered()).who == "human"
        async with asyncio.timeout(20):
            assert (await heard).duration_ms == pytest.approx(600, abs=60)
        await until(lambda: voip.end is not None)
        assert voip.end.reason == "agent_hangup"
        await until(lambda: not line.fleet.host.calls)


async def test_a_worker_that_dies_while_it_rings_is_followed_by_one_that_is_told_who_answers():
    async with fleet_line("waiting.py:on_voip", elsewhere=True) as line:
        voip, words = await placed(line, ring_s=2.0)
        line.kill_worker()
        await until(lambda: line.hosted.handed_over == 1)
        await until(lambda: words == ["Ada: answered human"])
        assert voip.state == "live"


async def test_nats_is_restarted_while_it_rings_and_the_answer_is_told_afterwards():
    async with fleet_line("waiting.py:on_voip") as line:
        voip, words = await placed(line, ring_s=0.5)
        await line.restart_nats()
        await until(lambda: words == ["Ada: answered human"])
        assert voip.state == "live"


async def test_without_a_worker_no_call_is_placed():
    async with NatsServer() as nats:
        fleet = Fleet(nats.url, hosting=HostingSettings(admit_s=0.1))
        async with outbound_line(on_voip=False, workers=fleet) as (gateway, account, _):
            with pytest.raises(NoWorker):
                await gateway.call(PERSON, from_="+15550100")
            assert not account.placed


class Asked:
    """The one who is asked: hears something, and presses a key when a test wants it."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()
        self.key = asyncio.get_running_loop().create_future()

    async def answer(self, person: Caller) -> None:
        await person.wait_for_speech()
        self.heard.set()
        key = await self.key
        if key:
            person.press(key)
            await person.wait_ended()


@asynccontextmanager
async def consultation(line: Line):
    """A caller who waits while somebody is told: ``(caller, VoIP of the gateway, who is asked)``."""
    asked = Asked()
    line.account.callees[PERSON] = Callee(on_answer=asked.answer)
    async with line.dial(light=True) as caller:
        voip = line.gateway.get(caller.call_sid)
        await until(lambda: voip.state == "live")
        caller.press("1")
        async with asyncio.timeout(20):
            await asked.heard.wait()
        await until(lambda: caller.conference is not None)
        try:
            yield caller, voip, asked
        finally:
            if not asked.key.done():
                asked.key.set_result("")


async def meet(caller, voip) -> None:
    await until(lambda: voip.end is not None)
    assert voip.end.reason == "transferred"
    assert len(caller.conference.participants) == 2
    await caller.hang_up()


async def comes_back(caller, voip) -> None:
    await until(lambda: voip.generation == 2 and voip.state == "live")
    assert voip.end is None
    assert caller.streams == 2


@pytest.mark.parametrize("app", ["asking.py:on_voip", "desk.py:on_voip"])
@pytest.mark.parametrize("key", ["1", "2", ""])
async def test_somebody_is_asked_from_the_fleet(app, key):
    async with fleet_line(app) as line, consultation(line) as (caller, voip, asked):
        asked.key.set_result(key)  # "": hangs up
        await (meet(caller, voip) if key == "1" else comes_back(caller, voip))
        await until(lambda: line.account.placed[0].status == "completed" or key == "1")


async def test_nobody_answers_who_is_asked_from_the_fleet():
    async with fleet_line("desk.py:on_voip") as line:
        line.account.callees[PERSON] = Callee(outcome="busy")
        async with line.dial() as caller:
            voip = line.gateway.get(caller.call_sid)
            said: list[str] = []
            voip.on(VoIP.EVENT, lambda event: said.append(event.text) if isinstance(event, AgentSaid) else None)
            await caller.listen()
            caller.press("1")
            await comes_back(caller, voip)
            await until(lambda: any(text.startswith("I'm sorry, nobody can take") for text in said))


@pytest.mark.alone
@pytest.mark.parametrize("app", ["asking.py:on_voip", "desk.py:on_voip"])
async def test_a_worker_that_dies_during_the_consultation_brings_the_caller_to_another_one(app):
    async with fleet_line(app, elsewhere=True) as line, consultation(line) as (caller, voip, _):
        line.kill_worker()
        await comes_back(caller, voip)
        await until(lambda: line.account.placed[0].status == "completed")
        await until(lambda: len(line.fleet.host.calls) == 1 and line.hosted.worker)
        # The other worker can do it, too.
        again = Asked()
        line.account.callees[PERSON] = Callee(on_answer=again.answer)
        caller.press("1")
        async with asyncio.timeout(20):
            await again.heard.wait()
        again.key.set_result("1")
        await meet(caller, voip)


@pytest.mark.parametrize("key", ["1", "2"])
async def test_nats_is_restarted_during_the_consultation_and_the_answer_counts(key):
    async with fleet_line("asking.py:on_voip") as line, consultation(line) as (caller, voip, asked):
        await line.restart_nats()
        asked.key.set_result(key)
        await (meet(caller, voip) if key == "1" else comes_back(caller, voip))


async def test_the_key_is_pressed_while_nats_is_away_and_counts_when_it_is_back():
    async with fleet_line("asking.py:on_voip") as line, consultation(line) as (caller, voip, asked):
        line.nats.kill()
        await until(lambda: not line.fleet._fabric.connected)
        keys: list[str] = []
        other = line.gateway.get(line.account.placed[0].sid)
        other.on(VoIP.DTMF, keys.append)
        asked.key.set_result("1")
        await until(lambda: keys == ["1"])
        assert voip.end is None
        await line.nats.start()
        await meet(caller, voip)


async def test_a_caller_who_leaves_while_nats_is_away_ends_both_calls():
    async with fleet_line("asking.py:on_voip") as line, consultation(line) as (caller, voip, _):
        line.nats.kill()
        await until(lambda: not line.fleet._fabric.connected)
        await caller.hang_up()
        await until(lambda: line.account.placed[0].status == "completed")
        assert voip.end.reason == "caller_hangup"
        await line.nats.start()
        await until(lambda: not line.fleet.host.calls, 20.0)
