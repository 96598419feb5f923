"""Gateways and workers as processes of their own, that come, go and die."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys

import aiohttp
import pytest
import yaml
from roles import APPS, ROOT, asked, fleet, hanging_up, ring, role, until

from dialog.testing.caller import Caller
from dialog.testing.nats_server import NatsServer
from dialog.testing.twilio_rest import TwilioRestEmulator
from dialog.voip.admission import NoWorker
from dialog.workers.nats import NatsSettings
from dialog.workers.process import Orders
from dialog.workers.supervisor import Supervisor

sys.path.insert(0, str(ROOT / "tests" / "workers"))
from neighbours import ACCOUNT, TOKEN, House, Phone, new_sid

ANSWERING = f"{APPS}/answering.py:on_voip"


async def gone(pid: int) -> None:
    def is_gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    await until(is_gone)


async def test_calls_run_in_the_processes_of_a_worker_and_it_tells_its_load():
    async with (
        NatsServer() as server,
        role("worker", ANSWERING, "--nats", server.url, "--processes", "2", "--calls-per-process", "3") as worker,
        fleet(server.url) as made,
    ):
        await until(lambda: len(made.host.directory) == 2)
        lines = [(await ring(made))[1] for _ in range(2)]
        pids = {(await asked(line, "0")) for line in lines}
        assert len(pids) == 2, "each process has one of them"
        async with asyncio.timeout(10):
            while json.loads((await worker.get("/health"))[1])["calls"] != 2:
                await asyncio.sleep(0.05)
        told = json.loads((await worker.get("/ready"))[1])
        assert told.pop("memory_mb") > 0
        assert told.pop("lag_ms") >= 0
        assert told == {"status": "ready", "calls": 2, "capacity": 6, "processes": 2, "draining": False}
        _, text = await worker.get("/metrics")
        assert "\ndialog_worker_calls 2\n" in text
        assert "\ndialog_worker_capacity 6\n" in text
        assert "\ndialog_worker_load 0.333333\n" in text


def pod_of_a_worker() -> tuple[float, dict[str, str]]:
    """How long Kubernetes lets a worker leave, in seconds, and what the worker is told."""
    documents = yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "worker.yaml").read_text())
    spec = next(each for each in documents if each["kind"] == "Deployment")["spec"]["template"]["spec"]
    arguments = [each.split("=") for each in spec["containers"][0]["args"] if "=" in each]
    return spec["terminationGracePeriodSeconds"], dict(arguments)


async def test_a_worker_that_is_told_to_stop_lets_its_call_finish():
    _, told = pod_of_a_worker()
    async with (
        NatsServer() as server,
        role("worker", ANSWERING, "--nats", server.url, "--drain-s", told["--drain-s"]) as worker,
        fleet(server.url) as made,
    ):
        await until(lambda: made.ready)
        call, line = await ring(made)
        pid = await asked(line, "0")
        worker.process.send_signal(signal.SIGTERM)
        assert json.loads(await worker.reaches("/ready", 503))["status"] == "leaving"
        await until(lambda: not made.ready)
        with pytest.raises(NoWorker):
            await ring(made)
        assert await asked(line, "0") == pid
        assert worker.process.returncode is None
        line.hang_up()
        assert await worker.ended() == 0
        await call.wait_closed()
        assert made.host.directory.get("anybody") is None
        assert not list(made.host.directory)


async def test_a_worker_whose_calls_do_not_end_is_gone_before_its_pod_is_killed():
    grace_s, told = pod_of_a_worker()
    async with (
        NatsServer() as server,
        role("worker", ANSWERING, "--nats", server.url, "--drain-s", "0.3") as worker,
        fleet(server.url) as made,
    ):
        await until(lambda: made.ready)
        _, line = await ring(made)
        await asked(line, "0")
        worker.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(grace_s - float(told["--drain-s"])):
            assert await worker.process.wait() == 1


async def test_a_worker_that_is_told_twice_leaves_its_call_to_another_one():
    async with (
        NatsServer() as server,
        role("worker", ANSWERING, "--nats", server.url) as first,
        fleet(server.url) as made,
    ):
        await until(lambda: made.ready)
        _, line = await ring(made)
        pid = await asked(line, "0")
        async with role("worker", ANSWERING, "--nats", server.url), hanging_up(made):
            await until(lambda: len(made.host.directory) == 2)
            first.process.send_signal(signal.SIGTERM)
            await first.reaches("/ready", 503)
            first.process.send_signal(signal.SIGTERM)
            assert await first.ended() == 1
            (hosted,) = made.host.calls
            await until(lambda: hosted.handed_over == 1 and hosted.worker)
            assert await asked(line, "0") != pid


async def test_a_killed_process_is_announced_and_replaced_and_its_call_goes_on(caplog):
    async with (
        NatsServer() as server,
        role("worker", ANSWERING, "--nats", server.url, "--processes", "2"),
        fleet(server.url) as made,
    ):
        await until(lambda: len(made.host.directory) == 2)
        _, line = await ring(made)
        pid = int((await asked(line, "0")).split()[1])
        with caplog.at_level(logging.WARNING):
            os.kill(pid, signal.SIGKILL)
            (hosted,) = made.host.calls
            await until(lambda: hosted.handed_over == 1 and hosted.worker)
        assert "its process has ended" in caplog.text
        assert int((await asked(line, "0")).split()[1]) != pid
        await until(lambda: len(made.host.directory) == 2)


async def test_a_process_that_cannot_be_started_now_is_started_later(monkeypatch, caplog):
    async with NatsServer() as server:
        supervisor = Supervisor(Orders(node="", target=ANSWERING), NatsSettings(servers=(server.url,)))
        stop, again = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(supervisor.run(stop, again))
        try:
            await until(lambda: supervisor.ready)
            (pid,) = supervisor.pids.values()
            with monkeypatch.context() as broken:
                broken.setattr(sys, "executable", str(ROOT / "no-python"))
                os.kill(pid, signal.SIGKILL)
                await until(lambda: "could not be started" in caplog.text)
            await until(lambda: supervisor.ready)
        finally:
            stop.set()
            async with asyncio.timeout(20):
                assert await running


async def test_a_process_that_was_to_start_when_all_are_told_to_stop_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("dialog.workers.supervisor.backoff_s", lambda _: 0.5)
    async with NatsServer() as server:
        supervisor = Supervisor(Orders(node="", target=ANSWERING), NatsSettings(servers=(server.url,)))
        stop, again = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(supervisor.run(stop, again))
        try:
            await until(lambda: supervisor._children)
            stop.set()
            async with asyncio.timeout(20):
                assert await asyncio.shield(running)
            assert not supervisor.pids
        finally:
            again.set()
            await asyncio.wait([running])


async def test_processes_whose_supervisor_is_killed_finish_their_calls_and_go():
    async with (
        NatsServer() as server,
        role("worker", ANSWERING, "--nats", server.url) as worker,
        fleet(server.url) as made,
    ):
        await until(lambda: made.ready)
        _, line = await ring(made)
        pid = int((await asked(line, "0")).split()[1])
        worker.process.kill()
        await until(lambda: not made.ready)
        assert await asked(line, "0") == f"pid {pid}"
        line.hang_up()
        await gone(pid)


async def test_labels_lead_calls_to_the_machines_that_have_what_they_need():
    async with (
        NatsServer() as server,
        role("worker", ANSWERING, "--nats", server.url),
        role("worker", ANSWERING, "--nats", server.url, "--labels", "gpu, german") as able,
        fleet(server.url, labels=lambda call: ("gpu",)) as made,
    ):
        await until(lambda: len(made.host.directory) == 2)
        for _ in range(3):
            await ring(made)
        async with asyncio.timeout(10):
            while json.loads((await able.get("/health"))[1])["calls"] != 3:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_gateway_without_any_code_and_a_worker_make_a_phone_line(processes):
    async with NatsServer() as server:
        env = {
            "NATS_URL": server.url,
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_BASE_URL": "http://127.0.0.1:9",
        }
        async with (
            role("gateway", "--leave-s", "0", "--processes", str(processes), env=env) as gateway,
            role("worker", f"{APPS}/greeting.py:on_voip", env=env) as worker,
        ):
            for _ in range(2 * processes):  # the next connection may land in another process
                await gateway.reaches("/ready", 200)
            for _ in range(2 * processes):
                async with Caller.dial(f"{gateway.url}/twilio", auth_token=TOKEN, account_sid=ACCOUNT) as caller:
                    heard = await caller.listen()
                    assert heard.duration_ms == pytest.approx(600, abs=60)
                    caller.press("1")  # it hangs up
                    await caller.wait_ended()
            worker.process.send_signal(signal.SIGTERM)
            assert await worker.ended() == 0
            await gateway.reaches("/ready", 503)
            gateway.process.send_signal(signal.SIGTERM)
            assert await gateway.ended() == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("worker", ANSWERING), "where does the fleet meet?"),
        (("worker", ANSWERING, "--nats", "http://x"), "is no address of NATS servers"),
        (("worker", f"{APPS}/answering.py:nothing", "--nats", "{url}"), "cannot be loaded"),
        (("gateway",), "who answers the calls?"),
        (("gateway", "--nats", "{url}"), "TWILIO_ACCOUNT_SID is not set"),
        (("gateway", f"{APPS}/answering.py:on_voip", "--nats", "{url}"), "takes no workers"),
    ],
)
async def test_what_cannot_work_is_said_at_the_start(arguments, complaint, tmp_path):
    async with NatsServer() as server:
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "dialog", *(part.replace("{url}", server.url) for part in arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            _, error = await process.communicate()
        assert process.returncode == 1
        assert complaint in " ".join(error.decode().split())


async def test_several_gateway_processes_of_one_address_share_the_workers():
    async with NatsServer() as server:
        env = {
            "NATS_URL": server.url,
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_BASE_URL": "http://127.0.0.1:9",
        }
        async with (
            role("gateway", "--processes", "2", "--leave-s", "0", env=env) as gateway,
            role("worker", f"{APPS}/greeting.py:on_voip", env=env),
        ):
            await gateway.reaches("/ready", 200)
            for _ in range(4):  # the webhook and the socket land anywhere
                async with Caller.dial(f"{gateway.url}/twilio", auth_token=TOKEN, account_sid=ACCOUNT) as caller:
                    assert (await caller.listen()).duration_ms == pytest.approx(600, abs=60)
                    caller.press("1")
                    await caller.wait_ended()
            gateway.process.send_signal(signal.SIGTERM)
            assert await gateway.ended() == 0


class Landing(House):
    """A gateway's process, and Twilio as far as it lands there."""

    def __init__(self, origin: str, session: aiohttp.ClientSession) -> None:
        self.origin = origin
        self.phone = Phone(f"{origin}/twilio", session)


