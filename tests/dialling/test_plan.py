"""Which number is dialled next, and the list and the ledger that it is made from."""

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.dialling.ledger import Ledger, Outcome
from dialog.dialling.plan import DialPlan, Retry
from dialog.dialling.table import read_table, write_results
from dialog.errors import ConfigurationError


def test_numbers_are_dialled_in_their_order_and_once():
    plan = DialPlan(["a", "b"], Retry())
    assert (plan.take(0), plan.take(0), plan.take(0)) == ("a", "b", None)
    assert plan.done("a", "busy", 1.0)
    assert plan.done("b", "answered", 1.0)
    assert plan.finished


def test_who_is_busy_is_dialled_again_at_the_time_that_was_promised():
    plan = DialPlan(["a", "b"], Retry(attempts=2, after_s=60.0))
    assert plan.take(0) == "a"
    assert not plan.done("a", "busy", 10.0)
    assert plan.take(11.0) == "b"
    assert plan.done("b", "failed", 12.0), "that is not worth another call"
    assert (plan.deadline, plan.take(69.9), plan.take(70.0)) == (70.0, None, "a")
    assert plan.done("a", "busy", 80.0)
    assert plan.finished


def test_a_later_run_goes_on_with_the_attempts_of_the_one_before():
    plan = DialPlan(["a", "b", "c", "d"], Retry(attempts=2, after_s=60.0))
    assert plan.resume("a", 1, "answered", 100.0)
    assert not plan.resume("b", 1, "busy", 100.0)
    assert plan.resume("c", 2, "busy", 100.0)
    plan.wait_for("d", 1)
    assert not plan.finished
    plan.undone("d")
    assert plan.take(110.0) == "d"
    assert plan.done("d", "busy", 120.0) is False
    assert (plan.take(160.0), plan.take(160.0), plan.take(180.0)) == ("b", None, "d")


@given(
    st.integers(1, 8),
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["take", "busy", "ok", "undone"]), st.floats(0, 50))),
)
def test_no_number_is_dialled_more_often_than_allowed_nor_twice_at_once(count, attempts, steps):
    numbers = [str(number) for number in range(count)]
    plan, now, dialled, done = DialPlan(numbers, Retry(attempts=attempts, after_s=20.0)), 0.0, {}, set()
    for step, amount in steps:
        now += amount
        if step == "take":
            before = set(plan.active)
            number = plan.take(now)
            if number is not None:
                assert number not in before | done
                dialled[number] = dialled.get(number, 0) + 1
        elif plan.active:
            number = min(plan.active)
            if step == "undone":
                plan.undone(number)
                dialled[number] -= 1
            elif plan.done(number, "busy" if step == "busy" else "answered", now):
                done.add(number)
    assert all(times <= attempts for times in dialled.values())
    assert plan.finished == (len(done) == count)


# The list.


def table_of(tmp_path, text, **options):
    path = tmp_path / "numbers.csv"
    path.write_text(text, "utf-8-sig")
    return read_table(path, **options)


def test_columns_become_parameters_and_bad_numbers_are_named(tmp_path):
    table = table_of(
        tmp_path, 'name,Phone\nAda,+15550123\nBob, +15550124 \n"Eve, the third",0123\nDan,+15550123\nZoe,+15550125,x\n'
    )
    assert [row.number for row in table.good] == ["+15550123", "+15550124"]
    assert dict(table.rows[0].fields) == {"name": "Ada", "Phone": "+15550123"}
    assert [row.problem[:16] for row in table.rows[2:]] == ["no number in E.1", "the same number ", "more values than"]
    assert "line 2" in table.rows[3].problem


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "nothing"), ("name\nAda\n", "it has name"), ("to,phone\n", "one column"), ('number\n"+15550123', "CSV")],
)
def test_a_file_that_is_no_list_is_refused(tmp_path, text, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        table_of(tmp_path, text)


def test_the_column_can_be_named(tmp_path):
    assert table_of(tmp_path, "to,mobile\nx,+15550123\n", column="mobile").good[0].number == "+15550123"
    with pytest.raises(ConfigurationError, match="no column 'fax'"):
        table_of(tmp_path, "to,mobile\n", column="fax")


def test_results_stand_beside_the_rows(tmp_path):
    table = table_of(tmp_path, "number,name\n+15550123,Ada\n")
    write_results(tmp_path / "out.csv", table, ("call_outcome",), [{"call_outcome": "busy"}])
    assert (tmp_path / "out.csv").read_text() == "number,name,call_outcome\r\n+15550123,Ada,busy\r\n".replace(
        "\r\n", "\n"
    )


# The ledger.


async def test_a_ledger_remembers_and_forgets_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "ledger.jsonl"
    first, second, third = uuid4(), uuid4(), uuid4()
    ledger = Ledger(path, wall=lambda: 1000.0)
    await ledger.placing("+15550123", first)
    await ledger.placing("+15550123", first)
    await ledger.placed(first, "CA1")
    await ledger.done(first, Outcome(outcome="busy"))
    await ledger.placing("+15550124", second)
    await ledger.placing("+15550125", third)
    await ledger.not_placed(third)
    ledger.close()
    with path.open("ab") as file:
        file.write(b'{"type":"placing","number":"+1555')
    again = Ledger(path)
    assert [(one.number, one.call_sid, one.at) for one in again.attempts.values()] == [
        ("+15550123", "CA1", 1000.0),
        ("+15550124", "", 1000.0),
    ]
    assert again.attempts[first].outcome == Outcome(outcome="busy")
    assert again.attempts[second].outcome is None
    await again.placing("+15550126", third)
    again.close()
    last = Ledger(path)
    assert list(last.attempts) == [first, second, third]
    last.close()


async def test_a_file_that_is_no_ledger_is_left_alone(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text("number,name\n")
    with pytest.raises(ConfigurationError, match="line 1"):
        Ledger(path)
    assert path.read_text() == "number,name\n"


async def test_one_process_at_a_time_has_a_ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    with pytest.raises(ConfigurationError, match="another process"):
        Ledger(tmp_path / "ledger.jsonl")
    ledger.close()
