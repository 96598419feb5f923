"""Questions of a script: answers by voice and by keys, checks, reprompts, read back."""

from __future__ import annotations

from datetime import date

import pytest
from script_calls import play

from dialog import answers
from dialog.agent.scripts.asking import Phrases
from dialog.errors import ConfigurationError, NotUnderstood, Timeout
from dialog.testing.doubles import ToldSTT

MANY = "How many people?"


def asked(question, *replies, keys=()):
    """The outcome of ``question(call)``, on which the caller says each reply after its prompt; and the stage."""

    async def run(call):
        return await question(call)

    async def caller(stage):
        for prompt, reply in replies:
            if isinstance(reply, str) and reply.startswith("#:"):
                await stage.until_said(prompt)
                stage.line.press(reply[2:])
            else:
                await stage.answer(prompt, reply)

    stage = play(run, caller)
    return stage.script.outcome, stage


def test_a_typed_answer():
    value, stage = asked(lambda call: call.ask(MANY, answers.Number(1, 8)), (MANY, "for four of us"))
    assert value == 4
    assert stage.said == [MANY]


def test_what_was_not_understood_is_asked_again_with_a_hint():
    again = "Sorry, I did not understand that. Please say a number from 1 to 8."
    value, _ = asked(lambda call: call.ask(MANY, answers.Number(1, 8)), (MANY, "blue"), (again, "five"))
    assert value == 5


def test_silence_is_asked_again_with_the_question():
    again = f"Sorry, I did not hear you. {MANY}"
    value, _ = asked(lambda call: call.ask(MANY, answers.Number(1, 8), timeout_s=2), (again, "six"))
    assert value == 6


def test_reprompts_of_the_script_are_said_in_their_turn():
    reprompts = ["A number, please.", "From one to eight, please."]
    value, _ = asked(
        lambda call: call.ask(MANY, answers.Number(1, 8), reprompts=reprompts, attempts=4),
        (MANY, "blue"),
        (reprompts[0], "green"),
        (reprompts[1], "red"),
        (reprompts[1], "two"),
    )
    assert value == 2


def test_a_check_says_why_an_answer_will_not_do():
    def check(people: float) -> str | None:
        return "We are full for so many." if people > 6 else None

    again = "We are full for so many. Please say a number from 1 to 8."
    value, _ = asked(lambda call: call.ask(MANY, answers.Number(1, 8), check=check), (MANY, "eight"), (again, "six"))
    assert value == 6


def test_after_so_many_attempts_it_is_given_up():
    last, stage = asked(lambda call: call.ask(MANY, answers.Number(), attempts=2), (MANY, "blue"), (
        "Sorry, I did not understand that. Please say a number.", "green"))  # fmt: skip
    assert isinstance(last, NotUnderstood)
    assert last.heard == "green"
    assert "green" not in str(last), "what callers say stays out of logs"
    silent, stage = asked(lambda call: call.ask(MANY, answers.Number(), attempts=2, timeout_s=1))
    assert isinstance(silent, Timeout)
    assert len(stage.said) == 3, "the caller is told when a script fails"


def test_an_answer_over_the_question_cuts_it():
    async def run(call):
        return await call.ask("How many people will come to the party?", answers.Number())

    async def caller(stage):
        await stage.wait(0.5)
        stage.stt.heard("three")

    stage = play(run, caller)
    assert stage.script.outcome == 3
    assert len(stage.line.heard_audio) / 8000 < 1


def test_what_was_said_before_the_question_is_no_answer():
    async def run(call):
        await call.say("Welcome.")
        await call.voip.clock.sleep(1)
        return await call.ask(MANY, answers.Number())

    async def caller(stage):
        await stage.wait(0.6)
        stage.stt.heard("one moment")
        stage.line.press("9")
        await stage.answer(MANY, "two")

    assert play(run, caller).script.outcome == 2


def test_half_a_sentence_from_before_neither_answers_nor_delays_the_question():
    class Forgetful(ToldSTT):
        def discard(self, before_ms):
            self._uuid = None  # and never tells the end of what it was in the middle of

    async def run(call):
        await call.say("Welcome.")
        await call.voip.clock.sleep(1)
        began = call.voip.clock.now()
        answer = await call.ask(MANY, answers.Number())
        return answer, call.voip.clock.now() - began

    async def caller(stage):
        await stage.wait(0.8)
        stage.stt.heard("my number is")
        stage.stt.hears("forty")
        await stage.answer(MANY, "two")

    value, took_s = play(run, caller, stt=Forgetful()).script.outcome
    assert value == 2
    assert took_s < 2