async def test_a_call_outlives_the_gateway_process_that_had_it():
    async with NatsServer() as server, TwilioRestEmulator(account_sid=ACCOUNT, auth_token=TOKEN) as rest:
        env = {
            "NATS_URL": server.url,
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_BASE_URL": rest.url,
            "WEBHOOK_URL": "https://voice.example/twilio",
        }
        async with (
            role("gateway", "--leave-s", "0", env=env) as one,
            role("gateway", "--leave-s", "0", env=env) as two,
            role("worker", f"{APPS}/greeting.py:on_voip", env=env),
            aiohttp.ClientSession() as session,
        ):
            await one.reaches("/ready", 200)
            await two.reaches("/ready", 200)
            sid = new_sid()
            rest.add_call(sid)
            first, second = Landing(one.url, session), Landing(two.url, session)
            document = await first.ask(env["WEBHOOK_URL"], sid, CallStatus="ringing")
            opened = await first.stream(document, sid)
            assert (await opened.hear())["event"] == "media"
            one.process.kill()
            await one.ended()
            document = await second.ask(document.action, sid)
            assert document.verbs == ["Connect"]
            opened = await second.stream(document, sid)
            await opened.send("dtmf", streamSid=opened.stream_sid, dtmf={"track": "inbound_track", "digit": "0"})
            async with asyncio.timeout(10):
                while (await opened.hear())["event"] != "media":
                    pass
            await opened.stop()
