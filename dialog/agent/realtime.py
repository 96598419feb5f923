"""The speech-to-speech engine: one model hears, thinks and speaks, for one call.

Turns are taken, said, cut and remembered as in the text engine, whose shell this is. What differs is who
does the work: the model gets the caller's audio and tells when the caller has finished; a turn asks it to
reply; what it says comes as audio, and its words beside it. When a reply is cut, the model is told how much
of it was heard.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, TypeVar
from uuid import UUID
from weakref import WeakSet

from msgspec.structs import replace

from dialog.agent.callerwords import CallerWords
from dialog.agent.cascade import Cascade
from dialog.agent.claim import claim
from dialog.agent.draft import Draft
from dialog.agent.ears import LocalHearing
from dialog.agent.host import Host
from dialog.agent.modelparts import ModelParts, Origin
from dialog.agent.modelvoice import ModelEars, ModelVoice
from dialog.agent.scribe import Scribe
from dialog.agent.speakingmodel import SpeakingModel, leading
from dialog.agent.speech import Part, PartOptions, Speech
from dialog.agent.turn import Turn
from dialog.agent.turns import signals as sig
from dialog.audio.convert import negotiate
from dialog.errors import ConfigurationError, NotSupportedError
from dialog.llm.llm import Entry, Item, ToolSpec
from dialog.message import AudioFormat, Message, Playback, SpeechEdge, Utterance
from dialog.participant import Event
from dialog.s2s.s2s import S2S, Replied, SessionSpec, ToolAsked
from dialog.stt.stt import STT
from dialog.tts.tts import TTS
from dialog.usage import ReplyUsage
from dialog.voip.voip import VoIP

__all__ = ["Realtime"]

logger = logging.getLogger(__name__)

E = TypeVar("E", Message[bytes], Message[str], ToolAsked, Replied)

_opened: WeakSet[S2S] = WeakSet()
"""Those that were opened, which happens once: an agent may let go of its call and take it again."""


class Realtime(Cascade):
    """Runs the turns of one call with a model that hears and speaks.

    Args:
        host: The conversation.
        voip: The call.
        s2s: The model.
        tts: Says what is to be said word for word, if the model cannot; ``None``: nobody does.
        tools: What the model may use.
        local: A local VAD, a filter of the caller's audio.
        scribe: Writes down what the call needs to survive this process.
    """

    def __init__(
        self,
        host: Host,
        voip: VoIP,
        s2s: S2S,
        tts: TTS | None,
        *,
        tools: tuple[ToolSpec, ...],
        local: LocalHearing,
        scribe: Scribe,
    ) -> None:
        self._s2s = s2s
        self._other_voice = tts
        self._voice = ModelVoice(s2s)
        self._model_ears = ModelEars(s2s, self._open_session)
        self.model: SpeakingModel = SpeakingModel(s2s)
        """What answers turns, for whoever runs their tools."""
        self._tools = tools
        super().__init__(host, voip, self._model_ears, tts or self._voice, local=local, scribe=scribe)
        self._words = CallerWords()
        self._worded = asyncio.Event()
        """Set whenever words of the caller come."""
        self._parts = ModelParts()
        self._wiring: tuple[tuple[Event[Any], Callable[[Any], object]], ...] = (
            (S2S.MESSAGE, self._on_audio),
            (S2S.REPLY, self._on_words),
            (S2S.REPLIED, self._on_replied),
            (S2S.TURN, self._on_turn),
            (S2S.INTERIM, self._on_words_so_far),
            (S2S.UTTERANCE, self._on_caller_words),
            (S2S.FLUSH, self._on_flush),
            (S2S.TOOL_CALL, self._on_tool),
            (S2S.TOOL_CANCELLED, self.model.does_not_want),
            (S2S.USAGE, self._on_usage),
        )

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the model's session and listen to it."""
        claim(self._s2s, self._voip)
        for event, listener in self._wiring:
            self._s2s.on(event, listener)
        super().start()

    def stop(self) -> None:
        """Give up all turns and let go of the model; harmless when repeated."""
        if self._stopped:
            return
        super().stop()
        for event, listener in self._wiring:
            self._s2s.off(event, listener)

    def _open_session(self, audio_format: AudioFormat, vad: Literal["provider", "local"]) -> None:
        s2s = self._s2s
        output = negotiate(self._voip.audio_format, s2s.output_formats)
        self._mouth.model_format = output
        if s2s in _opened:
            return
        _opened.add(s2s)
        s2s.open(
            SessionSpec(
                input_format=audio_format,
                output_format=output,
                system=self._system,
                tools=self._tools,
                vad=vad,
                history=self._history,
            )
        )

    def instruct(self, tools: tuple[ToolSpec, ...]) -> None:
        """Another agent has the call: its instructions, which the history begins with, and its tools."""
        self._tools = tools
        self._s2s.update(system=self._system, tools=tools)

    @property
    def _system(self) -> str:
        return "\n\n".join(leading(self._host.history.items()))

    def _history(self) -> list[Item]:
        """What a new session begins with: what was heard, and what the caller has said since."""
        items: list[Item] = list(self._host.history.items())
        del items[: len(leading(items))]
        waiting = (turn.draft.user_text for turn in self._turns.values() if turn.draft.open)
        items += [Entry(role="user", text=text) for text in waiting if text]
        self.model.knows(items)
        return items

    def resume(self, live_s: float | None, waiting: tuple[Utterance, ...], *, warned: bool) -> None:
        """Go on with a call of another process: what waits for an answer this model has not heard, but reads."""
        for utterance in waiting:
            self._words.typed(utterance)
        super().resume(live_s, waiting, warned=warned)

    def set_stt(self, stt: STT) -> None:  # noqa: ARG002  # refused whichever it is
        """A model that hears has no STT.

        Raises:
            NotSupportedError: Always.
        """
        raise NotSupportedError(f"{self._s2s.name} hears the caller itself: there is no STT to replace")

    def set_tts(self, tts: TTS) -> None:
        """Let ``tts`` say from now on what is to be said word for word.

        Raises:
            UnsupportedFormat: It shares no audio format with the call; the old one stays.
        """
        super().set_tts(tts)
        self._other_voice = tts

    # -- the caller -------------------------------------------------------------------------------

    def on_speech_edge(self, edge: SpeechEdge) -> None:
        """The caller's voice started or stopped."""
        if edge.state == "started":
            if self._model_ears.manual_turns:
                self._s2s.begin(edge.at_ms)
            super().on_speech_edge(edge)
        else:
            # Words come only after the model has noticed: the time to wait for them begins now.
            self._feed(sig.SpeechStopped())
            self._host.caller_spoke(edge)

    def _on_turn(self, uuid: UUID) -> None:
        """The caller has finished; the words may be known, or follow."""
        text = self._words.text(uuid)
        utterance = self._utterance(uuid)
        can = self._s2s.capabilities
        if text or self._taking.turn is None or not can.transcribes or can.replies == "unasked":
            # What sounds unfinished is waited for, unless nobody knows the words, or the reply is on its way.
            self._finished(utterance, complete=not text or can.replies == "unasked")
        else:  # a cough must not cut what is being said: words have to tell
            self._words.doubt(utterance)

    @property
    def expecting_words(self) -> bool:
        """The caller has begun an utterance that is not final yet, or nobody knows what it was."""
        return super().expecting_words or (self._s2s.capabilities.transcribes and self._words.owed)

    async def last_words(self, timeout_s: float) -> None:
        """Wait, so long at most, until the words of all that the caller said are known."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._words.owed:
                    self._worded.clear()
                    await self._worded.wait()
        except TimeoutError:
            logger.debug("call %s: no last words came", self._voip.metadata.call_id)

    def _on_words_so_far(self, utterance: Utterance) -> None:
        """The caller is saying this, or has said it in a turn that was answered already."""
        if self._words.is_told(utterance.uuid):
            self._host.caller_said(utterance, final=False)
        else:
            self.on_interim(utterance)

    def _on_caller_words(self, utterance: Utterance) -> None:
        """What the caller said, perhaps long ago."""
        uuid, text = utterance.uuid, utterance.data.strip()
        doubtful = self._words.come(uuid, text)
        self._worded.set()
        if doubtful and text and self._taking.closed:  # nobody will answer it
            self._host.caller_said(utterance, final=True)
            self._host.history.user(text)
            return
        if doubtful:
            if text:
                self.on_utterance(utterance, complete=self._s2s.capabilities.replies == "unasked")
            else:
                self._feed(sig.Final(utterance))
            return
        if text:
            self._host.caller_said(utterance, final=True)
        for number, draft in self._words.questions(uuid):
            turn = self._turns.get(number)
            if draft.open and turn is not None:
                turn.utterances = self._words.worded(turn.utterances)
                self._scribe.begun(turn)  # its question is known now

    def on_utterance(self, utterance: Utterance, *, complete: bool = False) -> None:
        """The caller has said or typed something."""
        self._words.typed(utterance)
        super().on_utterance(utterance, complete=complete)

    def _utterance(self, uuid: UUID) -> Utterance:
        """The one that has just ended, with what is known of its words."""
        now_ms = self._ears.position_ms or 0.0
        end_ms = 0.0 if self._ears.last_stop is not None else now_ms  # the voice's stop tells better
        return Utterance(uuid=uuid, data=self._words.text(uuid), at_ms=now_ms, end_ms=end_ms)

    # -- turns ------------------------------------------------------------------------------------

    def _infer(self, decision: sig.Infer) -> None:
        if decision.speculative:
            return  # a model speaks what it thinks: nothing can be prepared unheard
        uuid = decision.turn
        utterances = self._words.worded(decision.utterances)
        early = self._parts.begin(uuid)
        super()._infer(sig.Infer(uuid, utterances))
        turn = self._turns.get(uuid)
        if turn is None:
            return
        self._words.answered(uuid, turn.draft, utterances)
        typed = self._words.take_typed(utterances)
        for each in typed:
            self._s2s.add(Entry(role="user", text=each.data))
        if not typed:
            self.model.heard(turn)
        for handle, event in early:
            handle(event)

    def _unanswered(self, utterances: tuple[Utterance, ...]) -> Draft:
        draft = super()._unanswered(self._words.worded(utterances))
        self._words.answered(utterances[-1].uuid, draft, utterances)
        return draft

    def _turn_of(self, event: E, handle: Callable[[E], None]) -> Turn | None:
        """The turn that ``event``, something of a reply, belongs to, if it is to be heard.

        One may begin with it; if that has not the floor yet, ``handle`` is called again when it has.
        """
        uuid = event.uuid
        turn = self._turns.get(uuid)
        if turn is not None and turn.speech.granted:
            return None if turn.speech.closed else turn
        if self._parts.is_gone(uuid) or self._s2s.capabilities.replies == "asked":
            return None
        if not self._parts.is_early(uuid):
            self._parts.wait(uuid)
            if not self._words.is_told(uuid):
                # Nobody has said that the caller has finished: it speaks of its own accord, and interrupts nobody.
                self._finished(self._utterance(uuid), complete=True, claims=False)
            turn = self._turns.get(uuid)
            if turn is not None and turn.speech.granted:
                return turn
        self._parts.keep(uuid, handle, event)
        return None

    def _finished(self, utterance: Utterance, *, complete: bool, claims: bool = True) -> None:
        self._words.tell(utterance.uuid)
        self._feed(sig.Final(utterance, complete=complete, claims=claims))

    def _cut(self, decision: sig.Cut) -> None:
        turn = self._turns.get(decision.turn)
        # A part that sounds, or has, tells what was heard of it; of a reply that has none yet nothing was.
        sounds = turn is None or turn.over or any(part.options.model and not part.final for part in turn.speech.parts)
        super()._cut(decision)
        if not sounds:
            self._stop_reply(decision.turn)

    def _drop(self, decision: sig.Drop) -> None:
        known = decision.turn in self._turns
        super()._drop(decision)
        if known:
            self._stop_reply(decision.turn)

    def _stop_reply(self, uuid: UUID) -> None:
        """Nothing of what the model still makes for a turn will be heard."""
        self._s2s.cancel(Playback(uuid=uuid, part=self._parts.next_number(uuid), state="cut", heard_ms=0.0))

    def _forgotten(self, turn: Turn) -> None:
        super()._forgotten(turn)
        self.model.forget(turn)
        self._parts.forget(turn)
        self._voice.forget(turn.uuid)

    def _part_final(self, turn: Turn, part: Part, text: str, now: float) -> None:
        playback = part.playback
        assert playback is not None
        origin = self._parts.origin((turn.uuid, part.number))
        super()._part_final(turn, part, text, now)
        if origin is not None and origin.session == self._s2s.session:
            if playback.state != "played":
                self._s2s.cancel(replace(playback, part=origin.number))
        elif text and not part.options.filler:  # somebody else said it, or the model in a session that is over
            self._s2s.add(Entry(role="assistant", text=text))

    # -- what the model says ----------------------------------------------------------------------

    def _on_audio(self, message: Message[bytes]) -> None:
        key = (message.uuid, message.part)
        if self._voice.says(key):
            self._parts.note(key, Origin(self._s2s.session, message.part))
            self._voice.take(message)
            return
        turn = self._turn_of(message, self._on_audio)
        if turn is None:
            return
        self._driver.extend(turn)
        part = self._parts.part(turn, Origin(self._s2s.session, message.part))
        self._mouth.on_audio(message if part.number == message.part else replace(message, part=part.number))

    def _on_words(self, message: Message[str]) -> None:
        if self._voice.says((message.uuid, message.part)):
            return  # what was written for it
        turn = self._turn_of(message, self._on_words)
        if turn is None:
            return
        self._driver.extend(turn)
        part = self._parts.part(turn, Origin(self._s2s.session, message.part))
        turn.stamp("first_token", self._clock.now())
        turn.draft.say(part.number, message.data)
        turn.speech.write_to(part, message.data)

    def _on_replied(self, replied: Replied) -> None:
        if replied.part is not None:
            self._voice.said(replied)
            return
        turn = self._turn_of(replied, self._on_replied)
        if turn is not None:
            self._parts.seal(turn)
            self.model.replied(turn, replied)

    def _on_tool(self, asked: ToolAsked) -> None:
        turn = self._turn_of(asked, self._on_tool)
        if turn is not None:
            self._driver.extend(turn)
            self.model.wants(turn, asked)

    def _on_flush(self, uuid: UUID) -> None:
        if self._taking.turn == uuid:
            self._feed(sig.Claimed())

    def _on_usage(self, used: ReplyUsage) -> None:
        self._host.used(used.uuid, used.usage)

    # -- what is to be said word for word ---------------------------------------------------------

    def dispatch_message(
        self, text: str, options: PartOptions, *, greeting: bool = False, goes_on: UUID | None = None
    ) -> Speech:
        """Say ``text`` as a part of its own, in the running turn or in a new one.

        Raises:
            ConfigurationError: Nobody can say it word for word.
        """
        self._check_voice(options)
        return super().dispatch_message(text, options, greeting=greeting, goes_on=goes_on)

    def dispatch_stream(self, stream: AsyncIterator[str], options: PartOptions) -> Speech:
        """Say what ``stream`` yields as a part of its own.

        Raises:
            ConfigurationError: Nobody can say it word for word.
        """
        self._check_voice(options)
        return super().dispatch_stream(stream, options)

    def _check_voice(self, options: PartOptions) -> None:
        if self._other_voice is None and not self._s2s.capabilities.verbatim and not options.paraphrase:
            raise ConfigurationError(
                f"{self._s2s.name} says nothing word for word: give the agent a tts for what is to be said so"
            )

    def fill(self, turn: Turn, text: str) -> bool:
        """Say a filler in ``turn``, if somebody can, and nothing of it sounds or waits to."""
        able = self._other_voice is not None or (self._s2s.capabilities.verbatim and not self.model.replies(turn))
        return able and super().fill(turn, text)