@pytest.mark.parametrize(
    ("answer", "keys", "value"),
    [
        (answers.YesNo(), "1", True),
        (answers.Number(1, 12), "7#", 7),
        (answers.Digits(4), "1234", "1234"),
        (answers.Choice(["sales", "support"]), "2", "support"),
        (answers.Date(today=lambda: date(2026, 11, 27)), "12012026", date(2026, 12, 1)),
        (answers.Phone(), "2125550123#", "+12125550123"),
        (answers.CardNumber(), "4242424242424242#", "4242424242424242"),
    ],
)
def test_answers_are_typed_in(answer, keys, value):
    outcome, _ = asked(lambda call: call.ask(MANY, answer), (MANY, f"#:{keys}"))
    assert outcome == value


def test_who_types_slowly_is_waited_for_though_they_say_nothing():
    async def run(call):
        return await call.ask(MANY, answers.Digits(4), timeout_s=2)

    async def caller(stage):
        await stage.until_said(MANY)
        for key in "1234":
            await stage.wait(1.5)
            stage.line.press(key)

    assert play(run, caller).script.outcome == "1234"


def test_keys_that_are_no_answer_are_asked_for_again():
    again = "Sorry, I did not understand that. Please say or type in 4 digits."
    outcome, _ = asked(lambda call: call.ask(MANY, answers.Digits(4)), (MANY, "#:12#"), (again, "#:1234"))
    assert outcome == "1234"


def test_digits_may_be_read_out_in_pieces():
    async def run(call):
        return await call.ask("Your card number?", answers.CardNumber())

    async def caller(stage):
        await stage.answer("Your card number?", "four two four two")
        for _ in range(3):
            await stage.wait(1.2)
            stage.stt.heard("four two four two")

    assert play(run, caller).script.outcome == "4242" * 4


def test_an_answer_is_read_back_and_asked_again_if_it_is_not_right():
    outcome, _ = asked(
        lambda call: call.ask("Your number?", answers.Digits(3), confirm=True),
        ("Your number?", "one two three"),
        ("1 2 3. Is that right?", "no"),
        ("Sorry. Let us try again. Your number?", "one two four"),
        ("1 2 4. Is that right?", "yes that's right"),
    )
    assert outcome == "124"


def test_phrases_are_the_scripts_own():
    phrases = Phrases(not_heard="Wie bitte?", not_understood="Das habe ich nicht verstanden.", confirm="{answer}?")
    outcome, _ = asked(
        lambda call: call.ask("Wie viele?", answers.Number(), phrases=phrases, confirm=True, timeout_s=1),
        ("Wie bitte? Wie viele?", "2"),
        ("2?", "ok"),
    )
    assert outcome == 2
    with pytest.raises(ConfigurationError, match="answer"):
        Phrases(confirm="Is that right?")


def test_an_address_is_collected_and_confirmed_as_a_whole():
    outcome, stage = asked(
        lambda call: call.collect(answers.address()),
        ("What is the street, and the number of the house?", "twelve Harbour Street"),
        ("In which city?", "Boston"),
        ("And what is the postal code?", "oh two one one oh"),
        ("12 Harbour Street, Boston, 0 2 1 1 0. Is that right?", "no"),
        ("What is the street, and the number of the house?", "thirteen Harbour Street"),
        ("In which city?", "it's Boston"),
        ("And what is the postal code?", "#:02110#"),
        ("13 Harbour Street, Boston, 0 2 1 1 0. Is that right?", "yes"),
    )
    assert outcome == {"street": "13 Harbour Street", "city": "Boston", "postcode": "02110"}
    assert "Sorry. Let us try again." in stage.said


def test_a_card_is_collected_and_never_said_in_full():
    outcome, stage = asked(
        lambda call: call.collect(answers.card()),
        ("Please say or type in the number of the card.", "#:4242424242424242#"),
        ("a card ending in 4 2 4 2. Is that right?", "#:1"),
        ("Until when is it valid?", "oh four ninety nine"),
        (
            "Sorry, I did not understand that. Please say or type in two digits for the month and two for the year.",
            "#:0440",
        ),
        ("And what is the security code?", "one two three"),
    )
    assert outcome == {"number": "4242424242424242", "expiry": answers.Expiry(4, 2040), "code": "123"}
    assert not any("4242" in text for text in stage.said)


@pytest.mark.parametrize("options", [{"attempts": 0}, {"reprompts": "Once more?"}])
def test_nonsense_is_refused(options):
    outcome, _ = asked(lambda call: call.ask(MANY, answers.Number(), **options))
    assert isinstance(outcome, ConfigurationError)
