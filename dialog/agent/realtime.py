"""The speech-to-speech engine: one model hears, thinks and speaks, for one call.

Turns are taken, said, cut and remembered as in the text engine, whose shell this is. What differs is who
does the work: the model gets the caller's audio and tells when the caller has finished; a turn asks it to
reply; what it says comes as audio, and its words beside it. When a reply is cut, the model is told how much
of it was heard.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, TypeAlias, TypeVar
from uuid import UUID
from weakref import WeakSet

from msgspec.structs import replace

from dialog.agent.cascade import Cascade
from dialog.agent.ears import LocalHearing
from dialog.agent.history import Draft
from dialog.agent.host import Host
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
from dialog.s2s.s2s import S2S, Replied, ReplyUsage, SessionSpec, ToolAsked
from dialog.stt.stt import STT
from dialog.tts.tts import TTS
from dialog.voip.voip import VoIP

__all__ = ["Realtime"]

_MODEL = PartOptions(model=True)
_REMEMBERED = 64
_EARLY = 3000
"""Messages of a reply that wait for the floor, a minute of audio at least."""

_Event: TypeAlias = Message[bytes] | Message[str] | ToolAsked | Replied
E = TypeVar("E", Message[bytes], Message[str], ToolAsked, Replied)
V = TypeVar("V")

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
        self._parts: dict[tuple[UUID, int], Part] = {}
        """What the model speaks, by its own numbers …"""
        self._numbers: dict[tuple[UUID, int], tuple[int, int]] = {}
        """… and the other way round: its session and its number."""
        self._words: dict[UUID, str] = {}
        """What the caller said, as far as it is known by now."""
        self._unsure: dict[UUID, Utterance] = {}
        """Utterances over a reply, of which nobody knows yet whether they are words."""
        self._typed: set[UUID] = set()
        """Utterances that the model does not hear."""
        self._drafts: dict[UUID, tuple[Draft, tuple[UUID, ...]]] = {}
        """Of every turn: the utterances that it answers."""
        self._fed: dict[UUID, None] = {}
        """Utterances that turn taking knows of."""
        self._early: dict[UUID, list[tuple[Callable[[Any], None], _Event]]] = {}
        """What came unasked for a turn that has not the floor yet."""
        self._gone: dict[UUID, None] = {}
        """Turns that are over, or were given up."""

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the model's session and listen to it."""
        s2s = self._s2s
        s2s.on(S2S.MESSAGE, self._on_audio)
        s2s.on(S2S.REPLY, self._on_words)
        s2s.on(S2S.REPLIED, self._on_replied)
        s2s.on(S2S.TURN, self._on_turn)
        s2s.on(S2S.INTERIM, self._on_words_so_far)
        s2s.on(S2S.UTTERANCE, self._on_caller_words)
        s2s.on(S2S.FLUSH, self._on_flush)
        s2s.on(S2S.TOOL_CALL, self._on_tool)
        s2s.on(S2S.USAGE, self._on_usage)
        super().start()

    def stop(self) -> None:
        """Give up all turns and let go of the model; harmless when repeated."""
        if self._stopped:
            return
        super().stop()
        s2s = self._s2s
        s2s.off(S2S.MESSAGE, self._on_audio)
        s2s.off(S2S.REPLY, self._on_words)
        s2s.off(S2S.REPLIED, self._on_replied)
        s2s.off(S2S.TURN, self._on_turn)
        s2s.off(S2S.INTERIM, self._on_words_so_far)
        s2s.off(S2S.UTTERANCE, self._on_caller_words)
        s2s.off(S2S.FLUSH, self._on_flush)
        s2s.off(S2S.TOOL_CALL, self._on_tool)
        s2s.off(S2S.USAGE, self._on_usage)

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
                prompt=self._prompt,
                tools=self._tools,
                vad=vad,
                history=self._history,
            )
        )

    def instruct(self, tools: tuple[ToolSpec, ...]) -> None:
        """Another agent has the call: its instructions, which the history begins with, and its tools."""
        self._tools = tools
        self._s2s.update(prompt=self._prompt, tools=tools)

    @property
    def _prompt(self) -> str:
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
            self._typed.add(utterance.uuid)
            _remember(self._words, utterance.uuid, utterance.data.strip())
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
        text = self._words.get(uuid, "")
        utterance = self._utterance(uuid, text)
        can = self._s2s.capabilities
        if text or self._taking.turn is None or not can.transcribes or can.replies == "unasked":
            # What sounds unfinished is waited for, unless nobody knows the words, or the reply is on its way.
            self._finished(utterance, complete=not text or can.replies == "unasked")
        else:  # a cough must not cut what is being said: words have to tell
            _remember(self._unsure, uuid, utterance)

    def _on_words_so_far(self, utterance: Utterance) -> None:
        """The caller is saying this, or has said it in a turn that was answered already."""
        if utterance.uuid in self._fed:
            self._host.caller_said(utterance, final=False)
        else:
            self.on_interim(utterance)

    def _on_caller_words(self, utterance: Utterance) -> None:
        """What the caller said, perhaps long ago."""
        uuid, text = utterance.uuid, utterance.data.strip()
        _remember(self._words, uuid, text)
        if uuid in self._unsure:
            del self._unsure[uuid]
            if text:
                self.on_utterance(utterance, complete=self._s2s.capabilities.replies == "unasked")
            else:
                self._feed(sig.Final(utterance))
            return
        if text:
            self._host.caller_said(utterance, final=True)
        for number, (draft, answered) in self._drafts.items():
            if uuid in answered and not (draft.state == "dropped" and not draft.started):
                draft.hear(" ".join(filter(None, (self._words.get(each, "") for each in answered))))
                turn = self._turns.get(number)
                if draft.open and turn is not None:
                    turn.utterances = self._worded(turn.utterances)
                    self._scribe.begun(turn)  # its question is known now

    def on_utterance(self, utterance: Utterance, *, complete: bool = False) -> None:
        """The caller has said or typed something."""
        if utterance.uuid not in self._words:
            self._typed.add(utterance.uuid)
            _remember(self._words, utterance.uuid, utterance.data.strip())
        super().on_utterance(utterance, complete=complete)

    def _worded(self, utterances: tuple[Utterance, ...]) -> tuple[Utterance, ...]:
        """The same, with their words as far as they are known by now."""
        return tuple(replace(each, data=self._words.get(each.uuid, each.data)) for each in utterances)

    def _utterance(self, uuid: UUID, text: str) -> Utterance:
        end_ms = self._ears.position_ms or 0.0
        last = self._ears.last_stop
        return Utterance(uuid=uuid, data=text, at_ms=end_ms, end_ms=0.0 if last is not None else end_ms)

    # -- turns ------------------------------------------------------------------------------------

    def _infer(self, decision: sig.Infer) -> None:
        if decision.speculative:
            return  # a model speaks what it thinks: nothing can be prepared unheard
        uuid = decision.turn
        utterances = self._worded(decision.utterances)
        self._gone.pop(uuid, None)
        super()._infer(sig.Infer(uuid, utterances))
        turn = self._turns.get(uuid)
        if turn is None:
            return
        _remember(self._drafts, uuid, (turn.draft, tuple(each.uuid for each in utterances)))
        typed = [each for each in utterances if each.uuid in self._typed]
        for each in typed:
            self._typed.discard(each.uuid)
            self._s2s.add(Entry(role="user", text=each.data))
        if not typed:
            self.model.heard(turn)
        for handle, event in self._early.pop(uuid, ()):
            handle(event)

    def _turn_of(self, event: E, handle: Callable[[E], None]) -> Turn | None:
        """The turn that ``event``, something of a reply, belongs to, if it is to be heard.

        One may begin with it; if that has not the floor yet, ``handle`` is called again when it has.
        """
        uuid = event.uuid
        turn = self._turns.get(uuid)
        if turn is not None and turn.speech.granted:
            return None if turn.speech.closed else turn
        if uuid in self._gone or self._s2s.capabilities.replies == "asked":
            return None
        if uuid not in self._early:
            _remember(self._early, uuid, [], limit=4)
            if uuid not in self._fed:
                self._finished(self._utterance(uuid, self._words.get(uuid, "")), complete=True)
            turn = self._turns.get(uuid)
            if turn is not None and turn.speech.granted:
                self._early.pop(uuid, None)
                return turn
        early = self._early.get(uuid)
        if early is not None and len(early) < _EARLY:
            early.append((handle, event))
        return None

    def _finished(self, utterance: Utterance, *, complete: bool) -> None:
        _remember(self._fed, utterance.uuid, None)
        self._feed(sig.Final(utterance, complete=complete))

    def _cut(self, decision: sig.Cut) -> None:
        turn = self._turns.get(decision.turn)
        # A part that sounds tells what was heard of it; of a reply that has none yet nothing was.
        sounds = turn is None or any(part.options.model and not part.final for part in turn.speech.parts)
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
        numbers = [number for turn, number in self._parts if turn == uuid]
        number = max(numbers) + 1 if numbers else 0
        self._s2s.cancel(Playback(uuid=uuid, part=number, state="cut", heard_ms=0.0))

    def _forgotten(self, turn: Turn) -> None:
        super()._forgotten(turn)
        _remember(self._gone, turn.uuid, None)
        for key in [key for key in self._parts if key[0] == turn.uuid]:
            del self._parts[key]
        for key in [key for key in self._numbers if key[0] == turn.uuid]:
            del self._numbers[key]
            self._voice.forget(key)

    def _part_final(self, turn: Turn, part: Part, text: str, now: float) -> None:
        playback = part.playback
        assert playback is not None
        session, number = self._numbers.get((turn.uuid, part.number), (0, part.number))
        super()._part_final(turn, part, text, now)
        if session and session == self._s2s.session:
            if playback.state != "played":
                self._s2s.cancel(replace(playback, part=number))
        elif text and not part.options.filler:  # somebody else said it, or the model in a session that is over
            self._s2s.add(Entry(role="assistant", text=text))

    # -- what the model says ----------------------------------------------------------------------

    def _on_audio(self, message: Message[bytes]) -> None:
        key = (message.uuid, message.part)
        if self._voice.says(key):
            self._numbers.setdefault(key, (self._s2s.session, message.part))
            self._voice.take(message)
            return
        turn = self._turn_of(message, self._on_audio)
        if turn is None:
            return
        self._driver.extend(turn)
        part = self._part(turn, message.part)
        self._mouth.on_audio(message if part.number == message.part else replace(message, part=part.number))

    def _on_words(self, message: Message[str]) -> None:
        if self._voice.says((message.uuid, message.part)):
            return  # what was written for it
        turn = self._turn_of(message, self._on_words)
        if turn is None:
            return
        self._driver.extend(turn)
        part = self._part(turn, message.part)
        turn.stamp("first_token", self._clock.now())
        turn.draft.say(part.number, message.data)
        turn.speech.write_to(part, message.data)

    def _part(self, turn: Turn, number: int) -> Part:
        """The part that the model calls ``number``."""
        part = self._parts.get((turn.uuid, number))
        if part is None:
            self._seal(turn)
            turn.speech.seal()
            part = turn.speech.open_part(_MODEL)
            self._parts[turn.uuid, number] = part
            self._numbers[turn.uuid, part.number] = (self._s2s.session, number)
        return part

    def _seal(self, turn: Turn) -> None:
        for part in turn.speech.parts:
            if part.options.model:
                turn.speech.seal_part(part)

    def _on_replied(self, replied: Replied) -> None:
        if replied.part is not None:
            self._voice.said(replied)
            return
        turn = self._turn_of(replied, self._on_replied)
        if turn is not None:
            self._seal(turn)
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


def _remember(where: dict[UUID, V], uuid: UUID, what: V, *, limit: int = _REMEMBERED) -> None:
    """Note it, and forget the oldest."""
    where[uuid] = what
    if len(where) > limit:
        del where[next(iter(where))]
