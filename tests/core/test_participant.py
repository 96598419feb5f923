"""Typed events, owned tasks, the end."""

from __future__ import annotations

import asyncio
import logging
from typing import ClassVar

import pytest

from dialog.errors import ProviderError, RemoteProtocolError, UserCodeError
from dialog.message import Failure
from dialog.participant import Event, Participant
from dialog.scope import CallScope


class Thing(Participant):
    WORD: ClassVar[Event[str]] = Event("word")

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def take(self, word: str) -> None:
        self.words.append(word)

    def choke(self, word: str) -> None:
        raise ValueError(f"cannot take a word of {len(word)}")


async def test_listeners_get_the_payload_in_the_order_of_their_registration():
    thing, heard = Thing(), []
    thing.on(Thing.WORD, lambda word: heard.append(("first", word)))
    thing.on(Thing.WORD, lambda word: heard.append(("second", word)))
    thing.emit(Thing.WORD, "hello")
    assert heard == [("first", "hello"), ("second", "hello")]


async def test_a_listener_that_raises_is_its_owners_error_and_nobody_elses():
    speaker, listener, bystander, failures = Thing(), Thing(), Thing(), []
    speaker.on(Participant.ERROR, lambda failure: failures.append(("speaker", failure)))
    listener.on(Participant.ERROR, lambda failure: failures.append(("listener", failure)))
    speaker.on(Thing.WORD, listener.choke)
    speaker.on(Thing.WORD, bystander.take)
    speaker.emit(Thing.WORD, "hello")
    assert bystander.words == ["hello"]
    [(who, failure)] = failures
    assert who == "listener"
    assert isinstance(failure.error, UserCodeError)
    assert isinstance(failure.error.__cause__, ValueError)


async def test_a_failing_function_that_nobody_owns_is_logged(caplog):
    thing = Thing()

    def broken(word: str) -> None:
        raise ValueError("broken")

    thing.on(Thing.WORD, broken)
    with caplog.at_level(logging.ERROR):
        thing.emit(Thing.WORD, "hello")
    assert "broken" in caplog.text


async def test_an_error_inside_an_error_listener_only_logs(caplog):
    thing, other = Thing(), Thing()
    thing.on(Participant.ERROR, other.choke)
    with caplog.at_level(logging.ERROR):
        thing.fail(ProviderError("deepgram", "gone", retryable=True))
    assert "choke" in caplog.text


async def test_errors_before_anybody_listens_are_held(caplog):
    thing, failures = Thing(), []
    thing.fail(ProviderError("deepgram", "refused", retryable=False), fatal=True)
    assert "refused" in caplog.text
    thing.on(Participant.ERROR, failures.append)
    assert [failure.fatal for failure in failures] == [True]
    thing.on(Participant.ERROR, failures.append)
    assert len(failures) == 1, "handed over once"


async def test_only_of_code_that_raised_the_log_shows_where(caplog):
    refused = ProviderError("deepgram", "cannot connect", retryable=True)
    raised = UserCodeError("inference raised KeyError('x')")
    for level, traced in ((logging.ERROR, [raised]), (logging.DEBUG, [refused, raised])):
        caplog.clear()
        with caplog.at_level(level, logger="dialog.participant"):
            for error in (refused, raised):
                error.__cause__ = KeyError("x")
                Thing().fail(error, fatal=True)
        assert [record.args[1] for record in caplog.records if record.exc_info] == traced
        assert len(caplog.records) == 2


async def test_what_may_come_with_every_message_is_told_once():
    one, other = Participant(), Participant()
    told: list[str] = []
    for participant in (one, other):
        participant.on(Participant.ERROR, lambda failure: told.append(str(failure.error)))
        for _ in range(3):
            participant.fail_once(RemoteProtocolError("odd"))
    one.fail_once(RemoteProtocolError("very odd"))
    assert told == ["odd", "odd", "very odd"]


async def test_async_listeners_are_refused_with_the_way_out():
    thing = Thing()

    async def listen(word: str) -> None:
        """Not allowed."""

    with pytest.raises(TypeError, match="spawn"):
        thing.on(Thing.WORD, listen)


