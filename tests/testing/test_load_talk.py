"""What a caller of a load does next, and which silences he notes."""

from __future__ import annotations

import random

import pytest

from dialog.testing.heard import Stretch
from dialog.testing.load_talk import Talk, TalkSettings


class Evenly(random.Random):
    """Every pause is as long as it is on an average."""

    def uniform(self, a, b):
        return (a + b) / 2


def talk(**settings) -> Talk:
    usual = {
        "turns": 2,
        "hang_up": "after-reply",
        "greeting_ms": 5000.0,
        "reply_ms": 8000.0,
        "silence_ms": 700.0,
        "pause_ms": 500.0,
        "longest_ms": 60_000.0,
    }
    return Talk(TalkSettings(**{**usual, **settings}), Evenly())


def run(talk: Talk, until_ms: int, *stretches: tuple[float, float], since_ms: int = 0) -> list[tuple[int, str]]:
    """Look every 100 ms; the agent sounds during the stretches."""
    steps = []
    for now in range(since_ms, until_ms + 1, 100):
        begun = [one for one in stretches if one[0] <= now]
        last = Stretch(begun[-1][0], min(begun[-1][1], now)) if begun else None
        if step := talk.step(now, last):
            steps.append((now, step))
    return steps


def test_the_caller_speaks_when_the_greeting_is_over_and_a_breath_was_taken():
    one = talk()
    greeting = one.wait
    assert run(one, 4000, (250, 2000)) == [(3200, "speak")]
    assert (greeting.heard_ms, greeting.asked, greeting.timed) == (250, False, True)


def test_without_a_greeting_the_caller_speaks_all_the_same():
    one = talk()
    greeting = one.wait
    assert run(one, 6000) == [(5500, "speak")]
    assert greeting.over
    assert greeting.heard_ms is None


def test_the_reply_is_timed_from_the_end_of_the_voice():
    one = talk()
    run(one, 3200, (250, 2000))
    one.spoke(4480)
    assert run(one, 9000, (250, 2000), (5290, 7000), since_ms=4500) == [(8200, "speak")]
    assert one.spoken == 2


def test_after_the_last_reply_was_heard_out_the_caller_leaves():
    one = talk(turns=1)
    run(one, 3200, (250, 2000))
    one.spoke(4480)
    assert run(one, 12_000, (250, 2000), (5290, 7000), since_ms=4500) == [(7700, "leave")]
    assert one.complete
    assert one.may_end


@pytest.mark.parametrize(("hang_up", "step"), [("mid-reply", "leave"), ("reset", "reset")])
def test_who_is_impatient_leaves_in_the_middle_of_the_last_reply(hang_up, step):
    one = talk(turns=1, hang_up=hang_up)
    run(one, 3200, (250, 2000))
    one.spoke(4480)
    assert run(one, 12_000, (250, 2000), (5290, 7000), since_ms=4500) == [(5800, step)]


def test_who_waits_for_the_agent_to_end_the_call_leaves_only_when_time_is_over():
    one = talk(turns=1, hang_up="agent", longest_ms=20_000.0)
    run(one, 3200, (250, 2000))
    one.spoke(4480)
    assert not one.may_end
    assert run(one, 19_000, (250, 2000), (5290, 7000), since_ms=4500) == []
    assert one.may_end
    assert run(one, 20_000, (250, 2000), (5290, 7000), since_ms=19_100) == [(20_000, "leave")]
    assert not one.complete


def test_who_gets_no_reply_asks_the_next_question_when_patience_is_over():
    one = talk()
    run(one, 3200, (250, 2000))
    one.spoke(4500)
    wait = one.wait
    assert run(one, 14_000, (250, 2000), since_ms=4500) == [(13_000, "speak")]
    assert wait.over
    assert wait.heard_ms is None


def test_an_agent_that_goes_on_into_the_callers_words_has_answered_but_was_not_timed():
    one = talk()
    run(one, 3200, (250, 2000))
    one.spoke(4500)
    wait = one.wait
    run(one, 6000, (250, 2000), (3500, 5800), since_ms=4500)
    assert wait.heard_ms == 4500
    assert not wait.timed


def test_the_tail_of_what_was_said_before_is_no_reply():
    one = talk()
    run(one, 3200, (250, 2000))
    one.spoke(4500)
    wait = one.wait
    run(one, 6000, (250, 2000), (3500, 4800), since_ms=4500)
    assert wait.heard_ms is None


def test_without_a_number_of_turns_the_caller_talks_as_long_as_there_is_time():
    one = talk(turns=None, longest_ms=30_000.0)
    now, spoken = 0, 0
    while True:
        steps = run(one, now, (now - 2000, now - 1000), since_ms=now)
        if steps == [(now, "speak")]:
            one.spoke(now)
            spoken += 1
        elif steps:
            break
        now += 100
    assert steps == [(30_000, "leave")]
    assert one.complete
    assert spoken == one.spoken > 5


def test_who_only_listens_to_the_greeting_leaves_after_it():
    assert run(talk(turns=0), 4000, (250, 2000)) == [(2700, "leave")]


def test_pauses_vary_by_half_and_repeat_with_their_seed():
    def spoke_at(seed: int) -> int:
        one = Talk(talk()._settings, random.Random(seed))
        return run(one, 4000, (250, 2000))[0][0]

    assert [spoke_at(seed) for seed in range(20)] == [spoke_at(seed) for seed in range(20)]
    assert len({spoke_at(seed) for seed in range(20)}) > 2
    assert all(2950 <= spoke_at(seed) <= 3500 for seed in range(20))
