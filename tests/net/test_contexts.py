from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from dialog.net.contexts import Contexts

TURN = UUID(int=7)


def parts(count):
    return [(TURN, number) for number in range(count)]


def test_parts_take_slots_in_their_order():
    contexts = Contexts(2, timeout_s=5)
    for part in parts(3):
        contexts.wait(part)
    assert [part for part, _ in contexts.admit(0.0)] == parts(2)
    assert not list(contexts.admit(0.0))
    contexts.finish(contexts.context((TURN, 0)))
    assert [part for part, _ in contexts.admit(0.0)] == [(TURN, 2)]


def test_ids_name_turn_part_and_number():
    contexts = Contexts(1, timeout_s=5)
    for k in range(3):
        contexts.wait((TURN, 4))
        [(part, context)] = contexts.admit(0.0)
        assert context == f"{TURN.hex}-4-{k}"
        assert contexts.part(context, 0.0) == part
        contexts.finish(context)
    assert contexts.part(context, 0.0) is None


def test_a_cancelled_context_keeps_its_slot_until_the_provider_ends_it():
    contexts = Contexts(1, timeout_s=5, release_s=2)
    for part in parts(2):
        contexts.wait(part)
    list(contexts.admit(0.0))
    context = contexts.cancel((TURN, 0), 0.0)
    assert contexts.part(context, 0.0) is None
    assert not list(contexts.admit(1.0))
    assert contexts.deadline == 2.0
    contexts.finish(context)
    assert [part for part, _ in contexts.admit(1.0)] == [(TURN, 1)]


def test_or_until_its_time_is_over():
    contexts = Contexts(1, timeout_s=5, release_s=2)
    for part in parts(2):
        contexts.wait(part)
    list(contexts.admit(0.0))
    contexts.cancel((TURN, 0), 0.0)
    contexts.expire(2.0)
    assert [part for part, _ in contexts.admit(2.0)] == [(TURN, 1)]


def test_what_comes_for_a_context_that_must_be_over_is_stray():
    contexts = Contexts(2, timeout_s=5.0, release_s=2.0)
    [part] = parts(1)
    contexts.wait(part)
    [(_, context)] = contexts.admit(0.0)
    assert not contexts.stray(context)
    contexts.cancel(part, 0.0)
    assert not contexts.stray(context)  # nobody can stop at once
    contexts.release(2.0)
    assert contexts.stray(context)
    assert contexts.stray("never begun")
    contexts.wait(part)
    [(_, context)] = contexts.admit(3.0)
    contexts.fail(context)
    assert not contexts.stray(context)
    assert contexts.free == 2


def test_a_cancelled_part_that_waits_costs_nothing():
    contexts = Contexts(1, timeout_s=5)
    for part in parts(3):
        contexts.wait(part)
    list(contexts.admit(0.0))
    assert contexts.cancel((TURN, 1), 0.0) is None
    contexts.finish(contexts.context((TURN, 0)))
    assert [part for part, _ in contexts.admit(0.0)] == [(TURN, 2)]


def test_silence_counts_from_the_last_sign_of_life_once_the_end_is_expected():
    contexts = Contexts(1, timeout_s=5)
    contexts.wait((TURN, 0))
    [(part, context)] = contexts.admit(0.0)
    assert contexts.deadline is None
    assert contexts.expire(100.0) == ()
    contexts.expect(part, 100.0)
    assert contexts.deadline == 105.0
    contexts.part(context, 103.0)
    assert contexts.expire(105.0) == ()
    assert contexts.expire(108.0) == (part,)


def test_after_a_lost_connection_open_parts_go_first_with_new_contexts():
    contexts = Contexts(2, timeout_s=5)
    for part in parts(3):
        contexts.wait(part)
    list(contexts.admit(0.0))
    contexts.reset()
    assert [(part, context[-2:]) for part, context in contexts.admit(1.0)] == [((TURN, 0), "-1"), ((TURN, 1), "-1")]


@given(
    st.lists(st.tuples(st.sampled_from(["wait", "admit", "finish", "cancel", "reset", "expire"]), st.integers(0, 5)))
)
def test_slots_are_never_exceeded_nor_leaked(steps):
    contexts, now = Contexts(2, timeout_s=1, release_s=1), 0.0
    for step, number in steps:
        part, now = (TURN, number), now + 0.3
        if step == "wait":
            contexts.wait(part)
        elif step == "admit":
            list(contexts.admit(now))
        elif step == "finish" and (context := contexts.context(part)):
            contexts.finish(context)
        elif step == "cancel":
            contexts.cancel(part, now)
        elif step == "reset":
            contexts.reset()
        else:
            contexts.expire(now)
        assert 0 <= contexts.free <= 2
    for number in range(6):
        contexts.cancel((TURN, number), now)
    contexts.expire(now + 10)
    assert contexts.free == 2
