"""The call log: all of a call is kept, and no call waits for it."""

from __future__ import annotations

import asyncio
import gc
import re
import sqlite3
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from calling import Caller
from msgspec import structs
from sqlalchemy import delete, event, func, select, text, update

from dialog.calls import events as ev
from dialog.calls.delivery.endpoint import WebhookEndpoint
from dialog.calls.delivery.webhooks import Webhooks
from dialog.calls.publish import CallEvents
from dialog.calls.redact import Redaction
from dialog.calls.store import database
from dialog.calls.store import tables as t
from dialog.calls.store.database import _to_wal, current, make_engine, upgrade
from dialog.calls.store.log import CallLog
from dialog.calls.store.writing import LOST
from dialog.errors import ConfigurationError, StateError

HOOK = WebhookEndpoint(name="crm", url="http://127.0.0.1:1/", events=("*",))
"""Where nobody listens."""


async def flushed(log: CallLog) -> None:
    async with asyncio.timeout(20):
        await log.flush()


async def rows(log: CallLog, table, **where):
    query = select(table)
    for name, value in where.items():
        query = query.where(table.c[name] == value)
    async with log.engine.connect() as connection:
        return list(await connection.execute(query))


async def test_a_call_is_kept_with_its_turns_tools_usage_and_report(url):
    events = CallEvents()
    async with CallLog(url) as log:
        log.follow(events)
        call = Caller(events).start().turn().turn("at eight", "Done.", tool=True)
        await flushed(log)
        (live,) = await log.calls(live=True)
        assert (live.call_id, live.ended_at, live.from_, live.agent) == (
            call.call_id,
            None,
            "+15551230001",
            "FrontDesk",
        )
        assert await log.report(call.call_id) is None
        call.end()
        call.tell(ev.RecordingReady, url="https://carrier.example/1.wav")
        await flushed(log)

        found = await log.call(call.call_id)
        assert found.started_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        assert found.ended_at is not None
        assert (found.end_reason, found.caller_turns, found.agent_turns) == ("caller_hangup", 2, 2)
        assert found.recordings == ("https://carrier.example/1.wav",)
        assert await log.calls(live=True) == []
        assert [turn.caller for turn in await rows(log, t.turns)] == ["a table for two", "at eight"]
        (tool,) = await rows(log, t.tool_calls)
        assert (tool.name, tool.arguments, tool.result, tool.state) == ("book", '{"people": 2}', "booked", "ok")
        (used,) = await rows(log, t.usage)
        assert (used.model, used.input_tokens, used.output_tokens) == ("gpt-4.1-mini", 200, 40)
        assert used.cost_usd == pytest.approx(0.002)
        report = await log.report(call.call_id)
        assert [turn.agent for turn in report.turns] == ["At what time?", "Done."]
        kept = await log.events(call.call_id)
        assert report.events == tuple(kept)
        assert [event.seq for event in kept] == sorted(event.seq for event in kept)
        assert not any(isinstance(event, ev.CallerSaid) and not event.final for event in kept)
        assert await log.events(call.call_id, after=3, limit=2) == [e for e in kept if e.seq > 3][:2]


async def test_calls_are_found_page_by_page(url):
    events = CallEvents()
    async with CallLog(url) as log:
        log.follow(events)
        calls = [
            Caller(events, from_=f"+1555000{number % 2}").start(f"2026-01-02T03:04:{number:02}.000+00:00").end()
            for number in range(5)
        ]
        await flushed(log)
        newest = [call.call_id for call in reversed(calls)]
        first = await log.calls(limit=2)
        assert [each.call_id for each in first] == newest[:2]
        assert [each.call_id for each in await log.calls(before=first[-1])] == newest[2:]
        assert len(await log.calls(number="+15550001")) == 2
        since = datetime(2026, 1, 2, 3, 4, 3, tzinfo=UTC)
        assert [each.call_id for each in await log.calls(since=since)] == newest[:2]
        assert await log.call(uuid4()) is None


async def test_what_is_masked_is_in_no_table(sqlite_url, tmp_path):
    events = CallEvents(redaction=Redaction())
    async with CallLog(sqlite_url) as log:
        log.follow(events)
        call = Caller(events).start().turn("my card is 4111 1111 1111 1111", "Is it 4111 1111 1111 1111?")
        call.tell(ev.ToolStarted, turn=uuid4(), call_id="1", name="pay", arguments='{"card":"4111111111111111"}')
        call.end()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"[card]" in written
    assert not re.search(rb"4111 ?1111", written)


