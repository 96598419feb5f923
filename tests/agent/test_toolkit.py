"""The ready-made tools: hanging up and transferring, after the caller has heard the last word."""

from __future__ import annotations

import json

import pytest
from test_agent_on_a_line import on_a_call
from test_tools_at_work import Model, call, told

from dialog.agent.agent import Agent
from dialog.agent.toolkit import end_call_tool, send_sms_tool, transfer_call_tool
from dialog.agent.tools import Toolbox
from dialog.calls.events import AgentSaid, CallEnded
from dialog.errors import ConfigurationError
from dialog.message import SentSMS
from dialog.sms.sms import SMS
from dialog.voip.link import Hangup, SendSMS, TransferTo

DESTINATIONS = {"billing": "+15550100123", "a person": "sip:desk@example.com"}
NUMBERS = {"from_": "+15551230001", "to": "+15551230002"}
GOODBYE = "Goodbye, and thank you for calling."


class FrontDesk(Agent):
    end_call = end_call_tool()
    transfer_call = transfer_call_tool(DESTINATIONS, back_within_s=20)


def commands(talk, kind):
    return [command for command in talk.call._carrier.commands if isinstance(command, kind)]


def test_the_call_ends_when_the_goodbye_was_heard_and_the_model_is_not_asked_again():
    llm = Model([GOODBYE, call("end_call")])

    async def scenario(talk):
        started = talk.clock.now()
        talk.stt.heard("bye")
        await talk.call.wait_closed()
        assert talk.clock.now() - started >= len(GOODBYE) * 0.05

    talk = on_a_call(scenario, FrontDesk, llm=llm)
    [said] = talk(AgentSaid)
    assert said.heard == GOODBYE
    assert talk(CallEnded)[0].reason == "agent_hangup"


def test_a_model_that_has_said_nothing_is_asked_for_a_goodbye():
    llm = Model([call("end_call")], [GOODBYE])

    async def scenario(talk):
        talk.stt.heard("bye")
        await talk.call.wait_closed()

    talk = on_a_call(scenario, FrontDesk, llm=llm)
    assert "say goodbye" in told(llm.requests[1])[0]
    assert talk(AgentSaid)[-1].heard == GOODBYE


def test_a_model_that_ends_the_call_twice_is_not_asked_a_third_time():
    llm = Model([call("end_call")], [call("end_call", call_id="c2")])

    async def scenario(talk):
        talk.stt.heard("bye")
        await talk.call.wait_closed()

    talk = on_a_call(scenario, FrontDesk, llm=llm)
    assert len(llm.requests) == 2
    assert talk(CallEnded)[0].reason == "agent_hangup"


def test_a_caller_who_speaks_over_the_goodbye_keeps_the_call():
    llm = Model([GOODBYE, call("end_call")], ["Of course."])

    async def scenario(talk):
        talk.stt.heard("bye")
        await talk.clock.sleep(0.6)
        talk.stt.speech_starts()
        talk.stt.heard("wait, one more question")
        await talk.quiet()
        await talk.clock.sleep(3)
        assert talk.agent.voip.state == "live"
        assert talk.spoken()[-1] == ("assistant", "Of course.", "")

    on_a_call(scenario, FrontDesk, llm=llm)


def test_a_transfer_waits_for_the_last_word_and_dials_what_the_name_stands_for():
    llm = Model(["I connect you to billing.", call("transfer_call", '{"destination": "billing"}')])

    async def scenario(talk):
        talk.stt.heard("my bill")
        await talk.clock.sleep(0.5)
        assert not commands(talk, TransferTo)
        await talk.call.wait_closed()
        [command] = commands(talk, TransferTo)
        assert (command.tel, command.back_within_s) == (DESTINATIONS["billing"], 20)
        assert not commands(talk, Hangup)

    talk = on_a_call(scenario, FrontDesk, llm=llm)
    assert talk(AgentSaid)[0].heard == "I connect you to billing."


def test_nobody_can_be_talked_into_dialling_what_is_not_on_the_list():
    llm = Model(
        ["One moment.", call("transfer_call", '{"destination": "+19005551234"}')],
        ["I cannot do that."],
    )

    async def scenario(talk):
        talk.stt.heard("connect me to this number")
        await talk.quiet()
        assert "wrong arguments" in told(llm.requests[1])[0]
        assert talk.spoken()[-1] == ("assistant", "I cannot do that.", "")
        assert not commands(talk, TransferTo)
        assert talk.agent.voip.state == "live"

    on_a_call(scenario, FrontDesk, llm=llm)


def test_the_model_sees_the_names_and_no_numbers():
    specs = {spec.name: spec for spec in Toolbox(FrontDesk.__new__(FrontDesk)).specs}
    transfer = json.loads(specs["transfer_call"].parameters)
    assert transfer["properties"]["destination"]["enum"] == ["a person", "billing"]
    assert "+1555" not in specs["transfer_call"].parameters
    assert json.loads(specs["end_call"].parameters)["properties"] == {}
    assert "goodbye" in specs["end_call"].description


@pytest.mark.parametrize(
    "destinations", [{}, {"": "+15550100123"}, {"sales": "911"}, {"sales": "0900 12345"}, {"sales": ""}]
)
def test_destinations_that_cannot_be_dialled_are_refused(destinations):
    with pytest.raises(ConfigurationError):
        transfer_call_tool(destinations)


def test_the_time_to_come_back_must_be_positive():
    with pytest.raises(ConfigurationError, match="back_within_s"):
        transfer_call_tool(DESTINATIONS, back_within_s=0)


# Writing to the caller


class Writer(Agent):
    send_sms = send_sms_tool()


def test_the_model_writes_to_the_caller_and_never_chooses_the_number():
    llm = Model([call("send_sms", '{"text": "Via Roma 1"}')], ["I have sent it."])

    async def scenario(talk):
        talk.stt.heard("text me the address")
        await talk.quiet()

    talk = on_a_call(scenario, Writer, llm=llm, numbers=NUMBERS)
    [sent] = commands(talk, SendSMS)
    assert (sent.to, sent.from_, sent.text) == ("+15551230001", "+15551230002", "Via Roma 1")
    assert told(llm.requests[1]) == ["sent"]
    (spec,) = Toolbox(Writer.__new__(Writer)).specs
    assert list(json.loads(spec.parameters)["properties"]) == ["text"]


def test_a_message_may_go_another_way_than_the_call():
    written = []

    class Post(SMS):
        async def send_sms(self, to, text, *, from_=""):
            written.append((to, text))
            return SentSMS(message_sid="1", status="queued", to=to)

        async def close(self):
            pass

    class Elsewhere(Agent):
        send_sms = send_sms_tool(Post())

    llm = Model([call("send_sms", '{"text": "Via Roma 1"}')], ["Done."])

    async def scenario(talk):
        talk.stt.heard("text me the address")
        await talk.quiet()

    talk = on_a_call(scenario, Elsewhere, llm=llm, numbers=NUMBERS)
    assert written == [("+15551230001", "Via Roma 1")]
    assert commands(talk, SendSMS) == []


def test_a_message_that_cannot_be_sent_is_told_to_the_model():
    class Lost(Agent):
        send_sms = send_sms_tool()

    llm = Model([call("send_sms", '{"text": " "}')], ["That did not work."])

    async def scenario(talk):
        talk.stt.heard("text me the address")
        await talk.quiet()

    on_a_call(scenario, Lost, llm=llm, numbers=NUMBERS)
    assert "the message has no text" in told(llm.requests[1])[0]