async def test_nothing_is_delivered_after_dispose_even_to_the_rest_of_the_listeners():
    thing, other = Thing(), Thing()
    thing.on(Thing.WORD, lambda _: thing.dispose())
    thing.on(Thing.WORD, other.take)
    thing.emit(Thing.WORD, "hello")
    thing.emit(Thing.WORD, "again")
    assert other.words == []


async def test_off_forgets_a_listener_and_ignores_strangers():
    thing, other = Thing(), Thing()
    thing.on(Thing.WORD, other.take)
    thing.off(Thing.WORD, other.take)
    thing.off(Thing.WORD, other.take)
    thing.emit(Thing.WORD, "hello")
    assert other.words == []


async def test_a_failing_task_is_a_fatal_error_of_its_owner():
    thing, failed = Thing(), asyncio.get_running_loop().create_future()
    thing.on(Participant.ERROR, failed.set_result)

    async def work() -> None:
        raise OSError("no route")

    thing.spawn(work(), "connector")
    async with asyncio.timeout(1):
        failure: Failure = await failed
    assert failure.fatal
    assert "Thing connector" in str(failure.error)
    assert isinstance(failure.error.__cause__, OSError)


async def test_dispose_cancels_tasks_and_can_be_waited_for_and_repeated():
    thing, ended, running = Thing(), [], asyncio.Event()

    async def work() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    thing.spawn(work(), "worker")
    await running.wait()
    thing.dispose()
    thing.dispose()
    await thing.wait_disposed()
    assert ended == [True]
    assert thing.spawn(work(), "late") is None


async def test_a_task_that_will_not_end_is_given_up_by_name(caplog):
    thing, release = Thing(), asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    task = thing.spawn(stubborn(), "stubborn")
    await asyncio.sleep(0)
    thing.dispose()
    await thing.wait_disposed(timeout_s=0.01)
    assert "Thing stubborn" in caplog.text
    release.set()
    await task


async def test_a_participant_may_dispose_itself_from_its_own_task():
    thing, done = Thing(), asyncio.Event()

    async def leave() -> None:
        thing.dispose()
        await thing.wait_disposed()
        done.set()

    thing.spawn(leave(), "leaver")
    async with asyncio.timeout(1):
        await done.wait()


async def test_a_scope_knows_who_was_made_in_it_and_disposes_the_newest_first():
    scope, order = CallScope("call"), []

    class Noted(Thing):
        def dispose(self) -> None:
            if not self.disposed:
                order.append(self)
            super().dispose()

    outside = Noted()
    with scope.entered():
        first, second = Noted(), Noted()
    assert scope.members == (first, second)
    assert await scope.close() == ("Noted", "Noted")
    assert order == [second, first]
    assert not outside.disposed
    assert scope.members == ()


async def test_tasks_of_a_call_create_participants_of_that_call():
    scope, made = CallScope("call"), []

    async def later() -> None:
        made.append(Thing())

    with scope.entered():
        task = asyncio.get_running_loop().create_task(later())
    await task
    assert scope.members == (made[0],)
    await scope.close()


async def test_work_spawned_from_a_foreign_context_still_belongs_to_its_owners_call():
    mine, other, made = CallScope("mine"), CallScope("other"), []
    with mine.entered():
        thing = Thing()

    async def create() -> None:
        made.append(Thing())

    with other.entered():
        task = thing.spawn(create(), "creator")
    await task
    assert mine.members == (thing, made[0])
    assert other.members == ()
    await mine.close()


async def test_a_lingering_participant_outlives_the_close_until_its_bound():
    scope = CallScope("call")
    with scope.entered():
        voip, agent, stt = Thing(), Thing(), Thing()
    scope.linger(agent, 5)
    closing = asyncio.get_running_loop().create_task(scope.close(last=(voip,)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert stt.disposed
    assert not agent.disposed
    assert not voip.disposed
    agent.dispose()
    async with asyncio.timeout(1):
        assert await closing == ("Thing",)
    assert voip.disposed


async def test_but_not_longer():
    scope = CallScope("call")
    with scope.entered():
        agent = Thing()
    scope.linger(agent, 0.01)
    async with asyncio.timeout(1):
        await scope.close()
    assert agent.disposed