async def test_a_process_that_writes_elsewhere_takes_a_call_over(postgres_url):
    events, others = CallEvents(), CallEvents()
    async with CallLog(postgres_url) as log, CallLog(postgres_url) as other:
        log.follow(events)
        other.follow(others)
        call = Caller(events).start()
        await flushed(log)
        call.events = others
        call.turn().end()
        await flushed(other)
        report = await log.report(call.call_id)
        assert len(report.turns) == 1
        (row,) = await rows(log, t.calls)
        assert row.writer == other.writer


async def test_the_calls_of_a_process_that_is_gone_are_ended_by_another(url):
    events = CallEvents()
    async with CallLog(url) as log:
        log.follow(events)
        call = Caller(events).start().turn()
        over = Caller(events).start().end()
        await flushed(log)
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        async with log.engine.begin() as connection:  # as if it had been killed an hour ago
            await connection.execute(update(t.writers).values(writer="gone", seen_at=long_ago))
            await connection.execute(update(t.calls).values(writer="gone"))
        async with CallLog(url) as other:
            async with asyncio.timeout(20):  # it looks when it starts
                while (found := await other.call(call.call_id)).ended_at is None:
                    await asyncio.sleep(0.01)
            assert (found.end_reason, found.caller_turns) == (LOST, 1)
            assert (await other.call(over.call_id)).end_reason == "caller_hangup"
            await other._keeper.end_lost()
            await flushed(other)
            ends = [e for e in await other.events(call.call_id) if isinstance(e, ev.CallEnded)]
            assert len(ends) == 1

            # It was not gone: what it tells of the end counts.
            call.turn().end()
            await flushed(log)
            found = await other.call(call.call_id)
            assert (found.end_reason, found.caller_turns) == ("caller_hangup", 2)
            ends = [e for e in await other.events(call.call_id) if isinstance(e, ev.CallEnded)]
            assert [end.reason for end in ends] == ["caller_hangup"]


async def test_a_process_that_lives_keeps_its_calls(url):
    events = CallEvents()
    async with CallLog(url) as log, CallLog(url) as other:
        log.follow(events)
        call = Caller(events).start()
        await flushed(log)
        await other._keeper.end_lost()
        await flushed(other)
        assert (await other.call(call.call_id)).ended_at is None


async def test_a_clock_that_is_set_forward_takes_no_call_from_a_process_that_lives(url, monkeypatch):
    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=1)

    events, now = CallEvents(), time.time
    async with CallLog(url) as log, CallLog(url) as other:
        log.follow(events)
        call = Caller(events).start()
        await flushed(log)
        await other._keeper.round()
        monkeypatch.setattr("dialog.calls.store.keeping.datetime", Later)
        monkeypatch.setattr("dialog.calls.store.keeping.time.time", lambda: now() + 3600)
        for keeper in (other._keeper, log._keeper, other._keeper):
            await keeper.round()
        await flushed(other)
        assert (await log.call(call.call_id)).ended_at is None

        async with log.engine.begin() as connection:  # it is gone after all
            await connection.execute(delete(t.writers).where(t.writers.c.writer == log.writer))
        await other._keeper.round()
        await flushed(other)
        assert (await log.call(call.call_id)).end_reason == LOST


async def test_old_calls_are_deleted_with_all_that_is_kept_of_them(url):
    events = CallEvents()
    async with CallLog(url, keep_days=30) as log:
        log.follow(events)
        old, new, live = (Caller(events).start().turn(tool=True) for _ in range(3))
        old.end().tell(ev.RecordingReady, url="https://carrier.example/1.wav")
        new.end()
        await flushed(log)
        async with log.engine.begin() as connection:
            ended = datetime.now(UTC) - timedelta(days=31)
            await connection.execute(update(t.calls).where(t.calls.c.call_id == old.call_id).values(ended_at=ended))
        await log._keeper.sweep(30)
        assert {each.call_id for each in await log.calls()} == {new.call_id, live.call_id}
        for table in (t.events, t.turns, t.tool_calls, t.usage, t.recordings):
            assert await rows(log, table, call_id=old.call_id) == []
        assert await log.forget(new.call_id)
        assert not await log.forget(new.call_id)
        assert await rows(log, t.turns) == []


