"""Whose calls are in the log: kept for every way in, and seen by nobody else."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from calling import Caller

from dialog.calls.publish import CallEvents
from dialog.calls.store import database
from dialog.calls.store import tables as t
from dialog.calls.store.database import current, make_engine
from dialog.calls.store.log import CallLog
from dialog.server.config import ApiToken, ClientSettings, PhoneNumber, TwilioTenant
from dialog.testing import WebCaller
from dialog.testing.callee import Callee

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
from service_line import ACCOUNT, FAST, OURS, THEIRS, TOKEN, Phone, api, service_line
from twilio_phone import until

OTHER = "AC" + "1" * 32
TOKENS = (
    ApiToken(name="all", token="token-of-everybody"),
    ApiToken(name="a", token="token-of-tenant-a", tenants=frozenset({"a"})),
    ApiToken(name="b", token="token-of-tenant-b", tenants=frozenset({"b"})),
    ApiToken(name="ab", token="token-of-a-and-b", tenants=frozenset({"a", "b"})),
)
ALL, A, B, BOTH = ({"Authorization": f"Bearer {each.token}"} for each in TOKENS)


async def flushed(log: CallLog) -> None:
    async with asyncio.timeout(20):
        await log.flush()


async def test_calls_are_found_by_their_tenant(url):
    events = CallEvents()
    async with CallLog(url, tenant_of=lambda call: {"AC1": "a", "AC2": "b"}.get(call.account_id, "")) as log:
        log.follow(events)
        mine, theirs, nobodys = (Caller(events, account_id=each).start() for each in ("AC1", "AC2", ""))
        await flushed(log)
        assert [(await log.call(each.call_id)).tenant for each in (mine, theirs, nobodys)] == ["a", "b", ""]
        assert [each.call_id for each in await log.calls(tenants=["a"])] == [mine.call_id]
        assert {each.call_id for each in await log.calls(tenants={"a", "b"})} == {mine.call_id, theirs.call_id}
        assert len(await log.calls()) == 3


async def test_a_tenant_stays_when_another_process_goes_on_with_the_call(postgres_url):
    first, second = CallEvents(), CallEvents()
    async with CallLog(postgres_url, tenant_of=lambda _: "a") as log, CallLog(postgres_url) as other:
        log.follow(first)
        other.follow(second)
        call = Caller(first).start()
        await flushed(log)
        call.events = second
        call.end()
        await flushed(other)
        found = await other.call(call.call_id)
        assert (found.tenant, found.end_reason) == ("a", "caller_hangup")


def two_tenants(rest):
    return {
        "a": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN, base_url=rest.url, pacing=FAST),
        "b": TwilioTenant(account_sid=OTHER, auth_token=TOKEN, base_url=rest.url),
    }


SETTINGS = {
    "public": True,
    "tenants": two_tenants,
    "numbers": {"first": PhoneNumber(number=OURS, tenant="a")},
    "api": api(tokens=TOKENS),
    "keep_ended": 1,
}


async def test_a_token_of_a_tenant_sees_its_finished_calls_of_every_kind_and_no_others(url):
    async with service_line(log=url, clients=ClientSettings(), **SETTINGS) as line:
        live, log, get = line.service.live, line.service.log, line.client.get
        a = Phone(f"{line.origin}/twilio/voice/a", line.session)
        b = Phone(f"{line.origin}/twilio/voice/b", line.session, account=OTHER)
        calls: dict[str, UUID] = {}
        for name, phone in (("inbound", a), ("of b", b)):
            socket = await phone.call()
            (session,) = live.live
            await until(lambda session=session: session.transcript)
            calls[name] = session.call.call_id
            await socket.stop()
            await until(lambda: not live.live)
        body = (await line.client.post("/v1/client-token", {}, headers=A)).body
        async with WebCaller.connect(f"{line.origin}{body['path']}", token=body["token"]):
            (session,) = live.live
            calls["client"] = session.call.call_id
        await until(lambda: not live.live)
        last = await b.call()  # only the last one is still remembered
        await last.stop()
        await until(lambda: not live.live)
        await flushed(log)
        calls["last of b"] = live.ended[0].call.call_id

        async def seen(headers, query="") -> set[UUID]:
            found = (await get(f"/v1/calls?state=ended{query}", headers=headers)).body["calls"]
            return {UUID(each["call_id"]) for each in found}

        ours, others = {calls["inbound"], calls["client"]}, {calls["of b"], calls["last of b"]}
        assert await seen(A) == ours
        assert await seen(B) == others
        assert await seen(BOTH) == await seen(ALL) == ours | others
        assert await seen(A, f"&before={calls['client']}") == {calls["inbound"]}
        assert (await get(f"/v1/calls?state=ended&before={calls['of b']}", headers=A)).status == 404
        for call_id in ours:
            path = f"/v1/calls/{call_id}"
            shown = (await get(path, headers=A)).body
            assert (shown["tenant"], shown["state"]) == ("a", "ended")
            assert (await get(f"{path}/recordings", headers=A)).body["recordings"] == []
            for rest in ("", "/transcript", "/recordings", "/recordings/0"):
                assert (await get(path + rest, headers=B)).status == 404
        (spoken,) = (await get(f"/v1/calls/{calls['inbound']}/transcript", headers=A)).body["lines"]
        assert spoken["text"] == "Good day to you."
        assert {(await log.call(each)).carrier for each in ours} == {"twilio", "web"}


async def test_a_recording_of_a_placed_call_is_fetched_from_the_log_by_its_tenant_alone(url):
    start = {"assistantId": "desk", "phoneNumberId": "first", "customer": {"number": THEIRS}}
    async with service_line(log=url, **SETTINGS) as line:
        line.rest.callees[THEIRS] = Callee(light=True)
        call_id = (await line.client.post("/call/start", start, headers=A)).body["call_id"]
        session = line.service.live.live[0]
        voip = line.service.get(session.call.call_id)
        await until(lambda: voip.state == "live")
        await voip.start_recording()
        await voip.hangup()
        await until(lambda: session.recordings)
        await flushed(line.service.log)
        line.service.live._ended.clear()  # as after a restart
        path = f"/v1/calls/{call_id}/recordings"
        assert len((await line.client.get(path, headers=A)).body["recordings"]) == 1
        fetched = await line.client.get(f"{path}/0", headers=A)
        assert (fetched.status, fetched.body[:4]) == (200, b"RIFF")
        assert (await line.client.get(f"{path}/0", headers=B)).status == 404
        record = await line.service.log.call(UUID(call_id))
        assert (record.tenant, record.direction) == ("a", "outbound")

        # As an older version has written it, which did not tell.
        async with line.service.log.engine.begin() as connection:
            await connection.execute(sa.update(t.calls).values(tenant=""))
        assert (await line.client.get(f"{path}/0", headers=ALL)).status == 200
        assert (await line.client.get(f"{path}/0", headers=A)).status == 404


# Tables of the version before.


def to_the_version_before(connection: sa.Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "0001")


def written_before() -> tuple[UUID, sa.Insert]:
    """A row as the version before writes it."""
    call_id = uuid4()
    columns = [sa.column(each.name, each.type) for each in t.calls.c if each.name != "tenant"]
    row = {
        "call_id": call_id,
        "carrier": "twilio",
        "carrier_call_id": "CA1",
        "from_number": "+15551230001",
        "to_number": "+15551230002",
        "direction": "inbound",
        "agent": "FrontDesk",
        "started_at": datetime.now(UTC),
        "ended_at": datetime.now(UTC),
        "end_reason": "caller_hangup",
        "end_detail": "",
        "events_lost": 0,
        "writer": "old",
    }
    return call_id, sa.table("calls", *columns).insert().values(row)


async def test_calls_of_the_version_before_are_still_there_and_it_may_go_on_writing(url):
    engine = make_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(to_the_version_before)
        old, insert = written_before()
        await connection.execute(insert)
    assert await current(engine) == "0001"
    events = CallEvents()
    async with CallLog(url, tenant_of=lambda _: "a") as log:
        assert await current(engine) == database.HEAD
        log.follow(events)
        new = Caller(events).start().end()
        await flushed(log)
        beside, insert = written_before()
        async with engine.begin() as connection:  # one of the fleet that was not upgraded yet
            await connection.execute(insert)
        found = {each.call_id: each.tenant for each in await log.calls()}
        assert found == {old: "", new.call_id: "a", beside: ""}
        assert (await log.call(old)).end_reason == "caller_hangup"
        assert [each.call_id for each in await log.calls(tenants=["a"])] == [new.call_id]
    await engine.dispose()
