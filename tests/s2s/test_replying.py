"""Replies of a model, one after the other, without any socket."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from dialog.errors import LimitError
from dialog.message import Message, Playback
from dialog.s2s import replying
from dialog.s2s.replying import ReplyingS2S
from dialog.s2s.s2s import S2S
from dialog.s2s.timers import Timers


class Obedient(ReplyingS2S):
    """Notes what is asked of it."""

    provider = "obedient"

    def __init__(self) -> None:
        super().__init__()
        self._ready = True
        self.gone = False
        self.asked: list = []
        self.rests = 0
        self.told: list = []
        self.on(S2S.REPLIED, lambda replied: self.told.append((replied.uuid, replied.state)))

    def open(self, spec) -> None: ...

    def update(self, *, prompt, tools) -> None: ...

    def post(self, message) -> None: ...

    def begin(self, at_ms) -> None: ...

    def commit(self, uuid) -> None: ...

    def add(self, item) -> None: ...

    @property
    def _given_up(self) -> bool:
        return self.gone

    def _at_rest(self) -> None:
        self.rests += 1

    def _send_respond(self, reply) -> None:
        self.asked.append(reply.uuid)

    def _send_say(self, reply) -> None:
        self.asked.append(reply.text)

    def _send_cancel(self, reply) -> bool:
        return False

    def _send_answer(self, call_id, result) -> None:
        self.asked.append(result)


def test_replies_are_asked_for_when_the_one_before_is_over():
    model = Obedient()
    first, second = uuid4(), uuid4()
    model.respond(first)
    model.respond(second)
    assert model.asked == [first]
    model._over("completed")
    assert model.asked == [first, second]
    assert model.told == [(first, "completed")]
    assert model.rests == 1


def test_what_waits_too_long_in_too_long_a_row_is_given_up_and_told():
    model = Obedient()
    errors = []
    model.on(S2S.ERROR, lambda failure: errors.append(failure.error))
    uuids = [uuid4() for _ in range(replying._MOST_ASKED + 2)]
    for uuid in uuids:
        model.respond(uuid)
    assert model.told == [(uuids[1], "failed")]  # the first is being made
    assert [type(error) for error in errors] == [LimitError]


def test_nothing_is_asked_of_a_model_that_is_gone():
    model = Obedient()
    model.gone = True
    uuid = uuid4()
    model.respond(uuid)
    assert (model.asked, model.told) == ([], [(uuid, "failed")])


def test_a_reply_that_was_lost_before_it_began_is_asked_for_once_more():
    model = Obedient()
    uuid = uuid4()
    model.respond(uuid)
    for _ in range(2):
        model._lose_reply()
        model._next()
    assert model.asked == [uuid, uuid]
    assert model.told == [(uuid, "failed")]


def test_of_a_cancelled_reply_nothing_is_told_any_more():
    model = Obedient()
    heard = []
    model.on(S2S.MESSAGE, lambda message: heard.append(message.data))
    uuid = uuid4()
    model.respond(uuid)
    reply = model._began()
    model._audio(reply, "a", b"\xff" * 160)
    model.cancel(Playback(uuid=uuid, part=0, state="cut", heard_ms=10.0))
    model._words(reply, "a", "never heard")
    model._part_done(reply, "a")
    assert heard == [b"\xff" * 160]
    assert model.told == [(uuid, "cancelled")]


def test_text_that_comes_in_pieces_is_asked_for_as_a_whole_and_silence_not_at_all():
    model = Obedient()
    uuid = uuid4()
    model.say(Message(uuid=uuid, part=0, data=" ", done=False), verbatim=True)
    model.say(Message(uuid=uuid, part=0, data="", done=True), verbatim=True)
    assert (model.asked, model.told) == ([], [(uuid, "completed")])


@pytest.mark.parametrize("again", [False, True])
async def test_a_timer_rings_once_and_not_when_it_was_stopped_or_set_anew(again):
    rung = asyncio.Event()
    timers, early = Timers(), []
    timers.set("tea", 0.0, lambda: early.append(1))
    timers.set("soup", 0.0, lambda: early.append(2))
    timers.stop("soup", "nothing")
    if again:
        timers.set("tea", 0.001, rung.set)
    else:
        timers.set("rice", 0.001, rung.set)
    async with asyncio.timeout(5):
        await rung.wait()
    assert early == ([] if again else [1])
    assert len(timers) == 0
    timers.set("tea", 60.0, rung.set)
    assert "tea" in timers
    timers.stop_all()
    assert "tea" not in timers