async def test_what_is_forgotten_does_not_come_back_with_what_waited_or_comes_late(url):
    events = CallEvents()
    async with CallLog(url, batch_s=60) as log, Webhooks(log, HOOK) as webhooks:
        log.follow(events)
        over, live = Caller(events).start().turn(tool=True).end(), Caller(events).start().turn()
        async with asyncio.timeout(20):
            assert await log.forget(over.call_id)
            assert await log.forget(live.call_id)
        over.tell(ev.RecordingReady, url="https://carrier.example/1.wav")
        await flushed(log)
        assert await webhooks.waiting() == {}
        for table in (t.calls, t.events, t.turns, t.tool_calls, t.usage, t.recordings):
            assert await rows(log, table) == []
        live.turn().end()  # it has a row again, with which all can be deleted
        await flushed(log)
        assert (await log.call(live.call_id)).end_reason == "caller_hangup"
        assert await log.forget(live.call_id)
        assert await rows(log, t.events) == []


async def test_a_recording_that_comes_late_is_kept_with_its_call_and_nothing_stays_in_memory(url):
    events = CallEvents()
    async with CallLog(url) as log:
        log.follow(events)
        call = Caller(events).start().end()
        await flushed(log)
        call.tell(ev.RecordingReady, url="https://carrier.example/1.wav")
        await flushed(log)
        found = await log.call(call.call_id)
        assert found.recordings == ("https://carrier.example/1.wav",)
        assert found.ended_at is not None
        assert log._batches._known == set()


async def test_a_call_that_was_placed_is_found_by_the_id_that_the_carrier_gave_it(url):
    events = CallEvents()
    async with CallLog(url) as log:
        log.follow(events)
        call = Caller(events, carrier_call_id="", direction="outbound").start()
        await flushed(log)
        call.metadata = structs.replace(call.metadata, carrier_call_id="CA17")
        call.tell(ev.CallProgressed, state="dialling", carrier_call_id="CA17")
        await flushed(log)
        assert (await log.call(call.call_id)).carrier_call_id == "CA17"
        call.end("no_answer")
        await flushed(log)
        assert (await log.call(call.call_id)).carrier_call_id == "CA17"
        assert (await log.report(call.call_id)).carrier_call_id == "CA17"


async def test_parties_whose_names_hold_what_postgresql_does_not_are_kept_without_it(url):
    events = CallEvents()
    async with CallLog(url) as log:
        log.follow(events)
        call = Caller(events, from_="ada\0", to="\0desk", carrier_call_id="web\0").start().turn().end()
        await flushed(log)
        found = await log.call(call.call_id)
        assert (found.from_.rstrip("\0"), found.end_reason) == ("ada", "caller_hangup")
        assert log.status.lost == 0


async def test_handing_over_neither_waits_nor_raises_whatever_the_database_does(sqlite_url, caplog):
    events = CallEvents()
    log = CallLog(sqlite_url, buffer=10)
    log.follow(events)
    call = Caller(events).start()
    for _ in range(10):
        call.turn()
    assert log.status.waiting == 10
    assert log.status.lost == call.seq - 10 - 10, "interims are not kept anyway"
    call.end()  # for an end there is room
    assert "buffer is full" in caplog.text
    await log.open()
    await flushed(log)
    found = await log.call(call.call_id)
    assert found.end_reason == "caller_hangup"
    assert found.events_lost == log.status.lost > 0
    assert log.status.waiting == 0
    await log.close()


async def test_a_database_that_is_away_for_a_while_gets_everything_afterwards(sqlite_url, tmp_path, caplog):
    events = CallEvents()
    async with CallLog(sqlite_url) as log:
        log.follow(events)
        async with log.engine.begin() as connection:
            await connection.execute(text("ALTER TABLE events RENAME TO gone"))
        call = Caller(events).start().turn()
        async with asyncio.timeout(10):
            while not log.status.failing:
                await asyncio.sleep(0.01)
        assert "cannot be written" in caplog.text
        call.turn().end()
        async with log.engine.begin() as connection:
            await connection.execute(text("ALTER TABLE gone RENAME TO events"))
        await flushed(log)
        assert not log.status.failing
        assert len((await log.report(call.call_id)).turns) == 2
        assert log.status.lost == 0


