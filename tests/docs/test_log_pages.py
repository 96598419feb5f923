"""What the pages of the call log and of webhooks say happens, with their own code."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer
from test_code_blocks import run

import dialog
from dialog.calls.events import CallEnded, CallStarted
from dialog.calls.store.log import CallLog
from dialog.testing.caller import Caller

sys.path.insert(0, str(Path(__file__).parents[1] / "twilio"))
from twilio_phone import ACCOUNT, TOKEN

SECRET = "a secret of the test"


@pytest.fixture
def gateways(monkeypatch):
    """The gateways that the pages make, with the account of the test."""
    made = []

    class Gateway(dialog.TwilioGateway):
        def __init__(self, **settings) -> None:
            super().__init__(**{**settings, "account_sid": ACCOUNT, "auth_token": TOKEN})
            self.on("voip", lambda _: None)
            made.append(self)

    monkeypatch.setattr(dialog, "TwilioGateway", Gateway)
    return made


async def call_once(main, **arguments) -> None:
    """Run the page's program, call it, hang up, and let it end."""
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    program = asyncio.create_task(
        main(host="127.0.0.1", port=0, leave_s=0.0, stop=stop, started=port.set_result, **arguments)
    )
    async with asyncio.timeout(20):
        url = f"http://127.0.0.1:{await port}/twilio"
        async with Caller.dial(url, auth_token=TOKEN, account_sid=ACCOUNT) as caller:
            await caller.hang_up()
        stop.set()
        await program


async def test_the_program_of_the_call_log_page_keeps_calls(gateways, tmp_path):
    names = run("docs/call-log.md")
    url = f"sqlite:///{tmp_path / 'calls.db'}"
    await call_once(names["main"], url=url)
    async with CallLog(url) as log:
        (line,) = [line for line in await names["look"](log) if "caller_hangup" in line]
        assert line.endswith(" s")
        (call,) = await log.calls()
        kinds = [type(event) for event in await log.events(call.call_id)]
        assert (kinds[0], kinds[-1]) == (CallStarted, CallEnded)


async def test_the_receiver_of_the_webhooks_page_gets_what_its_program_sends(gateways, tmp_path):
    names = run("docs/webhooks.md")
    told: list[str] = []
    async with TestServer(names["receiver"](SECRET, told)) as server:
        url = f"sqlite:///{tmp_path / 'calls.db'}"
        hook = str(server.make_url("/"))
        await call_once(names["main"], hook=hook, secret=SECRET, url=url)
        log = CallLog(url)
        webhooks = dialog.Webhooks(log, dialog.WebhookEndpoint(name="crm", url=hook, secrets=(SECRET,)))
        async with log, webhooks, asyncio.timeout(20):
            while await webhooks.waiting():  # what the program has left
                await asyncio.sleep(0.02)
            assert told == ["call.started", "call.ended"]
            assert await names["look"](webhooks) == 0
