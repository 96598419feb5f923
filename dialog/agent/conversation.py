"""One agent on one call: its participants, its history, its events, and the engine that runs it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar
from uuid import UUID

import msgspec

from dialog.agent.cascade import Cascade
from dialog.agent.claim import claim
from dialog.agent.digits import Digits, Keypad
from dialog.agent.driver import as_failure
from dialog.agent.ears import LocalHearing, last_words
from dialog.agent.endings import Endings, Transfer
from dialog.agent.engine import Engine
from dialog.agent.history import History
from dialog.agent.ledger import Ledger
from dialog.agent.reach import Reach
from dialog.agent.realtime import Realtime
from dialog.agent.record import CallRecord
from dialog.agent.responder import Responder
from dialog.agent.resumer import Resumer
from dialog.agent.settings import AgentSettings
from dialog.agent.speakers import Speakers
from dialog.agent.speech import Part, PartOptions
from dialog.agent.tools import Toolbox
from dialog.agent.turn import Turn, current_turn
from dialog.agent.turns import signals as sig
from dialog.audio.convert import negotiate
from dialog.calls import events as ev
from dialog.calls.checkpoint import Checkpoint
from dialog.calls.meter import CallMeter
from dialog.calls.prices import cost_usd
from dialog.calls.report import SessionReport, make_report
from dialog.errors import (
    CallNotAnswered,
    CarrierError,
    DialogError,
    NotSupportedError,
    StateError,
    UserCodeError,
)
from dialog.llm.llm import LLM, Entry
from dialog.message import (
    AnsweredBy,
    CallEnd,
    CallProgress,
    Failure,
    Message,
    SayRequest,
    SpeechEdge,
    StreamStarted,
    StreamStopped,
    TransferStatus,
    Utterance,
    Whisper,
)
from dialog.participant import Participant
from dialog.s2s.s2s import S2S
from dialog.scope import CallScope
from dialog.stt.stt import STT
from dialog.tts.tts import TTS
from dialog.usage import ReplyUsage, Usage
from dialog.voip.voip import VoIP

__all__ = ["Conversation", "Diversion", "Owner"]

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=ev.CallEvent)

Hooked: TypeAlias = Coroutine[Any, Any, None] | None
"""What a hook returns: nothing, or what its work is, if it is an ``async def``."""

_CONSULT_RING_S = 25.0
_PRESS_S = 10.0
"""Keys wait so long for what is being said."""
_MAX_EVENTS = 20_000
"""Events kept for the report of one call; beyond it only the stream of events goes on."""


class Owner(Protocol):
    """What the conversation needs of its agent."""

    @property
    def participant(self) -> Participant:
        """The agent as a participant: owns the tasks, emits the errors."""
        ...

    @property
    def scripted(self) -> bool:
        """A script holds the whole call: in another process it begins anew, and says by itself what is to be said."""
        ...

    def inference(self, message: Message[str]) -> AsyncIterator[str] | Coroutine[Any, Any, None]: ...  # noqa: D102
    def on_stt_ready(self, stt: STT) -> None: ...  # noqa: D102
    def on_idle(self, count: int) -> Hooked: ...  # noqa: D102
    def on_answered_by(self, answered_by: AnsweredBy) -> Hooked: ...  # noqa: D102
    async def brief(self, voip: VoIP, summary: str) -> bool: ...  # noqa: D102
    def happened(self, event: ev.CallEvent) -> None: ...  # noqa: D102
    def reported(self, report: SessionReport) -> None: ...  # noqa: D102

    def state(self) -> object:
        """What of the user's own is to survive this process."""
        ...


class Diversion(Protocol):
    """A script that has the call: it gets what the caller says, in the place of ``inference``."""

    def hear(self, message: Message[str]) -> None:
        """The caller has said something."""
        ...

    def lost(self, failure: Failure) -> bool:
        """A provider has given up; whether it decides what comes of that, and the call need not end."""
        ...

    def let_go(self) -> None:
        """The agent has let go of the call, or has handed it to another one."""
        ...


