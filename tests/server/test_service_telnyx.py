"""A service with an account at Telnyx beside one at Twilio: calls, the REST API, text messages."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from service_line import ACCOUNT, FAST, OURS, THEIRS, TOKEN, service_line
from twilio_phone import until

from dialog.errors import ConfigurationError
from dialog.server.api.core import Matched
from dialog.server.api.operations import OPERATIONS
from dialog.server.config import PhoneNumber
from dialog.server.service import Service
from dialog.server.tenants import TelnyxTenant, TwilioTenant
from dialog.testing import Callee, TelnyxEmulator
from dialog.voip.telnyx.voip import TelnyxVoIP

sys.path.insert(0, str(Path(__file__).parents[1] / "telnyx"))

AT_TELNYX = "+15551230077"


def at_telnyx(telnyx: TelnyxEmulator, **more) -> TelnyxTenant:
    return TelnyxTenant(
        api_key=telnyx.api_key,
        public_key=telnyx.public_key,
        connection_id=telnyx.connection_id,
        base_url=telnyx.url,
        pacing=FAST,
        **more,
    )


@asynccontextmanager
async def line_of_two(**more):
    async with (
        TelnyxEmulator() as telnyx,
        service_line(
            public=True,
            tenants=lambda rest: {
                "main": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN, base_url=rest.url, pacing=FAST),
                "other": at_telnyx(telnyx, **more),
            },
            numbers={
                "first": PhoneNumber(number=OURS, tenant="main"),
                "second": PhoneNumber(number=AT_TELNYX, tenant="other"),
            },
        ) as line,
    ):
        telnyx.webhook_url = f"{line.origin}/twilio/voice/other"
        yield line, telnyx


async def test_a_call_over_telnyx_is_one_of_its_tenant() -> None:
    async with line_of_two() as (line, telnyx), telnyx.dial(to=AT_TELNYX) as caller:
        voip = line.service.get(caller.call_sid)
        assert isinstance(voip, TelnyxVoIP)
        session = line.service.session(voip.metadata.call_id)
        assert session.tenant == "other"
        await until(lambda: session.transcript)
        assert session.transcript[0].text == "Good day to you."
        shown = await line.client.get(f"/v1/calls/{voip.metadata.call_id}")
        assert (shown.body["carrier"], shown.body["tenant"]) == ("telnyx", "other")
        ended = await line.client.post(f"/v1/calls/{voip.metadata.call_id}/hangup")
        assert ended.status < 300, ended.body
        await caller.wait_ended()
        assert [command.action for command in telnyx.commands] == ["answer", "hangup"]


async def test_a_full_tenant_at_telnyx_is_busy() -> None:
    async with line_of_two(max_calls=1) as (_, telnyx), telnyx.dial(to=AT_TELNYX):
        async with telnyx.dial(to=AT_TELNYX) as late:
            await late.wait_ended()
        assert [command.action for command in telnyx.commands] == ["answer", "reject"]


async def test_calls_and_messages_are_placed_from_numbers_at_telnyx() -> None:
    async with line_of_two() as (line, telnyx):
        telnyx.callees[THEIRS] = Callee()
        body = {"assistantId": "desk", "phoneNumberId": "second", "customer": {"number": THEIRS}}
        placed = await line.client.post("/call/start", body)
        assert placed.status < 300, placed.body
        await until(lambda: any(command.action == "dial" for command in telnyx.commands))
        dialled = next(command.fields for command in telnyx.commands if command.action == "dial")
        assert (dialled["from"], dialled["to"]) == (AT_TELNYX, THEIRS)
        assert (await line.service.send_sms(THEIRS, "Hello.", number="second")).status == "queued"
        assert telnyx.messages[0]["from"] == {"phone_number": AT_TELNYX}
        assert not line.rest.placed
        for call in line.service.calls:
            await call.voip.hangup()
        await telnyx.wait_hung_up()


def test_two_tenants_have_two_applications() -> None:
    tenant = TelnyxTenant(api_key="KEY-secret", public_key="a secret of no kind", connection_id="1")
    assert "KEY-secret" not in repr(tenant)
    from service_line import assistant

    from dialog.server.config import ServiceConfig

    with pytest.raises(ConfigurationError, match="two tenants have the same account"):
        ServiceConfig(assistants={"desk": assistant()}, tenants={"a": tenant, "b": tenant})


class Beside:
    """The peers of a process beside the one that has the calls, without anything in between."""

    def __init__(self, there: Service) -> None:
        self.others = {"there"}
        self._there = there

    async def ask(self, node: str, call_id: UUID, request: bytes) -> bytes:
        return await self._there.api.elsewhere.answer(request)


async def test_a_recording_at_telnyx_is_fetched_by_any_process() -> None:
    async with line_of_two() as (line, telnyx), telnyx.dial(to=AT_TELNYX) as caller:
        voip = line.service.get(caller.call_sid)
        assert voip is not None
        session = line.service.session(voip.metadata.call_id)
        await voip.start_recording()
        await voip.stop_recording()
        await until(lambda: session.recordings)
        beside = Service(line.service.config)
        beside.api.elsewhere.peers = Beside(line.service)
        recording = next(each for each in OPERATIONS if each.name == "recording")
        path = {"call_id": str(voip.metadata.call_id), "index": "0"}
        token = line.service.config.api.tokens[0]
        answer = await beside.api.answer(Matched(operation=recording, path=path, query=None, token=token))
        assert b"".join([piece async for piece in answer.stream]) == telnyx.recording_wav
        for gateway in beside.gateways.values():
            await gateway.close()
        await voip.hangup()
