"""An agent that finds its way through the menus of a machine notices when it goes round in circles."""

import pytest
from test_agent_on_a_line import on_a_call
from test_tools_at_work import Model, call, told

from dialog.agent.agent import Agent
from dialog.agent.menus import MenuLoop
from dialog.agent.toolkit import press_keys_tool
from dialog.calls.events import CallEnded
from dialog.errors import ConfigurationError
from dialog.voip.link import SendDigits

MAIN = "Thank you for calling. For sales press one. For support press two. To hear this again press nine."
SALES = "You have reached sales. For new orders press one. For existing orders press two."


def test_the_same_menu_is_known_again_though_it_was_heard_a_little_differently():
    loop = MenuLoop()
    assert loop.press(MAIN, "1") == (1, ())
    assert loop.press(SALES, "2") == (1, ())
    again = "thank you for calling for sails press 1 for support press two to hear this again press nine"
    assert loop.press(again, "2") == (2, ("1",))
    assert loop.press("For support press two. To hear this again press nine.", "9") == (3, ("1", "2"))


def test_what_was_not_heard_is_no_menu():
    loop = MenuLoop()
    assert [loop.press("", "1")[0] for _ in range(3)] == [1, 1, 1]


def test_only_so_many_menus_are_remembered():
    loop = MenuLoop()
    for number in range(50):
        loop.press(f"{number}" * 30, "1")
    assert len(loop._menus) == 20


def test_the_limit_is_positive():
    with pytest.raises(ConfigurationError):
        press_keys_tool(max_rounds=0)


class Navigator(Agent):
    press_keys = press_keys_tool(max_rounds=2)


def pressed(talk):
    return [command.digits for command in talk.call._carrier.commands if isinstance(command, SendDigits)]


def press(keys, call_id):
    return [call("press_keys", f'{{"keys": "{keys}"}}', call_id=call_id)]


def test_keys_are_pressed_after_the_turn_and_the_machine_is_waited_for():
    llm = Model(press("2", "c1"), ["I would like to order."])

    async def scenario(talk):
        talk.stt.heard(MAIN)
        await talk.clock.sleep(2)
        assert pressed(talk) == ["2"]
        assert len(llm.requests) == 1, "nothing is said to a machine"

    on_a_call(scenario, Navigator, llm=llm)


def test_the_model_is_told_that_it_goes_round_in_circles_and_in_the_end_the_agent_hangs_up():
    llm = Model(press("1", "c1"), press("1", "c2"), press("1", "c3"), ["Goodbye."])

    async def scenario(talk):
        for _ in range(3):
            talk.stt.heard(MAIN)
            await talk.clock.sleep(2)
        await talk.call.wait_closed()
        assert pressed(talk) == ["1", "1"]

    talk = on_a_call(scenario, Navigator, llm=llm)
    assert "then you pressed 1: try another way" in told(llm.requests[2])[-1]
    assert talk(CallEnded)[0].reason == "ivr_loop"


def test_what_are_no_keys_is_not_pressed():
    llm = Model(press("hello", "c1"))

    async def scenario(talk):
        talk.stt.heard(MAIN)
        await talk.clock.sleep(2)
        assert pressed(talk) == []

    on_a_call(scenario, Navigator, llm=llm)