async def test_what_the_database_refuses_costs_only_itself(postgres_url, caplog):
    events = CallEvents()
    async with CallLog(postgres_url) as log:
        log.follow(events)
        good = Caller(events).start()
        bad = Caller(events, direction="nobody knows whence")
        bad.start()
        good.turn("with \0 in it", "NUL \0").end()
        await flushed(log)
        assert len((await log.report(good.call_id)).turns) == 1
        assert log.status.lost >= 1
        assert "cannot be kept" in caplog.text


async def test_closing_writes_what_waits(url):
    events = CallEvents()
    log = CallLog(url, batch_s=60)
    await log.open()
    log.follow(events)
    call = Caller(events).start().turn().end()
    await log.close()
    await log.close()
    with pytest.raises(StateError):
        await log.open()
    async with CallLog(url) as again:
        assert len((await again.report(call.call_id)).turns) == 1
        async with again.engine.connect() as connection:
            count = await connection.execute(select(func.count()).select_from(t.writers))
            assert count.scalar() == 1, "the first took its leave"
    call.tell(ev.DigitPressed, digit="1")  # nobody listens any more


async def test_a_batch_is_written_at_its_age_without_a_flush(sqlite_url, tmp_path):
    events = CallEvents()
    async with CallLog(sqlite_url, batch_s=0.05) as log:
        log.follow(events)
        call = Caller(events).start()
        async with asyncio.timeout(10):
            while log.status.waiting:
                await asyncio.sleep(0.01)
        with sqlite3.connect(tmp_path / "calls.db") as other:
            ((found,),) = other.execute("SELECT call_id FROM calls")
        assert found == call.call_id.hex


# Tables.


async def test_many_processes_may_make_the_tables_at_the_same_time(url):
    engines = [make_engine(url) for _ in range(4)]
    await asyncio.gather(*(upgrade(engine) for engine in engines))
    assert await current(engines[0]) == database.HEAD
    for engine in engines:
        await engine.dispose()


async def test_the_migrations_make_the_tables_that_the_code_uses(url):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    engine = make_engine(url)
    await upgrade(engine)
    async with engine.connect() as connection:
        found = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts={"compare_type": True}), t.metadata)
        )
    await engine.dispose()
    assert [each for each in found if "postgresql" not in url or each[0] != "modify_default"] == []


async def test_tables_of_a_newer_version_are_left_alone(url):
    engine = make_engine(url)
    await upgrade(engine)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="newer"):
        await upgrade(engine)
    await engine.dispose()


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_is_not_understood_is_refused_and_not_shown(url):
    with pytest.raises(ConfigurationError):
        CallLog(url)


@pytest.mark.parametrize(
    ("place", "word"),
    [
        ("sqlite:///{}/nowhere/calls.db", "unable to open"),
        ("sqlite:///{}/text", "not a database"),
        ("postgresql://ada:secret@127.0.0.1:1/calls", "127.0.0.1:1/calls .*(refused|failed)"),
        ("{postgres}", "does not exist"),
    ],
)
async def test_a_database_that_cannot_be_used_is_named_with_the_reason(place, word, tmp_path, request):
    (tmp_path / "text").write_text("This is a text of some length, and by no means a database. " * 20)
    if place == "{postgres}":
        place = request.getfixturevalue("postgres_server").get_uri(database="of_another")
    log = CallLog(place.format(tmp_path))
    with pytest.raises(ConfigurationError, match=f"the call log {place[:6]}.*{word}") as told:
        await log.open()
    assert "secret" not in str(told.value)
    assert "\n" not in str(told.value)
    await log.close()
    # aiosqlite leaves the thread of a connection that it could not make to itself; it still tells this loop of its end.
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, 10)


class Busy:
    """A new file, and a connection to it, while somebody else is about to make it."""

    def __init__(self, refusals: list[str]) -> None:
        self.refusals = refusals
        self.pauses = 0

    def execute(self, statement: str) -> None:
        assert statement == "PRAGMA journal_mode=WAL"
        if self.refusals:
            raise sqlite3.OperationalError(self.refusals.pop())

    def run_async(self, _: object) -> None:
        self.pauses += 1


def test_a_file_that_another_process_is_just_making_is_asked_again():
    busy = Busy(["database is locked"] * 3)
    _to_wal(busy, busy)
    assert busy.pauses == 3
    for refusals in (["file is not a database"], ["database is locked"] * 1000):
        with pytest.raises(sqlite3.OperationalError):
            _to_wal(Busy(refusals), Busy(refusals))


