"""Calls of a program that is not ours: SIPp, with which SIP servers are tested.

Real time, since it knows no other. Debian's package is sip-tester.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from ports import free_port
from sip_house import Desk, a_gateway, speech, until

from dialog.clock import SYSTEM_CLOCK
from dialog.message import Message
from dialog.voip.admission import Accept
from dialog.voip.sip.gateway import SIPGateway
from dialog.voip.sip.voip import SIPVoIP

SCENARIOS = Path(__file__).parent / "scenarios"


def executable() -> str:
    """Where SIPp is. Without it the tests are skipped, but not where they have to run."""
    found = shutil.which("sipp")
    if found is None:
        why = "no SIPp on this machine: apt-get install sip-tester"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    return found


@asynccontextmanager
async def sipp(gateway: SIPGateway, tmp_path: Path, *options: str):
    """SIPp calls the gateway; it has to be content in the end."""
    signalling, media = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM)
    process = await asyncio.create_subprocess_exec(
        executable(),
        *("-s", "1000", "-i", "127.0.0.1", "-p", str(signalling), "-mi", "127.0.0.1", "-mp", str(media)),
        *("-nostdin", "-timeout", "20s", "-timeout_error", "-trace_err", "-error_file", "errors.log"),
        *options,
        f"127.0.0.1:{gateway.port}",
        cwd=tmp_path,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
        async with asyncio.timeout(25):
            _, told = await process.communicate()
        errors = tmp_path / "errors.log"
        assert process.returncode == 0, (told, errors.read_text() if errors.exists() else "")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def scenario(name: str) -> tuple[str, ...]:
    return ("-sf", str(SCENARIOS / f"{name}.xml"), "-m", "1")


async def test_what_the_agent_says_comes_back_from_an_echo(tmp_path):
    desk = Desk()
    async with a_gateway(desk, clock=SYSTEM_CLOCK) as gateway, sipp(gateway, tmp_path, *scenario("echo"), "-rtp_echo"):
        await until(lambda: desk.life == ["live 1"])
        [voip] = desk.voips
        assert (voip.metadata.from_, voip.metadata.to) == ("+15550100", "1000")
        assert voip.metadata.parameter("X-Campaign") == "spring"
        said, turn = speech(600), uuid4()
        voip.post(Message(uuid=turn, data=said, done=True))
        await until(lambda: any(each.state == "played" for each in desk.reports))
        await until(lambda: desk.loud_ms >= 580)
        heard = b"".join(each.data for each in desk.audio)
        assert said[800:1600] in heard  # to the byte: nothing is lost and nothing comes between
        await voip.hangup()
        assert desk.ends[0].reason == "agent_hangup"


async def test_a_caller_speaks_presses_a_key_and_hangs_up(tmp_path):
    said = speech(800)
    (tmp_path / "speech.ulaw").write_bytes(said)
    desk = Desk()
    async with a_gateway(desk, clock=SYSTEM_CLOCK) as gateway, sipp(gateway, tmp_path, *scenario("speaks")):
        await until(lambda: desk.ends, timeout_s=20)
        assert desk.ends[0].reason == "caller_hangup"
        assert desk.digits == ["5"]
        assert said[:1600] in b"".join(each.data for each in desk.audio)
        assert desk.loud_ms >= 700
        assert desk.life == ["live 1", "ended"]


async def test_a_transfer_is_carried_out_by_the_other_side(tmp_path):
    desk = Desk()
    async with a_gateway(desk, clock=SYSTEM_CLOCK) as gateway, sipp(gateway, tmp_path, *scenario("transfer")):
        await until(lambda: desk.life == ["live 1"])
        await desk.voips[0].transfer_to("+15550123")
        await until(lambda: desk.ends)
        assert desk.ends[0].reason == "transferred"


async def test_the_agent_is_put_on_hold_and_taken_back(tmp_path):
    desk = Desk()
    async with a_gateway(desk, clock=SYSTEM_CLOCK) as gateway, sipp(gateway, tmp_path, *scenario("hold")):
        await until(lambda: desk.ends, timeout_s=20)
        assert desk.life == ["live 1", "ended"]
        assert desk.ends[0].reason == "caller_hangup"


async def test_a_caller_gives_up_before_the_call_is_answered(tmp_path):
    async def resolver(offer):
        await asyncio.sleep(30)
        return Accept()

    desk = Desk()
    async with a_gateway(desk, clock=SYSTEM_CLOCK, resolver=resolver, resolver_timeout_s=30.0) as gateway:
        async with sipp(gateway, tmp_path, *scenario("cancel")):
            pass
        assert not desk.voips


async def test_fifty_calls_come_at_once(tmp_path):
    """SIPp's own scenario for a caller: a second each, fifty a second."""

    def greet(voip: SIPVoIP) -> None:
        voip.post(Message(uuid=uuid4(), data=speech(300), done=True))

    desk = Desk(greet)
    async with a_gateway(desk, clock=SYSTEM_CLOCK) as gateway:
        async with sipp(gateway, tmp_path, "-sn", "uac", "-m", "50", "-r", "50", "-d", "1000"):
            pass
        await until(lambda: len(desk.ends) == 50)
        assert {end.reason for end in desk.ends} == {"caller_hangup"}
        assert sum(each.final for each in desk.reports) == 50
