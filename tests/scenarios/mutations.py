"""For every scenario one way to switch off what it guards: the scenario has to fail then."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from dialog.agent.tools import tool
from dialog.agent.turns.settings import BargeIn, Endpointing, Silence
from dialog.message import MULAW_8K, Message
from dialog.stt.stt import STT
from dialog.testing.scenario_house import HouseAgent, Setup
from dialog.voip.voip import VoIP


class Mutation(NamedTuple):
    name: str
    change: Callable[[Setup], Setup]


def turns(name: str, **changes) -> Mutation:
    def change(setup: Setup) -> Setup:
        settings = replace(setup.settings, turns=replace(setup.settings.turns, **changes))
        return replace(setup, settings=settings)

    return Mutation(name, change)


def settings(name: str, **changes) -> Mutation:
    return Mutation(name, lambda setup: replace(setup, settings=replace(setup.settings, **changes)))


def setup(name: str, **changes) -> Mutation:
    return Mutation(name, lambda old: replace(old, **changes))


def touched(name: str, touch) -> Mutation:
    return setup(name, touch=touch)


# Decisions that no setting can switch off.


def kill_on_voice(agent) -> None:
    """Speech start is taken for an interruption."""
    agent.stt.on(STT.VAD, lambda edge: agent.abort() if edge.state == "started" else None)


def half_duplex(agent) -> None:
    """The caller is not heard while the agent speaks."""
    speaking = [False]
    agent.voip.on(VoIP.PLAYBACK, lambda playback: speaking.__setitem__(0, not playback.final))
    post = agent.stt.post

    def gated(message: Message[bytes]) -> None:
        data = MULAW_8K.silence(MULAW_8K.ms(len(message.data))) if speaking[0] else message.data
        post(Message(uuid=message.uuid, data=data, at_ms=message.at_ms))

    agent.stt.post = gated


def gate_by_level(agent) -> None:
    """Only what is loud reaches the recogniser."""
    post = agent.stt.post
    threshold = 0x4F  # the mu-law magnitude of about -40 dBFS

    def gated(message: Message[bytes]) -> None:
        loud = any((~byte & 0x7F) > 0x7F - threshold for byte in message.data)
        data = message.data if loud else MULAW_8K.silence(MULAW_8K.ms(len(message.data)))
        post(Message(uuid=message.uuid, data=data, at_ms=message.at_ms))

    agent.stt.post = gated


def deaf_to_the_end(agent) -> None:
    """Nobody tells the agent that the call has ended."""
    for listener in agent.voip._listeners.get(VoIP.ENDED, ()):
        agent.voip.off(VoIP.ENDED, listener)


def gives_up_with_the_line(agent) -> None:
    agent.voip.on(VoIP.STREAMING_STOPPED, lambda _: agent.abort())


def deaf_to_keys(agent) -> None:
    for listener in agent.voip._listeners.get(VoIP.DTMF, ()):
        agent.voip.off(VoIP.DTMF, listener)


def generated_is_history(agent) -> None:
    """History keeps what was generated instead of what was heard."""
    commit = agent.history.commit

    def all_of_it(draft, heard) -> None:
        said: dict[int, str] = {}
        for node in draft._nodes:
            if not isinstance(node, list):
                said[node.part] = said.get(node.part, "") + node.text
        commit(draft, {part: (text, True) for part, text in said.items()})

    agent.history.commit = all_of_it


def eager_is_final(agent) -> None:
    """An early end of the turn is taken for its end."""
    agent.stt.on(STT.EAGER, lambda utterance: agent.stt.emit(STT.MESSAGE, utterance))


class Cancels(HouseAgent):
    @tool(on_interrupt="cancel")
    async def check_table(self, name: str) -> str:
        """Check a booking.

        Args:
            name: Whose.
        """
        await self.voip.clock.sleep(2.5)
        return f"a table for {name}"


class Waits(HouseAgent):
    @tool
    async def ask_the_chef(self, question: str) -> str:
        """Ask the chef.

        Args:
            question: What to ask.
        """
        await self.voip.clock.sleep(7.0)
        return f"the chef says yes to {question}"


class NoFiller(HouseAgent):
    @tool
    async def slow_lookup(self, name: str) -> str:
        """Look somebody up.

        Args:
            name: Who.
        """
        await self.voip.clock.sleep(4.0)
        return f"found {name}"


class Abrupt(HouseAgent):
    @tool
    async def say_goodbye(self) -> None:
        """Hang up before the goodbye was heard."""
        self.dispatch_message("Thank you for calling and have a very nice evening.")
        await self.voip.hangup()


# Every final of the provider is an end, as soon as it comes.
HASTY = turns("no unfinished sentence is waited for", endpointing=Endpointing(wait_s=0, unfinished_s=0, max_s=0))
DISABLED = turns("interruption disabled", barge_in=BargeIn(mode="disabled"))

MUTATIONS: dict[str, Mutation] = {
    "pause in mid-sentence": HASTY,
    "correction": DISABLED,
    "very long utterance": Mutation(
        "a breath ends an utterance", lambda old: replace(HASTY.change(old), endpointing_ms=60)
    ),
    "number in groups": HASTY,
    "no final ever": turns(
        "nobody asks for a final",
        endpointing=Endpointing(mode="provider", max_s=90, unfinished_s=90),
        transcript_timeout_s=90,
    ),
    "short yes that the VAD missed": touched("only what is loud reaches the recogniser", gate_by_level),
    "keys during a prompt": touched("keys are not heard", deaf_to_keys),
    "cough before the reply": touched("a voice kills the reply", kill_on_voice),
    "cough during the reply": touched("a voice kills the reply", kill_on_voice),
    "cough during the greeting": touched("a voice kills the reply", kill_on_voice),
    "a noise that does not end": turns("a reply is held as long as there is a voice", hold_limit_s=60),
    "backchannel": turns("an uh-huh is a word like any other", barge_in=BargeIn()),
    "double-talk": DISABLED,
    "interruption in the first 300 ms": DISABLED,
    "interruption in the last word": touched("the caller is not heard while the agent speaks", half_duplex),
    "interrupted twice in a row": DISABLED,
    "interruption during a tool": setup("words cancel a tool", agent=Cancels),
    "interruption during the greeting": settings("the greeting is heard out", greeting_interruptible=False),
    "notice that may not be interrupted": settings("the notice is interruptible", greeting_interruptible=True),
    "after the sentence": turns("words cut at once", barge_in=BargeIn()),
    "interruption disabled": turns("words cut", barge_in=BargeIn()),
    "line that breaks in a reply": touched("what the line broke off is given up", gives_up_with_the_line),
    "hang-up in the greeting": touched("history keeps what was generated", generated_is_history),
    "hang-up while listening": touched("the agent does not hear of the end", deaf_to_the_end),
    "hang-up while thinking": touched("the agent does not hear of the end", deaf_to_the_end),
    "hang-up during a tool": settings("tools end with the call", tool_patience_s=0.05),
    "hang-up while speaking": touched("history keeps what was generated", generated_is_history),
    "hang-up in the goodbye": touched("the agent does not hear of the end", deaf_to_the_end),
    "goodbye is heard out": setup("it hangs up at once", agent=Abrupt),
    "silence": turns("silence is never minded", silence=Silence(idle_s=None)),
    "maximum duration": turns("a call may last for ever", silence=Silence(max_duration_s=None)),
    "slow tool": setup("no filler", agent=NoFiller),
    "slow first token": settings("no filler", filler=()),
    "late result of a tool": setup("the model waits for the tool", agent=Waits),
    "speculation promoted": Mutation("no early ends", lambda old: replace(old, ears=replace(old.ears, eager_s=None))),
    "speculation withdrawn": touched("an early end is an end", eager_is_final),
    "the model fails": settings("no apology", apology="Well."),
}