@pytest.mark.parametrize("options", [{"batch_s": 0}, {"buffer": 0}, {"keep_days": 0}, {"lost_after_s": 0}])
def test_settings_are_checked(options):
    with pytest.raises(ConfigurationError):
        CallLog("sqlite:///x.db", **options)


def test_the_password_is_not_shown():
    log = CallLog("postgresql://dialog:secret@db.example/calls")
    assert "secret" not in repr(log)


async def begins(connection: sqlite3.Connection) -> None:
    """Wait until a transaction can begin: the log itself may be writing."""
    async with asyncio.timeout(5):
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                await asyncio.sleep(0.01)
            else:
                return


@pytest.mark.parametrize("within", ["BEGIN IMMEDIATE", "UPDATE", "SELECT", "DELETE"])
async def test_who_is_cancelled_within_a_transaction_does_not_leave_the_database_locked(sqlite_url, tmp_path, within):
    async with CallLog(sqlite_url) as log:

        async def work() -> None:
            async with log.engine.begin() as connection:
                await connection.execute(update(t.calls).values(agent="x").returning(t.calls.c.call_id))
                await connection.execute(select(t.calls))
                await connection.execute(t.calls.delete())

        async with log.engine.begin() as connection:  # rows that a cursor has not come to yet
            started_at = datetime.now(UTC)
            await connection.execute(
                t.calls.insert(), [{"call_id": uuid4(), "started_at": started_at} for _ in range(1000)]
            )

        def executes(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if asyncio.current_task() is working and statement.startswith(within):
                asyncio.get_running_loop().call_soon(working.cancel)

        event.listen(log.engine.sync_engine, "before_cursor_execute", executes)
        gc.disable()  # it would let go of what was under way
        try:
            working = asyncio.create_task(work())
            await asyncio.wait([working])
            assert working.cancelled()
            with closing(sqlite3.connect(tmp_path / "calls.db", timeout=0.0, isolation_level=None)) as other:
                await begins(other)
        finally:
            gc.enable()


async def test_a_log_whose_end_cannot_be_noted_is_closed_all_the_same(sqlite_url, caplog):
    log = CallLog(sqlite_url)
    await log.open()
    async with log.engine.begin() as connection:
        await connection.execute(text("DROP TABLE writers"))
    await log.close()
    assert "its end could not be noted" in caplog.text
    assert log.engine.pool.checkedin() == 0


async def threads_are(before):
    """Wait until no connection to SQLite is left, each of which has a thread."""
    async with asyncio.timeout(10):
        while set(threading.enumerate()) - before:
            await asyncio.sleep(0.005)


async def test_a_connection_that_is_in_use_when_the_log_closes_is_closed_as_well(tmp_path):
    before = set(threading.enumerate())
    log = CallLog(f"sqlite:///{tmp_path}/calls.db")
    await log.open()
    reads, may_go = asyncio.Event(), asyncio.Event()

    async def read():
        async with log.engine.execution_options(reading=True).connect() as connection:  # it keeps no writer waiting
            await connection.execute(select(func.count()).select_from(t.calls))
            reads.set()
            await may_go.wait()

    reading = asyncio.create_task(read())
    await reads.wait()
    closing = asyncio.create_task(log.close())
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert not closing.done()
    may_go.set()
    await asyncio.gather(reading, closing)
    await threads_are(before)


async def test_a_log_that_cannot_be_opened_leaves_no_connection(tmp_path, monkeypatch):
    async def raises(self):
        raise OSError("the disk is full")

    before = set(threading.enumerate())
    monkeypatch.setattr("dialog.calls.store.keeping.Keeper.seen", raises)
    with pytest.raises(OSError, match="full"):
        await CallLog(f"sqlite:///{tmp_path}/calls.db").open()
    await threads_are(before)


async def test_a_connection_that_is_never_given_back_does_not_keep_the_log_from_closing(tmp_path, monkeypatch, caplog):
    log = CallLog(f"sqlite:///{tmp_path}/calls.db")
    await log.open()
    monkeypatch.setattr("dialog.calls.store.log._CLOSE_S", 0.2)
    async with log.engine.execution_options(reading=True).connect() as connection:
        await connection.execute(select(func.count()).select_from(t.calls))
        async with asyncio.timeout(10):
            await log.close()
        assert "1 connections are in use for longer than 0.2 s" in caplog.text
        await connection.invalidate()