class Conversation:
    """Wires the participants of one call and keeps its record, from ``start`` to the call's end."""

    def __init__(
        self,
        owner: Owner,
        *,
        voip: VoIP,
        stt: STT | None,
        tts: TTS | None,
        llm: LLM | None,
        s2s: S2S | None = None,
        toolbox: Toolbox,
        history: History,
        settings: AgentSettings,
        record: CallRecord | None,
        local: LocalHearing,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """``checkpoint``: where an agent in another process left the call."""
        self.settings = settings
        self.history = history
        self._checkpoint = checkpoint
        self.events: list[ev.CallEvent] = []
        if checkpoint is not None and checkpoint.started is not None:
            self.events.append(checkpoint.started)
        self.meter: CallMeter = CallMeter(
            checkpoint.meter if checkpoint is not None else None, prices=settings.all_prices
        )
        """Counts all events, also those that the report has no room for."""
        self.voip = voip
        self.stt = stt
        self.tts = tts
        self.s2s = s2s
        self.speakers: Speakers = Speakers()
        """Who was heard at the caller's end."""
        self._owner = owner
        self._agent = owner.participant
        self._llm = llm
        self._record = record
        self._clock = voip.clock
        self._ledger = Ledger(voip, checkpoint, history)
        self._scribe = self._ledger.scribe
        self._failing = False
        self._answers = 0
        """Replies to the caller that were begun for good."""
        self.reach: Reach = Reach(voip, self.failed)
        """What opens a provider, or gives it something, waits until the phone at the other end rings."""
        self._closed = False
        self._over = False
        """CallEnded was noted: nothing comes after it."""
        self._noticed: deque[tuple[Callable[..., ev.CallEvent], float, dict[str, Any]]] = deque()
        """Events that are told as soon as nobody waits, and when they happened, on the call's clock."""
        self._realtime: Realtime | None = None
        self.engine: Engine
        if s2s is not None:
            self._realtime = Realtime(self, voip, s2s, tts, tools=toolbox.specs, local=local, scribe=self._scribe)
            self.engine, llm = self._realtime, self._realtime.model
        else:
            assert tts is not None, "an agent speaks with a tts or an s2s"
            self.engine = Cascade(self, voip, stt, tts, local=local, scribe=self._scribe)
        self._responder = Responder(self, self.engine, llm, toolbox, self._clock)
        self._resumer = self._new_resumer(llm)
        self._toolbox = toolbox
        self._tools = [self._responder.tools]
        """At work; they outlive the turn that called them, and the agent that has handed over."""
        self._diversion: Diversion | None = None
        self._shown: History | None = None
        """The history that a private script keeps its words out of."""
        self.script: asyncio.Task[None] | None = None
        """Runs a script for the whole call; at its end it may finish what it does."""
        self._former: list[Participant] = []
        """Agents that have handed the call over; what they began goes on until it ends."""
        self.keypad: Keypad = Keypad(
            self._clock, self.engine, between_s=settings.digits_between_s, entries=llm is not None
        )
        self.endings = Endings(
            voip,
            settings,
            say=self.engine.dispatch_message,
            spawn=self.spawn,
            stays=self.engine.stay,
            failed=self.failed,
            consult=self._consult,
        )

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen to the call, open the providers, prepare the model."""
        voip, metadata = self.voip, self.voip.metadata
        if self._checkpoint is None:
            self.happened(
                ev.CallStarted,
                call_id=metadata.call_id,
                carrier=metadata.carrier,
                carrier_call_id=metadata.carrier_call_id,
                from_=metadata.from_,
                to=metadata.to,
                direction=metadata.direction,
                started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                agent=self._agent.name,
                trace=voip.tracer.trace if voip.tracer is not None else "",
            )
            self._scribe.watch(self.history)
            if self.history.blocks():
                self._scribe.rewritten()
        else:
            self._resumer.begin(self._checkpoint)
            if self._record is not None and self._checkpoint.live_s is not None:
                self._record.resumed()
        for participant in self._participants():
            participant.on(Participant.ERROR, self._on_failure)
        voip.on(VoIP.PROGRESS, self._on_progress)
        voip.on(VoIP.ANSWERED_BY, self._on_answered_by)
        if self.stt is not None:
            self.stt.on(STT.USAGE, self._on_usage)
        if self.tts is not None:
            self.tts.on(TTS.USAGE, self._on_usage)
        voip.on(VoIP.DTMF, self._on_digit)
        voip.on(VoIP.SAY, self._on_say)
        voip.on(VoIP.WHISPER, self._on_whisper)
        voip.on(VoIP.TRANSFER, self._on_transfer)
        voip.on(VoIP.RECORDING_URL, self._on_recording)
        self.engine.start()
        self._follow(self._toolbox)
        voip.on(VoIP.STREAMING_STARTED, self._on_streaming_started)
        voip.on(VoIP.STREAMING_STOPPED, self._on_streaming_stopped)
        voip.on(VoIP.ENDED, self._on_ended)
        if self._llm is not None and self._realtime is None:
            self.reach.when_reached(self._llm.warm)
        if self._record is not None and voip.state == "live":
            self._record.begin()
        if voip.end is not None:
            self._on_ended(voip.end)

    def go_on(self, checkpoint: Checkpoint) -> None:
        """Do what is to be done where an agent in another process left the call; after :meth:`start`."""
        if self.voip.end is None:
            self._resumer.go_on(checkpoint, says_rest=not self._owner.scripted)

    def stop(self) -> None:
        """Let go of the call: turns end here, listeners are removed. Nothing is disposed."""
        if self._closed:
            return
        self._closed = True
        if self._diversion is not None:
            diversion, self._diversion = self._diversion, None
            diversion.let_go()
        self.history.watcher = None
        self.reach.close()
        self._ledger.close()
        self.keypad.close()
        self._toolbox.changed = None
        self.engine.stop()
        for tools in self._tools:
            tools.stop()
        for participant in self._participants():
            participant.off(Participant.ERROR, self._on_failure)
        self.voip.off(VoIP.PROGRESS, self._on_progress)
        self.voip.off(VoIP.ANSWERED_BY, self._on_answered_by)
        if self.stt is not None:
            self.stt.off(STT.USAGE, self._on_usage)
        if self.tts is not None:
            self.tts.off(TTS.USAGE, self._on_usage)
        self.voip.off(VoIP.DTMF, self._on_digit)
        self.voip.off(VoIP.SAY, self._on_say)
        self.voip.off(VoIP.WHISPER, self._on_whisper)
        self.voip.off(VoIP.TRANSFER, self._on_transfer)
        self.voip.off(VoIP.RECORDING_URL, self._on_recording)
        self.voip.off(VoIP.STREAMING_STARTED, self._on_streaming_started)
        self.voip.off(VoIP.STREAMING_STOPPED, self._on_streaming_stopped)
        self.voip.off(VoIP.ENDED, self._on_ended)

    def _participants(self) -> tuple[Participant, ...]:
        return tuple(p for p in (self.voip, self.stt, self.tts, self.s2s) if p is not None)

    def set_stt(self, stt: STT) -> None:
        """Listen with ``stt`` from the caller's next pause on."""
        self.engine.set_stt(stt)
        if self.stt is not None:
            self._retire(self.stt)
        self.stt = stt
        self._depend_on(stt)
        stt.on(STT.USAGE, self._on_usage)

    def set_tts(self, tts: TTS) -> None:
        """Speak with ``tts`` from the next part on."""
        self.engine.set_tts(tts)
        if self.tts is not None:
            self._retire(self.tts)
        self.tts = tts
        self._depend_on(tts)
        tts.on(TTS.USAGE, self._on_usage)

    def check(self, provider: STT | TTS) -> None:
        """Refuse, before anything is changed, who could not take the place of the ears or the voice.

        Raises:
            StateError: It was disposed of, or works for another call.
            UnsupportedFormat: It shares no audio format with the call.
        """
        claim(provider, self.voip)
        negotiate(self.voip.audio_format, provider.formats)

    def _follow(self, toolbox: Toolbox) -> None:
        """A model that was told the tools is told again when there are others."""
        self._toolbox.changed = None
        self._toolbox = toolbox
        if (realtime := self._realtime) is not None:
            toolbox.changed = lambda: realtime.instruct(toolbox.specs)

    def _depend_on(self, provider: STT | TTS) -> None:
        """The call depends on a provider, perhaps again: where it fails for good, so does the call."""
        provider.off(Participant.ERROR, self._on_retired_failure)
        provider.on(Participant.ERROR, self._on_failure)

    def _retire(self, provider: STT | TTS) -> None:
        """A provider is being replaced: the call no longer depends on it."""
        provider.off(Participant.ERROR, self._on_failure)
        provider.on(Participant.ERROR, self._on_retired_failure)

    def hand_over(self, owner: Owner, *, llm: LLM | None, toolbox: Toolbox, history: History) -> None:
        """Let another agent answer from now on; ears, voice, turn taking and what sounds stay as they are."""
        if self._diversion is not None:
            diversion = self._diversion
            self.restore(diversion)
            diversion.let_go()
        before, self._owner = self._owner, owner
        self._agent = owner.participant
        self._former = [agent for agent in (*self._former, before.participant) if agent is not self._agent]
        self.history = history
        self._scribe.watch(history)
        self._scribe.rewritten()
        self._responder.retired = True
        self._follow(toolbox)
        if self._realtime is not None:
            self._realtime.instruct(toolbox.specs)
            llm = self._realtime.model
        self._responder = Responder(self, self.engine, llm, toolbox, self._clock)
        self._tools.append(self._responder.tools)
        self._resumer = self._new_resumer(llm)
        self.happened(ev.HandedOff, from_=before.participant.name, to=self._agent.name)
        if llm is not None:
            llm.warm()

    @property
    def diverted(self) -> bool:
        """A script has the call: the model says nothing by itself."""
        return self._diversion is not None

    def divert(self, diversion: Diversion, *, private: bool = False) -> None:
        """Give ``diversion`` what the caller says from now on, in the place of ``inference``.

        ``private``: the model is not told what is said meanwhile.

        Raises:
            StateError: A script has the call already.
            NotSupportedError: One model hears and speaks: nobody else can.
        """
        if self._realtime is not None:
            raise NotSupportedError(f"{self._agent.name}: a script needs an stt and a tts, and this call has an s2s")
        if self._diversion is not None:
            raise StateError(f"{self._agent.name}: a script has the call already: one at a time")
        self._diversion = diversion
        self.keypad.keep(keeps=True)
        if private:
            self._shown, self.history = self.history, History()

    def restore(self, diversion: Diversion) -> None:
        """Take the call back from ``diversion``, if it has it."""
        if self._diversion is not diversion:
            return
        self._diversion = None
        if self._shown is not None:
            self.history, self._shown = self._shown, None
        self.keypad.keep(keeps=False)
        for tools in self._tools:
            tools.line_up()

    def _new_resumer(self, llm: LLM | None) -> Resumer:
        return Resumer(
            self, self.engine, self._scribe, self._responder.tools, agent=self._agent.name, has_model=llm is not None
        )

    def ask(self) -> None:
        """Let this agent say something by itself as soon as there is room, unless it answers the caller before that."""
        responder, answers = self._responder, self._answers

        def reply() -> AsyncIterator[str] | None:
            wanted = responder is self._responder and answers == self._answers and not self.diverted
            return responder.respond() if wanted else None

        self.engine.ask(reply)

    @property
    def speaking(self) -> bool:
        """The voice has something to say to the caller."""
        return self.engine.speaking

    @property
    def elapsed_s(self) -> float:
        """Seconds since an agent took the call."""
        return self._ledger.elapsed_s

    # -- events -----------------------------------------------------------------------------------

    def happened(self, event: Callable[..., E], **fields: Any) -> int:
        """Note an event of the call and tell whoever listens; after the call's end nothing happens any more.

        Returns:
            Its number.
        """
        if self._noticed:
            self.tell_noticed()
        return self._happened(event, None, fields)

    def _notice(self, event: Callable[..., E], **fields: Any) -> None:
        """As :meth:`happened`, but told a little later, before anything else is: a caller waits for what follows."""
        if self._ledger.kept:
            self.happened(event, **fields)
            return
        if not self._noticed:
            # Behind what is begun in this step of the loop, which may be the answer.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self.tell_noticed)
        self._noticed.append((event, self._clock.now(), fields))

    def tell_noticed(self) -> None:
        """Tell of what was only noticed so far; done before anybody looks at what has happened."""
        while self._noticed:
            self._happened(*self._noticed.popleft())

    def _happened(self, event: Callable[..., ev.CallEvent], now: float | None, fields: dict[str, Any]) -> int:
        if self._over:
            return -1
        self._over = event is ev.CallEnded
        made = self._ledger.note(event, now=now, **fields)
        self.meter.feed(made)
        if len(self.events) < _MAX_EVENTS or isinstance(made, ev.CallMeasured | ev.CallEnded):
            self.events.append(made)
        self._owner.happened(made)
        self.voip.emit(VoIP.EVENT, made)
        return made.seq

    async def may_act(self, seq: int) -> str:
        """Wait until the event of that number is kept; why a tool must not start all the same, else empty."""
        return await self._ledger.may_act(seq, self.failed)

    def acts(self, turn: Turn) -> None:
        """Tools of ``turn`` are about to start."""
        self._scribe.acts(turn)

    def acted(self) -> None:
        """Something has changed the user's state, perhaps: it must not be known later than what comes of it."""
        if not self._over:
            self._ledger.save(self._agent.name, self._owner.state, self.failed)

    def failed(self, error: DialogError) -> None:
        """Something failed that does not end the call."""
        if self._agent.disposed:
            logger.error("call %s: after its end: %s", self.voip.metadata.call_id, error, exc_info=error.__cause__)
            return
        self._report_failure(Failure(source=self._agent.name, error=error))
        self._agent.fail(error)

    def _on_retired_failure(self, failure: Failure) -> None:
        failure = msgspec.structs.replace(failure, fatal=False)
        self._report_failure(failure)
        self._agent.emit(Participant.ERROR, failure)

    def _on_failure(self, failure: Failure) -> None:
        self._report_failure(failure)
        providers = (self.stt, self.tts)
        self._agent.emit(Participant.ERROR, failure)
        if (self.stt, self.tts) != providers:
            return  # a listener has put another in its place
        if failure.fatal and not self._failing and self.voip.state != "ended":
            if self._diversion is not None and self._diversion.lost(failure):
                return
            self._failing = True
            self._agent.spawn(self.give_up(failure.source), "giving up")

    def _report_failure(self, failure: Failure) -> None:
        self.happened(
            ev.ErrorRaised, source=failure.source, code=failure.error.code, text=str(failure.error), fatal=failure.fatal
        )

    async def give_up(self, source: str = "") -> None:
        """``source``, a provider, or what we do is gone for good: tell the caller, if there is a voice, and hang up."""
        if source not in [voice.name for voice in (self.tts or self.s2s,) if voice is not None]:
            try:
                async with asyncio.timeout(self._clock.real(15)):
                    await self.engine.dispatch_message(
                        self.settings.failure, PartOptions(allow_interrupt=False, paraphrase=True)
                    )
            except TimeoutError:
                logger.warning("call %s: the failure message was not heard in time", self.voip.metadata.call_id)
        if self.settings.failure_transfer:
            try:
                await self.voip.transfer_to(self.settings.failure_transfer)
            except DialogError as exc:
                self.failed(exc)
            else:
                return
        with suppress(CarrierError):  # the VoIP tells of it, and the media is closed all the same
            await self.voip.hangup()

    def _on_usage(self, used: ReplyUsage) -> None:
        self.used(used.uuid, used.usage)

    def _on_digit(self, digit: str) -> None:
        self.happened(ev.DigitPressed, digit=digit)
        self.engine.on_digit(digit)
        self.keypad.press(digit)

    def _on_say(self, request: SayRequest) -> None:
        self.engine.dispatch_message(request.text, PartOptions(allow_interrupt=request.allow_interrupt))

    def _on_whisper(self, whisper: Whisper) -> None:
        note = Entry(role="developer", text=whisper.text)
        self.history.add(note)
        if self._realtime is not None:
            self._realtime.model.note(note)
        self.happened(ev.AgentTold, text=whisper.text)

    def _on_transfer(self, status: TransferStatus) -> None:
        self.happened(ev.TransferChanged, to=status.to, state=status.state, detail=status.detail)

    def _on_recording(self, url: str) -> None:
        self.happened(ev.RecordingReady, url=url)  # after the end, whoever publishes the events tells of it

    def _on_streaming_started(self, started: StreamStarted) -> None:
        self.happened(ev.StreamChanged, state="live", generation=started.generation)
        if started.resumed == "transfer_failed" and self.settings.transfer_failed and not self.diverted:
            self.engine.dispatch_message(self.settings.transfer_failed, PartOptions(paraphrase=True))
        if self._record is not None:
            self._record.begin()
        for tools in self._tools:
            tools.line_up()

    def _on_streaming_stopped(self, stopped: StreamStopped) -> None:
        self.happened(ev.StreamChanged, state=stopped.reason, generation=self.voip.generation)

    def _on_ended(self, end: CallEnd) -> None:
        scope = CallScope.current()
        bound = self.settings.last_words_s + 1.0
        if self._at_work:
            bound += self.settings.tool_patience_s + 1.0
        if self._record is not None:
            bound += self.settings.wrap_up_s
        for participant in (self._agent, self.stt, self.s2s):
            if scope is not None and participant is not None:
                scope.linger(participant, bound if participant is self._agent else self.settings.last_words_s + 1.0)
        unfinished = self.engine.expecting_words
        entry = self.keypad.close()
        self.engine.end_turns()
        if entry:
            self.history.user(entry)
        self._agent.spawn(self._close(end, unfinished=unfinished), "close")

    @property
    def _at_work(self) -> bool:
        """Something of ours goes on for a while after the end of the call."""
        script = self.script is not None and not self.script.done()
        return script or any(tools.running for tools in self._tools)

    async def _close(self, end: CallEnd, *, unfinished: bool) -> None:
        """Keep the caller's last words and the results of tools, write the report, give everything back."""
        if self.stt is not None and unfinished:
            await self._last_words(self.stt)
        elif self._realtime is not None and unfinished:
            await self._realtime.last_words(self._clock.real(self.settings.last_words_s))
        self._guarded(self.engine.stop)
        for participant in (self.stt, self.tts, self.s2s):
            if participant is not None:
                self._guarded(participant.dispose)
        await asyncio.gather(self._finish_script(), *(tools.close() for tools in self._tools))
        self.tell_noticed()
        metrics = self.meter.metrics_at(round(self.elapsed_s, 4))
        self.happened(ev.CallMeasured, metrics=metrics)
        self.happened(ev.CallEnded, reason=end.reason, detail=end.detail)
        self._owner.reported(make_report(self.events))
        if self._record is not None:
            await self._record.completed(self.settings.wrap_up_s)
        for agent in self._former:
            agent.dispose()
        self._agent.dispose()

    async def _finish_script(self) -> None:
        """A script that has learnt of the end may write down what came of the call, within a bound."""
        script = self.script
        if script is None or script.done() or script is asyncio.current_task():
            return
        _, late = await asyncio.wait((script,), timeout=self._clock.real(self.settings.tool_patience_s))
        for task in late:
            task.cancel()

    def _guarded(self, let_go: Callable[[], None]) -> None:
        """A provider that cannot even be disposed of must not cost the call its end and its report."""
        try:
            let_go()
        except Exception as exc:  # foreign code: reported, and the call's scope disposes of the rest
            error = UserCodeError(f"letting go of a provider raised {exc!r}")
            error.__cause__ = exc
            self.failed(error)

    async def _last_words(self, stt: STT) -> None:
        stt.on(STT.MESSAGE, lambda utterance: self.history.user(self.speakers.text([utterance])))
        said = last_words(stt)
        try:
            async with asyncio.timeout(self._clock.real(self.settings.last_words_s)):
                await said.wait()
        except TimeoutError:
            logger.debug("call %s: no last words came", self.voip.metadata.call_id)

    # -- calls that are placed --------------------------------------------------------------------

    def _on_progress(self, progress: CallProgress) -> None:
        self.happened(ev.CallProgressed, state=progress.state, carrier_call_id=progress.carrier_call_id)

    def _on_answered_by(self, answered_by: AnsweredBy) -> None:
        self.happened(
            ev.CallAnsweredBy,
            who=answered_by.who,
            assumed=answered_by.assumed,
            late=answered_by.late,
            then=answered_by.then,
        )
        self._run_hook(self._owner.on_answered_by(answered_by), "on_answered_by")

    # -- what the engine tells --------------------------------------------------------------------

    def infer(self, message: Message[str]) -> AsyncIterator[str] | Coroutine[Any, Any, None]:
        """The agent's ``inference``, or the script that has the call."""
        turn = current_turn.get()
        self._answers += turn is not None and not turn.speculative
        if self._diversion is not None:
            return self._tell(message)
        return self._owner.inference(message)

    async def _tell(self, message: Message[str]) -> None:
        """Hand what the caller said to the script; what was perhaps not all of it is not handed over."""
        turn = current_turn.get()
        if turn is not None:
            await turn.confirmed()
        if self._diversion is not None:
            self._diversion.hear(message)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None] | None:
        """A task that the agent owns."""
        return self._agent.spawn(work, name)

    def stt_ready(self, stt: STT) -> None:
        """An STT is about to be opened."""
        self._owner.on_stt_ready(stt)

    def caller_spoke(self, edge: SpeechEdge) -> None:
        """The caller's voice started or stopped."""
        self._notice(ev.CallerSpoke, state=edge.state, at_ms=edge.at_ms)

    def caller_said(self, utterance: Utterance, *, final: bool) -> None:
        """The caller says, or has said, something."""
        self._notice(_said, utterance=utterance, final=final)

    def decided(self, decision: sig.Decision) -> None:
        """Turn taking decided something."""
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("call %s: %r", self.voip.metadata.call_id, decision)
        if isinstance(decision, sig.Pause):
            self.happened(ev.PausedForCaller, turn=decision.turn)
        elif isinstance(decision, sig.Resume) and decision.false_alarm:
            self.happened(ev.ResumedAfterPause, turn=decision.turn)
        elif isinstance(decision, sig.Drop):
            self.happened(ev.ReplyDropped, turn=decision.turn, reason=decision.reason)

    def say_rest(self, turn: Turn) -> None:
        """The line is back that broke ``turn`` off: go on with it."""
        self._resumer.say_rest(turn)

    def speculated(self, turn: Turn, *, saved_s: float | None) -> None:
        """A reply that was begun early is used, or thrown away."""
        self._answers += saved_s is not None
        outcome = "wasted" if saved_s is None else "saved"
        saved_ms = round((saved_s or 0.0) * 1000.0, 1)
        self.happened(ev.SpeculationEnded, turn=turn.uuid, outcome=outcome, saved_ms=saved_ms)

    def idle(self, count: int) -> None:
        """Nobody has spoken for a while."""
        self.happened(ev.IdlePrompted, count=count)
        self.prompt(count)

    def prompt(self, count: int) -> None:
        """Let the agent say something into a silence, for the ``count``-th time."""
        self._run_hook(self._owner.on_idle(count), "on_idle")

    def _run_hook(self, returned: Hooked, name: str) -> None:
        """Run to its end what a hook has returned, if it is an ``async def``."""
        if inspect.iscoroutine(returned):
            self.spawn(self._hook(returned, name), name)

    async def _hook(self, work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except Exception as exc:  # the user's code: it costs the call nothing else
            self.failed(as_failure(f"{name}() raised {exc!r}", exc))

    def used(self, turn: UUID | None, usage: Usage) -> None:
        """A provider tells what was used, by a turn or by none in particular."""
        self.happened(ev.UsageReported, turn=turn, usage=usage, cost_usd=cost_usd(usage, self.settings.all_prices))

    def near_end(self) -> None:
        """The call comes near its longest duration."""
        self._scribe.near_end()
        self.endings.near_end()

    def ending(self, reason: str) -> None:
        """It is time to end the call."""
        self.endings.end(reason)

    async def _consult(self, transfer: Transfer) -> None:
        """Ask whoever is to take the call, while the caller waits; who is not handed over comes back by themselves.

        Raises:
            DialogError: Nobody could be asked.
        """
        ring_s = _CONSULT_RING_S if transfer.back_within_s is None else transfer.back_within_s
        asked = await self.voip.consult(transfer.tel, ring_s=max(5.0, ring_s))
        try:
            await asked.wait_answered()
            if await self._owner.brief(asked, transfer.summary or ""):
                await self.voip.join(asked)
                return
        except CallNotAnswered as exc:
            logger.info("%s", exc)
            return
        except Exception as exc:
            self.failed(as_failure("the briefing failed", exc))
        if asked.end is None:
            with suppress(DialogError):  # its VoIP tells of it
                await asked.hangup(reason="refused")

    def stays(self) -> None:
        """The caller spoke over the goodbye: the call goes on."""
        self.endings.transfer = None
        self._scribe.stays()

    def warned(self, code: str, text: str) -> None:
        """Something is not as it was asked for, and the call goes on with less."""
        self.happened(ev.Warned, code=code, text=text)

    def caller_unheard(self) -> None:
        """The caller's voice was heard, and no words came of it."""
        self.happened(ev.CallerUnheard, waited_s=self.settings.turns.transcript_timeout_s)

    def interrupted(self, turn: Turn, reason: str) -> None:
        """A turn that was being heard is cut."""
        if reason == "caller spoke":
            self.happened(ev.Interrupted, turn=turn.uuid, reason=reason)

    def part_sounds(self, turn: Turn, part: Part) -> None:
        """A part is being heard, and there is text of it that was not told yet."""
        self.happened(ev.AgentSpeaks, turn=turn.uuid, part=part.number, text=part.speech.text)

    def part_ended(self, turn: Turn, part: Part, heard: str) -> None:
        """A part was heard, cut or lost."""
        assert part.playback is not None
        self.happened(
            ev.AgentSaid,
            turn=turn.uuid,
            part=part.number,
            text=part.speech.text,
            heard=heard,
            state=part.playback.state,
            heard_ms=part.playback.heard_ms,
            filler=part.options.filler,
        )
        self.keypad.played()

    def turn_ended(self, turn: Turn) -> None:
        """Nothing more is going to happen in a turn."""
        if not turn.dropped:
            self.happened(ev.TurnMeasured, timeline=turn.timeline(self._ledger.since))
        self.acted()
        self.keypad.played()

    # -- the model ------------------------------------------------------------------------------

    def respond(self) -> AsyncIterator[str]:
        """Answer the running turn with the model and the tools: the default ``inference``.

        Raises:
            ConfigurationError: The agent has no model.
            LimitError: The model called tools for ever.
            ProviderError: The model failed.
        """
        return self._responder.respond()

    def use_voice(self, voice: str) -> None:
        """Let ``voice`` say the rest of the running turn."""
        turn = current_turn.get()
        if turn is None or turn.engine is not self.engine:
            raise StateError(f"{self._agent.name}: use_voice() belongs into a turn: inference, or a tool")
        self.engine.use_voice(turn, voice)

    def heard_last(self) -> str:
        """What the running turn answers, else what was said last."""
        turn = current_turn.get()
        if turn is not None and turn.draft.user_text:
            return turn.draft.user_text
        self.tell_noticed()
        said = (event.text for event in reversed(self.events) if isinstance(event, ev.CallerSaid) and event.final)
        return next(said, "")

    def press_after(self, keys: str) -> None:
        """Press keys towards the other side, once the running turn is over: the stream is away for that moment."""
        self.spawn(self._press(current_turn.get(), keys), "pressing keys")

    async def _press(self, turn: Turn | None, keys: str) -> None:
        until = self._clock.now() + _PRESS_S
        while turn is not None and not turn.over and self._clock.now() < until:
            await self._clock.sleep(0.05)
        try:
            await self.voip.send_digits(keys)
        except DialogError as exc:
            self.failed(exc)

    def end_after(self, reason: str, transfer: Transfer | None = None) -> None:
        """End the call, or transfer it, once what the running turn says was heard.

        What a reply wishes that was begun early, and may be thrown away, counts once it is certain.
        """
        turn = current_turn.get()
        if turn is None or turn.engine is not self.engine:
            self._end_after(reason, transfer, None)
        elif turn.speculative:
            turn.wish = partial(self._end_after, reason, transfer, turn)
        else:
            self._end_after(reason, transfer, turn)

    def _end_after(self, reason: str, transfer: Transfer | None, turn: Turn | None) -> None:
        self.endings.transfer = transfer
        self._scribe.ending(reason, transfer)
        self.engine.end_after(reason, turn)

    async def collect_digits(
        self, *, max_digits: int | None, terminator: str, timeout_s: float, between_s: float
    ) -> Digits:
        """Wait for keys of the caller, for the running turn if there is one."""
        turn = current_turn.get()
        if turn is not None:
            await turn.confirmed()
            turn.speech.seal()  # what was yielded before is the prompt, and ends here
        with nullcontext() if turn is None else self.engine.patience(turn, max(timeout_s, between_s)):
            return await self.keypad.collect(
                max_digits=max_digits, terminator=terminator, timeout_s=timeout_s, between_s=between_s
            )


def _said(*, seq: int, at_s: float, utterance: Utterance, final: bool) -> ev.CallerSaid:
    return ev.CallerSaid(
        seq=seq,
        at_s=at_s,
        turn=utterance.uuid,
        text=utterance.data,
        final=final,
        start_ms=utterance.at_ms,
        end_ms=utterance.end_ms,
        speaker=", ".join(utterance.speakers),
    )
