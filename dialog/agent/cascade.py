"""The text engine: STT → turn taking → inference → shaping → TTS, for one call.

It is the thin shell around the pure parts: it hands events to turn taking, does what is decided, and
moves audio and text. What was said and heard it tells its :class:`Host`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from uuid import UUID, uuid4

from msgspec.structs import replace

from dialog.agent.decider import Decider
from dialog.agent.draft import Draft
from dialog.agent.driver import Driver, as_failure, checked
from dialog.agent.ears import Ears, LocalHearing
from dialog.agent.host import Host
from dialog.agent.mouth import Mouth
from dialog.agent.ownvoice import OwnVoice
from dialog.agent.parting import Parting
from dialog.agent.recorded import Recorded
from dialog.agent.scribe import Scribe
from dialog.agent.speakers import Speakers
from dialog.agent.speech import Part, PartOptions, Speech
from dialog.agent.turn import Turn, current_turn
from dialog.agent.turns import signals as sig
from dialog.agent.vadmode import Listening
from dialog.errors import ConfigurationError, DialogError, LimitError
from dialog.message import Message, Playback, SpeechEdge, StreamStarted, StreamStopped, Utterance
from dialog.stt.stt import STT
from dialog.tts.tts import TTS
from dialog.voip.voip import VoIP

__all__ = ["Cascade"]

logger = logging.getLogger(__name__)


class Cascade:
    """Runs the turns of one call. All methods are called on the call's event loop."""

    def __init__(
        self,
        host: Host,
        voip: VoIP,
        stt: STT | None,
        tts: TTS,
        *,
        local: LocalHearing,
        scribe: Scribe,
    ) -> None:
        self._host = host
        self._scribe = scribe
        self._voip = voip
        self._clock = voip.clock
        self._ears = Ears(
            voip,
            stt,
            self,
            vad_mode=host.settings.vad,
            vad_strict=host.settings.vad_strict,
            local=local,
            failed=host.failed,
            spawn=host.spawn,
            last_words_s=host.settings.last_words_s,
            ready=host.stt_ready,
            when_reached=host.reach.when_reached,
        )
        self._mouth = Mouth(
            voip,
            tts,
            host.settings,
            failed=host.failed,
            opened=self._part_opened,
            spoke=self._ears.spoke,
            scribe=scribe,
            reach=host.reach,
        )
        self._own = OwnVoice(voip, self._mouth.find, self._ears)
        self._turns = self._mouth.turns
        self._decider = Decider(host.settings.turns, voip.clock, self._carry_out)
        self._taking = self._decider.taking
        self._feed = self._decider.feed
        self._driver = Driver(
            host.infer,
            voip.clock,
            patience_s=host.settings.reply_timeout_s,
            failed=self._reply_failed,
            fault=host.failed,
            inside=self._inside,
            prepares=host.settings.filters is None,  # else it is the user's code that would run ahead
        )
        self._parting = Parting(host, voip, self._mouth, scribe=scribe, unmute=self._unmute, forgotten=self._forgotten)
        self._stopped = False

    # -- wiring -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the providers and listen to them."""
        self._own.start()  # before the rest: a part that has ended is forgotten
        self._voip.on(VoIP.PLAYBACK, self._on_playback)
        self._voip.on(VoIP.STREAMING_STARTED, self._on_streaming_started)
        self._voip.on(VoIP.STREAMING_STOPPED, self._on_streaming_stopped)
        self._ears.start()
        self._mouth.start()
        if self._voip.state == "live":
            self._feed(sig.LineUp())

    def end_turns(self) -> None:
        """The call is over: no turn goes on or begins. Words that still come are only noted."""
        self._feed(sig.Close())
        for turn in list(self._turns.values()):
            if turn.broken:
                self.close(turn)

    def stop(self) -> None:
        """Give up all turns and let go of everything; harmless when repeated."""
        if self._stopped:
            return
        self.end_turns()
        self._stopped = True
        self._parting.all()
        self._decider.stop()
        self._own.stop()
        self._voip.off(VoIP.PLAYBACK, self._on_playback)
        self._voip.off(VoIP.STREAMING_STARTED, self._on_streaming_started)
        self._voip.off(VoIP.STREAMING_STOPPED, self._on_streaming_stopped)
        self._mouth.stop()
        self._ears.stop()

    def resume(
        self,
        live_s: float | None,
        waiting: tuple[Utterance, ...],
        *,
        warned: bool,
    ) -> None:
        """Go on with a call that has been live for so long: answer what waits for it.

        ``warned``: the caller knows that the call comes near its longest duration.
        """
        self._feed(sig.Resumed(live_s, waiting, warned))

    def catch_up(self, at_ms: float, spent: Iterable[tuple[UUID, int]]) -> None:
        """The call's audio clock stands at ``at_ms``; of these turns so many parts were spoken already."""
        self._ears.catch_up(at_ms)
        for uuid, parts in spent:
            self._mouth.spent(uuid, parts)

    def set_tts(self, tts: TTS) -> None:
        """Let ``tts`` speak every part that begins from now on; parts in progress finish with the old voice.

        Raises:
            UnsupportedFormat: It shares no audio format with the call; the old voice stays.
        """
        self._mouth.replace(tts)

    def set_stt(self, stt: STT) -> None:
        """Let ``stt`` listen, from the next pause of the caller on; the old one's last words still count.

        Raises:
            UnsupportedFormat: It shares no audio format with the call; the old one stays.
        """
        self._ears.replace(stt)

    # -- the caller's side ------------------------------------------------------------------------

    @property
    def caller_speaking(self) -> bool:
        """The caller's voice is on."""
        return self._taking.caller_speaking

    @property
    def quiet(self) -> bool:
        """No turn speaks, prepares to or waits to, and no words of the caller are outstanding."""
        return not self._turns and self._taking.listening

    @property
    def speaking(self) -> bool:
        """The voice has something to say to the caller, or is about to."""
        return any(
            not (part.audio_done or part.final) for turn in self._turns.values() for part in turn.speech.parts
        ) or any(turn.task is not None and not turn.task.done() for turn in self._turns.values())

    @property
    def expecting_words(self) -> bool:
        """The caller has begun an utterance that is not final yet."""
        return self._taking.expecting_words or self._taking.caller_speaking

    def post(self, message: Message[str]) -> None:
        """An utterance: from the STT, typed, or made by a test. Empty ones are ignored."""
        if not message.data.strip():
            return
        utterance = (
            message
            if isinstance(message, Utterance)
            else Utterance(uuid=message.uuid, data=message.data, at_ms=message.at_ms)
        )
        self.on_utterance(utterance, complete=not isinstance(message, Utterance))

    def on_utterance(self, utterance: Utterance, *, complete: bool = False) -> None:
        """The caller has said something; ``complete``: there is nothing to add, for it was typed."""
        self._host.caller_said(utterance, final=True)
        self._feed(sig.Final(utterance, complete=complete))

    def on_interim(self, utterance: Utterance) -> None:
        """The caller is saying something."""
        self._host.caller_said(utterance, final=False)
        self._feed(sig.Interim(utterance))

    def on_listening(self, listening: Listening) -> None:
        """It was decided who hears speech start and stop, and who ends utterances."""
        if listening.warning:
            self._host.warned("vad_fallback", listening.warning)
        self._feed(
            sig.EndpointingResolved(listening.endpointing, tells_stops=listening.stops, tells_words=listening.words)
        )

    def on_judged(self, probability: float) -> None:
        """A model that hears the caller says how probably they have finished."""
        self._feed(sig.TurnJudged(probability))

    def on_eager(self, utterance: Utterance) -> None:
        """The caller is probably done."""
        self._feed(sig.Eager(utterance))

    def on_eager_withdrawn(self, uuid: UUID) -> None:
        """The caller went on after all."""
        self._feed(sig.EagerWithdrawn(uuid))

    def on_speech_edge(self, edge: SpeechEdge) -> None:
        """The caller's voice started or stopped."""
        position_ms = self._ears.position_ms
        age_s = 0.0 if position_ms is None else max(0.0, position_ms - edge.at_ms) / 1000.0
        self._feed(sig.SpeechStarted(age_s) if edge.state == "started" else sig.SpeechStopped(age_s))
        self._host.caller_spoke(edge)

    def on_digit(self, key: str) -> None:
        """The caller pressed a key."""
        self._feed(sig.Digit(key))

    def discard(self) -> None:
        """Forget what the caller has said until now, as far as it is not answered yet."""
        position_ms = self._ears.position_ms
        if position_ms is not None:
            self._ears.discard(position_ms)
        self._feed(sig.Discarded())

    def _on_streaming_started(self, started: StreamStarted) -> None:
        if started.resumed == "transfer_failed":
            self._feed(sig.EndCancelled())  # the call was to end there, and goes on here
        # What announced the transfer is not announced again.
        self._feed(sig.LineUp(goes_on=started.resumed != "transfer_failed"))

    def _on_streaming_stopped(self, stopped: StreamStopped) -> None:
        if stopped.reason != "ended":  # the end of the call follows, and ends the turns
            self._feed(sig.LineDown())

    # -- deciding ---------------------------------------------------------------------------------

    def _carry_out(self, decision: sig.Decision) -> None:
        if self._stopped and isinstance(decision, sig.Infer):
            decision = sig.Unanswered(decision.utterances)  # a listener has let go of the call meanwhile
        try:
            self._do(decision)
        except Exception as exc:  # a provider's: turn taking counts on what it decided after this
            self._host.failed(as_failure(f"{type(decision).__name__} failed", exc))
        if not self._stopped:
            self._host.decided(decision)

    def _do(self, decision: sig.Decision) -> None:
        if isinstance(decision, sig.Pause):
            self._voip.pause()
        elif isinstance(decision, sig.Resume):
            self._resume(decision)
        elif isinstance(decision, sig.Infer):
            self._infer(decision)
        elif isinstance(decision, sig.Promote):
            self._promote(decision)
        elif isinstance(decision, sig.Speak):
            self._speak(decision.turn)
        elif isinstance(decision, sig.Cut):
            self._cut(decision)
        elif isinstance(decision, sig.GoOn):
            self._go_on(decision.turn)
        elif isinstance(decision, sig.Drop):
            self._drop(decision)
        elif isinstance(decision, sig.Unanswered):
            self._unanswered(decision.utterances)
        elif isinstance(decision, sig.Overflow):
            self._host.failed(
                LimitError(
                    f"{decision.chars} characters that the caller said were forgotten: more than "
                    f"{decision.limit} waited for an answer"
                )
            )
        elif isinstance(decision, sig.Idle):
            self._host.idle(decision.count)
        elif isinstance(decision, sig.NearEnd):
            self._host.near_end()
        elif isinstance(decision, sig.End):
            self._host.ending(decision.reason)
        elif isinstance(decision, sig.EndWithdrawn):
            self._host.stays()
        elif isinstance(decision, sig.NoTranscript):
            self._host.caller_unheard()
        elif isinstance(decision, sig.TurnModelFailed):
            self._host.failed(as_failure("the turn model raised", decision.error))
        elif isinstance(decision, sig.Finalize):
            self._ears.finalize()
        else:
            assert isinstance(decision, sig.Backchannel)
            self._scribe.closed(decision.utterance)
            if decision.reason == "farewell":  # a listener's "uh-huh" is no part of the conversation
                self._host.history.user(self._host.speakers.text([decision.utterance]))

    # -- turns ------------------------------------------------------------------------------------

    def _new_turn(self, uuid: UUID, text: str, utterances: tuple[Utterance, ...]) -> Turn:
        draft = self._host.history.draft(text)
        draft.turn = uuid
        return self._mouth.new_turn(uuid, draft, utterances, self)

    def _part_opened(self, turn: Turn, part: Part) -> None:
        options = part.options
        self._feed(
            sig.PartOpened(
                turn.uuid,
                part.number,
                options.allow_interrupt,
                barge_in=options.barge_in,
                endpointing=options.endpointing,
                greeting=turn.greeting,
            )
        )

    def _unanswered(self, utterances: tuple[Utterance, ...]) -> Draft:
        """Keep what nobody will answer any more."""
        draft = self._host.history.draft(self._host.speakers.text(utterances))
        self._host.history.commit(draft, {})
        return draft

    def _infer(self, decision: sig.Infer) -> None:
        for other in list(self._turns.values()):
            if other.cut and not other.settled:
                self._parting.settle(other)
        now = self._clock.now()
        newest = decision.utterances[-1]
        text = self._host.speakers.text(decision.utterances)
        turn = self._new_turn(decision.turn, text, decision.utterances)
        self._stamp_end_of_speech(turn, newest, now)
        if decision.speculative:
            turn.speculate(self._host.history.version)
        else:
            turn.stamp("final", now)
            self._mouth.awaited(turn)
        self._scribe.begun(turn)
        turn.stamp("inference", now)
        turn.speech.grant()
        message: Message[str] = newest if len(decision.utterances) == 1 else Message(uuid=turn.uuid, data=text)
        turn.task = self._host.spawn(self._driver.run(turn, message, self._reply_ended), f"turn {turn.uuid}")

    def _inside(self, turn: Turn, what: str) -> AbstractContextManager[None]:
        tracer = self._voip.tracer
        return nullcontext() if tracer is None else tracer.work(turn.uuid, what, turn.times)

    def _stamp_end_of_speech(self, turn: Turn, newest: Utterance, now: float) -> None:
        """Note when the caller stopped speaking: by the words' times, else by the newest edge; never guessed."""
        position_ms = self._ears.position_ms
        if position_ms is None:
            return
        if newest.end_ms:
            end_ms = newest.end_ms
            turn.speech_source = "stt_words" if newest.words else "provider_event"
        elif self._ears.last_stop is not None:
            end_ms, turn.speech_source = self._ears.last_stop
        else:
            return
        turn.stamp("end_of_speech", now - (position_ms - end_ms) / 1000.0)

    def _promote(self, decision: sig.Promote) -> None:
        """The caller has said what was expected: the reply that was begun early may sound."""
        turn = self._turns.get(decision.turn)
        if (
            turn is None
            or turn.failed
            or turn.based_on != self._host.history.version
            or not Speakers.same(turn.utterances, decision.utterances)
        ):
            # It was made of another conversation than this one has become.
            if turn is not None:
                self._drop(sig.Drop(turn.uuid, "the conversation went on"))
            self._infer(sig.Infer(decision.turn, decision.utterances, speculative=False))
            return
        now = self._clock.now()
        turn.utterances = decision.utterances
        self._host.speculated(turn, saved_s=now - turn.times["inference"])
        turn.stamp("final", now)
        self._mouth.awaited(turn)
        self._mouth.release(turn)
        if turn.wish is not None:
            turn.wish()
        if turn.ended:
            self._reply_ended(turn)

    def _reply_failed(self, turn: Turn, error: DialogError) -> None:
        self._host.failed(error)
        turn.failed = True
        turn.speech.seal()
        if turn.speculative:
            return  # nobody heard of it: once it is wanted it is tried again
        said = any(part.speech.text and not part.options.filler for part in turn.speech.parts)
        # Nobody waits for what the agent wanted to say by itself: there is nothing to apologise for.
        if turn.reply is None and not turn.speech.closed and not said:
            self._append(turn, self._host.settings.apology, PartOptions(paraphrase=True))

    def _reply_ended(self, turn: Turn) -> None:
        turn.ended = turn.written = True
        if turn.speculative:
            return
        self._scribe.complete(turn)
        self._parting.finish(turn)
        self._feed(sig.ReplyEnded(turn.uuid))

    def _speak(self, uuid: UUID) -> None:
        turn = self._turns.get(uuid)
        if turn is None:
            self._feed(sig.ReplyEnded(uuid))
            return
        reply = turn.reply() if turn.reply is not None else None
        if turn.reply is not None and reply is None:
            self._drop(sig.Drop(uuid, "nothing to say any more"))
            self._feed(sig.ReplyEnded(uuid))
            return
        turn.draft.begin()
        self._scribe.begun(turn)
        turn.speech.grant()
        if reply is not None:
            turn.stamp("inference", self._clock.now())
            message = Message(uuid=uuid, data="")
            turn.task = self._host.spawn(
                self._driver.run(turn, message, self._reply_ended, reply), f"turn {uuid} of the agent's own"
            )
            return
        self._own_turn_said(turn)

    def _own_turn_said(self, turn: Turn) -> None:
        """A turn of the agent's own has ended once its text is known and it has the floor."""
        if turn.task is not None or turn.reply is not None or turn.ended or not turn.speech.granted:
            return
        if all(part.sealed for part in turn.speech.parts):
            self._reply_ended(turn)

    def _resume(self, decision: sig.Resume) -> None:
        """Let the line speak again; after a false alarm from the start of the word that was cut."""
        from_ms = None
        turn = self._turns.get(decision.turn) if decision.false_alarm else None
        part = next((part for part in turn.speech.parts if not part.final), None) if turn is not None else None
        if part is not None and part.heard_ms:
            from_ms = part.heard_map.word_start_ms(part.heard_ms)
        self._voip.resume(from_ms=from_ms)

    def _cut(self, decision: sig.Cut) -> None:
        turn = self._turns.get(decision.turn)
        if turn is not None and decision.goes_on:
            self._parting.suspend(turn)
        elif turn is not None:
            self._parting.cut(turn, decision.reason, at=decision.at)

    def _go_on(self, uuid: UUID) -> None:
        turn = self._turns.get(uuid)
        if turn is not None:
            self._host.say_rest(turn)
        self._feed(sig.Tick())  # where nothing was left to say, what waits for it need not wait

    def close(self, turn: Turn) -> None:
        """A turn that the line broke off is over, or goes on in another one: history has what was heard of it."""
        turn.broken = False
        self._parting.finish(turn)

    def _drop(self, decision: sig.Drop) -> None:
        turn = self._turns.get(decision.turn)
        if turn is not None:
            self._parting.drop(turn)

    def _forgotten(self, turn: Turn) -> None:
        """Nothing more is going to happen in a turn."""
        self._scribe.over(turn)
        self._host.turn_ended(turn)
        turn.let_go()

    # -- what the agent's code says ---------------------------------------------------------------

    def dispatch_message(
        self, text: str, options: PartOptions, *, greeting: bool = False, goes_on: UUID | None = None
    ) -> Speech:
        """Say ``text`` as a part of its own, in the running turn or in a new one.

        ``goes_on``: it is what was not heard of that turn, whose process is gone, or whose line was.
        """
        checked(text)
        self._require_voice(options.voice)
        if self._taking.closed:
            return Speech.lost(text)
        turn = self._speaking_turn() if goes_on is None else self._new_turn(uuid4(), "", ())
        if turn is None:
            return Speech.dropped(text)
        new = not turn.speech.parts
        turn.greeting = greeting
        part = self._append(turn, text, options, goes_on=goes_on)
        if new and turn.task is None:
            self._feed(sig.SayRequested(turn.uuid, options.allow_interrupt))
        return part.speech

    def dispatch_stream(self, stream: AsyncIterator[str], options: PartOptions) -> Speech:
        """Say what ``stream`` yields as a part of its own."""
        self._require_voice(options.voice)
        if self._taking.closed:
            return Speech.lost("")
        turn = self._speaking_turn()
        if turn is None:
            return Speech.dropped("")
        new = not turn.speech.parts
        turn.speech.seal()
        part = turn.speech.open_part(options)
        task = self._host.spawn(self._driver.read(turn, part, stream, self._own_turn_said), f"stream of {turn.uuid}")
        if task is not None:
            turn.feeders[task] = part
            task.add_done_callback(lambda task: turn.feeders.pop(task, None))
        if new and turn.task is None:
            self._feed(sig.SayRequested(turn.uuid, options.allow_interrupt))
        return part.speech

    def dispatch_audio(self, options: PartOptions, text: str = "") -> Recorded | None:
        """Play audio in a turn of its own, in which ``text`` is said; ``None``: the call is over."""
        if self._taking.closed:
            return None
        turn = self._new_turn(uuid4(), "", ())
        part = turn.speech.open_part(replace(options, model=True))
        part.recording = bytearray()
        turn.draft.say(part.number, text)
        turn.speech.write_to(part, text)
        self._feed(sig.SayRequested(turn.uuid, options.allow_interrupt))
        return Recorded(turn, part, self._own_turn_said)

    def stop_speech(self, speech: Speech) -> None:
        """Say no more of ``speech``, also if it may not be interrupted; what its turn says besides goes on."""
        for turn in list(self._turns.values()):
            for part in turn.speech.parts:
                if part.speech is not speech or part.final:
                    continue
                if not turn.speech.granted:
                    self._drop(sig.Drop(turn.uuid, "not wanted any more"))
                    return
                self._parting.stop_part(turn, part)
                turn.speech.tell()  # the line ends only what it knows
                self._voip.abort(turn.uuid, part=part.number)
                turn.speech.pump()
                self._own_turn_said(turn)

    def use_voice(self, turn: Turn, voice: str) -> None:
        """Let ``voice`` say what ``turn`` says from now on, as far as it does not say otherwise."""
        self._require_voice(voice)
        turn.speech.seal()
        turn.speech.voice = voice

    def _require_voice(self, voice: str) -> None:
        voices = self._mouth.voices
        if voice and not voices.capabilities.voices:
            raise ConfigurationError(f"{voices.current} speaks with one voice only: it cannot speak as {voice!r}")

    def tool_started(self, call_id: str) -> None:
        """A tool works: the caller is not idle but waits."""
        self._feed(sig.ToolStarted(call_id))

    def tool_ended(self, call_id: str) -> None:
        """A tool has ended, however."""
        self._feed(sig.ToolEnded(call_id))

    def stay(self) -> None:
        """The call was to end, and does not."""
        self._feed(sig.EndCancelled())

    def end_after(self, reason: str, turn: Turn | None) -> None:
        """End the call once what ``turn`` says was heard; without one, or after its end, once all was."""
        self._feed(sig.EndRequested(reason, turn.uuid if turn is not None else None))

    def ask(self, reply: Callable[[], AsyncIterator[str] | None]) -> Turn | None:
        """Begin a turn of the agent's own that thinks of its words when it has the floor: then ``reply`` is asked.

        It returns ``None`` when there is nothing to say any more. Without a call there is no turn.
        """
        if self._taking.closed:
            return None
        turn = self._new_turn(uuid4(), "", ())
        turn.reply = reply
        self._feed(sig.SayRequested(turn.uuid, allow_interrupt=True))
        return turn

    def finished(self, uuid: UUID, draft: Draft) -> Turn:
        """A turn of another process, of which only a tool is still at work."""
        turn = self._mouth.new_turn(uuid, draft, (), self)
        self._mouth.forget(turn)
        turn.ended = turn.settled = turn.speech.closed = True
        return turn

    def fill(self, turn: Turn, text: str) -> bool:
        """Say a filler in ``turn``, unless something of it sounds or waits to; tell whether it does."""
        busy = any(not part.final for part in turn.speech.parts)
        if busy or not turn.speech.granted or turn.speech.closed or turn.ended or turn.speculative:
            return False
        part = turn.speech.open_part(PartOptions(filler=True))
        turn.speech.write_to(part, text)
        turn.speech.seal_part(part)
        return True

    def unfill(self, turn: Turn) -> None:
        """Take back a filler that has not begun to sound: the answer is there."""
        for part in turn.speech.parts:
            if part.options.filler and part.playback is None:
                self._parting.stop_part(turn, part)
                self._voip.abort(turn.uuid, part=part.number)

    def hush(self, turn: Turn) -> None:
        """Say no more of what a turn has said so far, as far as it may be interrupted; the turn goes on."""
        self._parting.hush(turn)

    @property
    def sounding(self) -> bool:
        """Something of a turn that has the floor is not heard to its end yet."""
        return any(not part.final for turn in self._on_the_floor() for part in turn.speech.parts)

    def hush_all(self) -> None:
        """Say no more of what sounds, as far as it may be interrupted; turns go on."""
        for turn in self._on_the_floor():
            self.hush(turn)

    def _on_the_floor(self) -> list[Turn]:
        return [turn for turn in self._turns.values() if turn.speech.granted and not turn.speculative]

    @contextmanager
    def patience(self, turn: Turn, seconds: float) -> Generator[None]:
        """Let ``turn`` say nothing for so much longer than usual, inside the block."""
        turn.slow_s += seconds
        self._driver.extend(turn)
        try:
            yield
        finally:
            turn.slow_s -= seconds
            self._driver.extend(turn)

    def abort(self) -> None:
        """Give up every turn that may be interrupted."""
        self._feed(sig.Aborted())

    def _speaking_turn(self) -> Turn | None:
        """The turn that the running code speaks for; ``None`` if it was cancelled and must not speak."""
        turn = current_turn.get()
        if turn is not None and turn.engine is self:
            task = asyncio.current_task()
            # A timer that was set in the turn has its context and no task: it does not speak for the turn.
            if task is not None and turn.speech.closed and (task is turn.task or task in turn.feeders):
                return None
            if self._turns.get(turn.uuid) is turn and not turn.speech.closed and not turn.ended:
                return turn
        return self._new_turn(uuid4(), "", ())

    def _append(self, turn: Turn, text: str, options: PartOptions, *, goes_on: UUID | None = None) -> Part:
        self._driver.extend(turn)
        turn.speech.seal()
        self._scribe.planned(turn, turn.speech.open_number, text, options, goes_on=goes_on)
        part = turn.speech.open_part(options)
        turn.draft.say(part.number, text[options.repeats :])
        turn.speech.write_to(part, text)
        turn.speech.seal_part(part)
        return part

    # -- the line's side -------------------------------------------------------------------------

    def _on_playback(self, playback: Playback) -> None:
        found = self._mouth.find(playback.uuid, playback.part)
        if found is None:
            return
        turn, part = found
        if part.final:
            return
        part.playback = playback
        self._driver.alive(turn)
        self._mute(part)
        sounds = playback.heard_ms > 0 or playback.state == "playing"
        if "first_frame" not in turn.times and sounds and not part.options.filler:
            turn.stamp("first_frame", self._clock.now() - playback.heard_ms / 1000.0)
        if self._voip.captions and playback.state == "playing" and len(part.speech.text) > part.captioned:
            part.captioned = len(part.speech.text)
            self._host.part_sounds(turn, part)
        if playback.final:
            text = part.heard_text()
            self._part_final(turn, part, text, self._clock.now())
            # Who has heard a filler has heard nothing of the reply.
            self._feed(sig.Played(playback, part.was_heard and not part.options.filler))
        elif not turn.heard and not part.options.filler and part.was_heard:
            # Progress tells turn taking one thing only: that some word was heard.
            turn.heard = True
            self._feed(sig.Played(playback, words=True))
        turn.speech.pump()

    def _unmute(self) -> None:
        self._ears.muted = False

    def _mute(self, part: Part) -> None:
        """Stop listening to the caller while a part sounds that asks for it."""
        if part.options.mute_caller and part.playback is not None:
            self._ears.muted = part.playback.state == "playing"

    def _part_final(self, turn: Turn, part: Part, text: str, now: float) -> None:
        self._parting.part_final(turn, part, text, now)
