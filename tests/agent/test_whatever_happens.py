"""Everything at once, in any order: what an agent on a line promises."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from itertools import count, groupby
from typing import ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import tool
from dialog.agent.turn import current_turn
from dialog.agent.turns.settings import BACKCHANNELS, BargeIn, Endpointing, Silence, TurnSettings
from dialog.audio import tones
from dialog.audio.g711 import mulaw_encode
from dialog.audio.sound import Sound
from dialog.calls.events import AgentSaid, CallEnded, ToolStarted
from dialog.llm.llm import LLM, Entry, Finish, LLMRequest, TextDelta, ToolCall, ToolResult
from dialog.message import MULAW_8K, Message
from dialog.participant import Participant
from dialog.stt.stt import STTCapabilities
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.virtual import run_virtual
from dialog.tts.tts import TTS, TTSCapabilities
from dialog.voip.memory import MemoryLine, memory_call
from dialog.voip.voip import VoIP

VOICE = mulaw_encode(b"".join(tones.noise(160, level_dbfs=-20, seed=n) + bytes(640) for n in range(3)))
TICK = Sound(b"\xfe" * 1600, MULAW_8K)
SILENT = {0xFE, 0xFF, 0x7E, 0x7F}


class Numbered(HummingTTS):
    """Hums another byte for every part of the call, so that the line tells what sounded; slow if wanted."""

    numbers: ClassVar = count()

    def __init__(self, ids: dict, *, slow_s: float = 0.0) -> None:
        super().__init__()
        self.ids = ids
        self.slow_s = slow_s
        self.waiting: deque[Message[str]] = deque()
        self.timers: list[asyncio.TimerHandle] = []

    def _speak(self, message: Message[str]) -> None:
        if self.slow_s:  # timers of one moment go off in any order, what is said does not
            self.waiting.append(message)
            self.timers.append(asyncio.get_running_loop().call_later(self.slow_s, self._speak_next))
        else:
            super()._speak(message)

    def _speak_next(self) -> None:
        super()._speak(self.waiting.popleft())

    def emit(self, event, payload) -> None:
        if event == TTS.MESSAGE and payload.data:
            number = self.ids.setdefault((payload.uuid, payload.part), len(self.ids) + 1)
            payload = Message(
                uuid=payload.uuid,
                part=payload.part,
                data=bytes([number % 0x70 + 1]) * len(payload.data),
                at_ms=payload.at_ms,
                done=payload.done,
            )
        super().emit(event, payload)


class Sentences(Numbered):
    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(text="sentences", timings=True, parallel_parts=8)


class Wordless(ToldSTT):
    """Leaves speech events, and the end of turns, to a local VAD."""

    capabilities: ClassVar[STTCapabilities] = STTCapabilities(interim_interval_ms=0, eager=True, manual_turns=True)


class Improvising(LLM):
    """Answers in another way each time, with a tool or without."""

    def __init__(self) -> None:
        self.requests = 0
        self.open = 0

    async def stream(self, request: LLMRequest):
        assert_consistent(request.items)
        self.requests += 1
        number = self.requests
        self.open += 1
        try:
            if number % 5 == 3:
                await asyncio.sleep(2.2)
            if not request.tools or isinstance(request.items[-1], ToolResult):
                yield TextDelta("It is done. ")
                await asyncio.sleep(0.1)
                yield TextDelta("Anything else?")
            elif number % 2:
                yield TextDelta("Let me see. ")
                name = ("quick", "slow", "background", "stops", "safe", "asks")[number // 2 % 6]
                yield ToolCall(id=f"c{number}", name=name, arguments="{}")
            else:
                yield TextDelta("A plain answer. It has two sentences.")
            yield Finish("stop")
        finally:
            self.open -= 1


def assert_consistent(items) -> None:
    """Every call has its result right behind it, and nothing is empty."""
    calls: list[str] = []
    for item in items:
        if isinstance(item, ToolCall):
            calls.append(item.id)
        elif isinstance(item, ToolResult):
            assert item.id in calls, "a result of a call"
            calls.remove(item.id)
        else:
            assert not calls, "every call has its result before anything else"
            assert item.text.strip()
    assert not calls


class Versatile(Agent):
    """Answers in another way each time."""

    turns = 0

    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        self.turns += 1
        match self.turns % 9:
            case 0:
                yield ""
            case 1:
                yield "One sentence. And another one. "
            case 2:
                await asyncio.sleep(0.4)
                yield "A late answer."
            case 3:
                notice = self.dispatch_message("A notice.", allow_interrupt=False)
                yield "And more of it to say."
                await notice
                yield "The rest."
            case 4:
                self.dispatch_stream(self.words(), allow_interrupt=self.turns % 2 == 0)
                yield "After the stream."
            case 5:
                self.dispatch_message("What is your number?", mute_caller=True)
                self.dispatch_message("I wait.", endpointing=Endpointing(unfinished_s=2.0))
            case _:
                reply = super().inference(message)
                async for text in reply:
                    yield text

    async def words(self) -> AsyncIterator[str]:
        for word in ("some ", "words ", "that ", "come ", "slowly"):
            yield word
            await asyncio.sleep(0.1)

    @tool(filler="Let me look.")
    async def quick(self) -> str:
        """Act."""
        await asyncio.sleep(0.1)
        return "quickly"

    @tool(filler="One moment.")
    async def slow(self) -> str:
        """Act for long."""
        await asyncio.sleep(4)
        return "slowly"

    @tool(background=True)
    async def background(self) -> str:
        """Act beside the conversation."""
        await asyncio.sleep(2.5)
        return "at last"

    @tool(on_interrupt="cancel")
    async def stops(self) -> str:
        """Act while nobody interrupts."""
        await asyncio.sleep(1)
        return "all of it"

    @tool(safe=True)
    async def safe(self) -> str:
        """Look something up."""
        await asyncio.sleep(0.5)
        return "found"

    @tool
    async def asks(self) -> str:
        """Say something, and wait until it was heard."""
        heard = await self.dispatch_message("I am at it.")
        return f"heard {len(heard.text)}"


class Call:
    """A call with an agent, and what the test wants to know of it afterwards."""

    def __init__(self, clock, *, voice, slow_s, local, options, rtt_s, echo_marks) -> None:
        self.clock = clock
        self.ids: dict = {}
        self.said: list[str] = []
        self.speeches: list = []
        self.faults: list[str] = []
        self.errors: list[str] = []
        self.lines: list[MemoryLine] = []
        self.collecting: asyncio.Task | None = None
        self._voice, self._slow_s, self._local = voice, slow_s, local
        self._line = {"rtt_s": rtt_s, "echo_marks": echo_marks}
        self.voices: list[Numbered] = []
        self.former_agents: list[Versatile] = []

        def on_voip(voip: VoIP) -> None:
            post = voip.post

            def watched(message: Message[bytes]) -> None:
                engine = self.agent._conversation and self.agent._conversation.engine
                turn = engine and engine._turns.get(message.uuid)
                if message.data and (not turn or turn.speculative or turn.dropped):
                    self.faults.append("what nobody wants goes to the line")
                post(message)

            voip.post = watched
            self.agent = Versatile(
                voip=voip, stt=self.ear(), tts=self.voice(), llm=Improvising(), greeting="Hello and welcome.", **options
            )
            self.former_stt, self.former_tts = self.agent.stt, self.agent.tts
            self.watch()
            self.agent.activate()

        self.call, _ = memory_call(on_voip, clock=clock, join=False)

    def watch(self) -> None:
        self.agent.on(Participant.ERROR, lambda failure: self.errors.append(str(failure.error)))
        self.agent.on(Agent.EVENT, self.happens)

    def set_stt(self, stt: ToldSTT) -> None:
        self.former_stt = self.agent.stt
        self.agent.set_stt(stt)

    def set_tts(self, tts: Numbered) -> None:
        self.former_tts = self.agent.tts
        self.agent.set_tts(tts)

    def happens(self, event) -> None:
        if isinstance(event, ToolStarted):
            turn = current_turn.get()
            if turn.dropped or turn.cut or (turn.speculative and event.name != "safe"):
                self.faults.append("a tool of a turn that is not wanted starts")

    @property
    def engine(self):
        return self.agent._conversation.engine

    @property
    def live(self) -> bool:
        return self.agent.voip.state == "live"

    def ear(self) -> ToldSTT:
        return Wordless() if self._local else ToldSTT()

    def voice(self) -> Numbered:
        voice = self._voice(self.ids, slow_s=self._slow_s)
        self.voices.append(voice)
        return voice

    def join(self) -> None:
        if self.agent.voip.state != "ended":
            self.lines.append(MemoryLine(clock=self.clock, **self._line))
            self.lines[-1].join(self.call)

    def say(self, text: str, **options) -> None:
        self.speeches.append(self.agent.dispatch_message(text, **options))

    def hears(self, text: str) -> None:
        self.said.append(f"<{len(self.said)}>")
        self.agent.stt.heard(f"{text} {self.said[-1]}")

    async def act(self, act: str, pause: float, number: int) -> None:
        agent, stt = self.agent, self.agent.stt
        match act:
            case "starts":
                stt.speech_starts()
            case "stops":
                stt.speech_stops()
            case "voice" if self.live:
                self.lines[-1].send(VOICE)
            case "silence" if self.live:
                self.lines[-1].send(MULAW_8K.silence(600))
            case "hears":
                stt.hears(f"words {number}")
            case "heard":
                self.hears("hello")
            case "eager":
                stt.expects("is it open")
            case "right":
                stt.expects(f"a table <{len(self.said)}>")
                await self.clock.sleep(pause)
                if agent.stt is stt and agent._conversation:
                    self.hears("a table")
            case "withdrawn":
                stt.goes_on()
            case "murmurs":
                stt.hears("uh-huh")
                await self.clock.sleep(0.05)
                stt.heard("uh-huh")
            case "unfinished":
                self.said.append(f"<{len(self.said)}>")
                stt.heard(f"{self.said[-1]} my number is")
            case "nothing":
                stt.hears("hm")
                await self.clock.sleep(0.05)
                stt.heard("")
            case "key" if self.live:
                self.lines[-1].press("5")
            case "collect" if self.collecting is None or self.collecting.done():
                self.collecting = asyncio.ensure_future(agent.collect_digits(timeout_s=1.5, max_digits=2))
            case "abort":
                agent.abort()
            case "discard":
                agent.discard_caller_audio()
            case "say":
                self.say("By the way.")
            case "notice":
                self.say("You must know.", allow_interrupt=False)
            case "sentence":
                self.say("I finish this. But not this one.", barge_in=BargeIn(mode="after_sentence"))
            case "stubborn":
                self.say("I go on.", barge_in=BargeIn(mode="disabled"))
            case "asks":
                self.say("And your number?", endpointing=Endpointing(mode="local", unfinished_s=2.0))
            case "muted":
                self.say("Please listen to me.", mute_caller=True)
            case "stream":
                self.speeches.append(agent.dispatch_stream(agent.words(), allow_interrupt=number % 2 == 0))
            case "hang up":
                agent.hang_up()
            case "drop" if self.live:
                self.lines[-1].drop()
                await self.clock.sleep(pause)
                self.join()
            case "down" if self.live:
                self.lines[-1].drop()
            case "up" if not self.live:
                self.join()
            case "stt":
                self.set_stt(self.ear())
            case "tts":
                self.set_tts(self.voice())
            case "stt back" if not self.former_stt.disposed:
                self.set_stt(self.former_stt)
            case "tts back" if not self.former_tts.disposed:
                self.set_tts(self.former_tts)
            case "hand off":
                self.former_agents.append(agent)
                self.agent = Versatile(
                    voip=agent.voip, stt=agent.stt, tts=agent.tts, llm=Improvising(), system="Be helpful."
                )
                self.watch()
                agent.hand_off(self.agent)
            case "again":
                agent.deactivate()
                agent.activate()
        await self.clock.sleep(pause)

    def check_rest(self) -> None:
        """Nobody speaks, prepares to or waits to: nothing is left of what was."""
        engine = self.engine
        assert engine._taking.listening
        voices, ears = engine._mouth.voices, engine._ears
        assert not any((engine._turns, voices._of, voices._retired, ears._leaving, ears._coming))
        assert not ears.muted
        assert not any(tools.running for tools in self.agent._conversation._tools)
        assert not any(each.llm.open for each in (self.agent, *self.former_agents))
        assert not any(each.disposed for each in (self.agent.stt, self.agent.tts))
        thinking = engine._mouth._thinking
        assert thinking is None or not (thinking._on or thinking._timer)
        line = self.lines[-1].line
        assert not line._playout.paused
        assert not line._playout._parts
        assert not line._playout._bed.on
        assert all(speech.done() for speech in self.speeches)

    def check_all(self) -> None:
        events = self.agent.events
        assert not self.errors
        assert not self.faults
        assert [event for event in events if isinstance(event, CallEnded)] == [events[-1]]
        words = " ".join(
            item.text for item in self.agent.history.items() if isinstance(item, Entry) and item.role == "user"
        )
        assert [words.count(utterance) for utterance in self.said] == [1] * len(self.said), "kept, and answered once"
        assert_consistent(self.agent.history.request_items())
        for event in events:
            if isinstance(event, AgentSaid):
                assert event.text.startswith(event.heard), "what was heard is a prefix of what was said"
        for line in self.lines:
            sounds = [byte for byte, _ in groupby(byte for byte in line.heard_audio if byte not in SILENT)]
            assert len(set(sounds)) == len(sounds), "one part after the other, and none twice"


_ACTS = (
    "starts", "stops", "hears", "heard", "eager", "right", "withdrawn", "murmurs", "unfinished", "nothing", "key",
    "collect", "abort", "discard", "say", "notice", "sentence", "stubborn", "asks", "muted", "stream", "hang up",
    "drop", "down", "up", "stt", "tts", "stt back", "tts back", "hand off", "again", "voice", "voice", "silence", "wait", "heard", "stops", "wait",
)  # fmt: skip
_BARGE_INS = [
    BargeIn(),
    BargeIn(backchannels=BACKCHANNELS),
    BargeIn(mode="after_sentence"),
    BargeIn(min_words=2, min_speech_ms=200),
]


@settings(max_examples=200)
@given(
    acts=st.lists(
        st.tuples(st.sampled_from(_ACTS), st.sampled_from([0, 0, 0.05, 0.2, 0.7, 2.0])), min_size=3, max_size=25
    ),
    rtt_s=st.sampled_from([0.0, 0.1]),
    echo_marks=st.booleans(),
    voice=st.sampled_from([Numbered, Sentences]),
    slow_s=st.sampled_from([0.0, 0.3]),
    local=st.booleans(),
    joined=st.booleans(),
    barge_in=st.sampled_from(_BARGE_INS),
    thinking=st.sampled_from([None, *_BARGE_INS]),
    speculate_after_s=st.sampled_from([None, 0.1]),
    idle_s=st.sampled_from([None, 3.0]),
    sound=st.sampled_from([None, TICK]),
    filler=st.sampled_from([(), ("Hm.", "One second.")]),
)
def test_whatever_happens_the_agent_answers_once_and_listens_again(
    acts, rtt_s, echo_marks, voice, slow_s, local, joined, barge_in, thinking, speculate_after_s, idle_s, sound, filler
):
    options = AgentSettings(
        turns=TurnSettings(
            barge_in=barge_in,
            thinking=thinking,
            endpointing=Endpointing(speculate_after_s=speculate_after_s),
            silence=Silence(idle_s=idle_s),
        ),
        vad="local" if local else "auto",
        thinking_sound=sound,
        filler=filler,
    )

    async def run(clock):
        call = Call(
            clock,
            voice=voice,
            slow_s=slow_s,
            local=local,
            options={"settings": options},
            rtt_s=rtt_s,
            echo_marks=echo_marks,
        )
        if joined:
            call.join()
        for number, (act, pause) in enumerate(acts):
            if call.agent.voip.state != "ended" and call.agent._conversation:
                await call.act(act, pause, number)
        if not call.live:
            call.join()
        if call.agent._conversation and call.live:
            call.agent.stt.speech_stops()
            call.lines[-1].send(MULAW_8K.silence(600))
        await clock.sleep(60)
        if call.live:
            call.check_rest()
            call.agent.stt.heard("the last question")
            await clock.sleep(60)
            call.check_rest()
            call.lines[-1].hang_up()
        await call.call.wait_closed()
        for line in call.lines:
            await line.wait_closed()
        for each in call.voices:
            for timer in each.timers:
                timer.cancel()
        if call.collecting:
            await call.collecting
        call.check_all()

    run_virtual(run)
