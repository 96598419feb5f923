"""What the agent says, on its way from text to the line: the parts of all turns of a call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from uuid import UUID
from weakref import WeakKeyDictionary, ref

from dialog.agent.draft import Draft
from dialog.agent.driver import as_failure
from dialog.agent.heard import SpeechRate
from dialog.agent.reach import Reach
from dialog.agent.scribe import Scribe
from dialog.agent.settings import AgentSettings
from dialog.agent.shaping import shaper_for
from dialog.agent.speech import Part, PartOptions, SpeechQueue
from dialog.agent.thinking import ThinkingSound
from dialog.agent.turn import Turn
from dialog.agent.voices import Voices
from dialog.audio.convert import Converter
from dialog.errors import DialogError
from dialog.message import Alignment, AudioFormat, Message, Utterance
from dialog.recent import Recent
from dialog.tts.tts import TTS
from dialog.voip.voip import VoIP

__all__ = ["Mouth"]

_REMEMBERED_TURNS = 256
_RECORDING_MS = 1000.0
"""A recording is handed over in pieces of this length."""

_spent: WeakKeyDictionary[VoIP, Recent[UUID, int]] = WeakKeyDictionary()
"""Of the last turns of a call: how many parts they had. A second turn of that uuid goes on counting, for the
line and the voices know a part by both; also the turn of an agent that takes the call again."""


class Mouth:
    """Has the parts of the running turns spoken, and hands their audio to the line in its order.

    Args:
        voip: The call.
        tts: The voice.
        settings: How far the voice may be ahead, what sounds while nobody speaks.
        failed: Told of a voice that could not say something.
        opened: Told of every part that may sound, before any audio of it.
        spoke: Told of everything that goes to the line.
        scribe: Writes down what goes there, before it does.
        reach: Knows when the voice may be opened, and given text.
    """

    __slots__ = (
        "_clock",
        "_failed",
        "_opened",
        "_rate",
        "_reach",
        "_scribe",
        "_settings",
        "_spent",
        "_spoke",
        "_thinking",
        "_voip",
        "model_format",
        "turns",
        "voices",
    )

    def __init__(
        self,
        voip: VoIP,
        tts: TTS,
        settings: AgentSettings,
        *,
        failed: Callable[[DialogError], None],
        opened: Callable[[Turn, Part], None],
        spoke: Callable[[Message[bytes]], None],
        scribe: Scribe,
        reach: Reach,
    ) -> None:
        self._voip = voip
        self._scribe = scribe
        self._clock = voip.clock
        self._settings = settings
        self._failed = failed
        self._opened = opened
        self._spoke = spoke
        self._reach = reach
        self.voices: Voices = Voices(voip, tts, self, when_reached=reach.when_reached)
        self.model_format: AudioFormat = voip.audio_format
        """What a model that speaks by itself makes."""
        self.turns: dict[UUID, Turn] = {}
        """Those that are not over."""
        # In a text call nothing takes time to say.
        self._rate = SpeechRate() if voip.medium == "audio" else SpeechRate(inf)
        self._spent = _spent.setdefault(voip, Recent(_REMEMBERED_TURNS))
        self._thinking: ThinkingSound | None = None
        if settings.thinking_sound is not None and voip.medium == "audio":
            self._thinking = ThinkingSound(voip, settings.thinking_sound, after_s=settings.thinking_after_s)

    def start(self) -> None:
        """Open the voice; the background begins."""
        self.voices.start()
        if self._settings.background_sound is not None and self._voip.medium == "audio":
            self._voip.set_background(self._settings.background_sound)

    def stop(self) -> None:
        """Let go of the voices; nobody thinks any more."""
        if self._thinking is not None:
            self._thinking.stop()
        self.voices.stop()

    def replace(self, tts: TTS) -> None:
        """Let ``tts`` speak every part that begins from now on; see :meth:`Voices.replace`."""
        self.voices.replace(tts)
        for turn in self.turns.values():
            turn.speech.unprepare()  # it was made for the voice before

    # -- turns and their parts --------------------------------------------------------------------

    def new_turn(self, uuid: UUID, draft: Draft, utterances: tuple[Utterance, ...], engine: object) -> Turn:
        """Begin a turn; what it says is kept until it is granted the floor."""

        def opened(part: Part) -> None:
            if (turn := known()) is not None:
                self._part_opened(turn, part)
                self._scribe.opened(turn, part)

        def tell(part: Part) -> None:
            if (turn := known()) is not None and not turn.speculative:
                self._announce(turn, part)

        def play(part: Part) -> bool:
            return (turn := known()) is not None and self._play(turn, part)

        def on_text() -> None:
            if (turn := known()) is not None:
                turn.stamp("first_text", self._clock.now())

        queue = SpeechQueue(
            uuid,
            new_part=self._new_part,
            opened=opened,
            tell=tell,
            post=self._say if self._reach.reached else self._say_when_reached,
            play=play,
            gate=self._gate,
            first=self._spent.get(uuid, 0),
        )
        turn = Turn(uuid, queue, draft, utterances, engine=engine)
        known = ref(turn)  # a turn and its queue that held each other would be left to the garbage collector
        queue.on_text = on_text
        self.turns[uuid] = turn
        return turn

    def forget(self, turn: Turn) -> bool:
        """A turn is over; whether it was known."""
        if self.turns.pop(turn.uuid, None) is None:
            return False
        for part in turn.speech.parts:
            self.voices.release((turn.uuid, part.number))
        if self._thinking is not None and not any(
            other.speech.granted and not other.speculative for other in self.turns.values()
        ):
            self._thinking.stop()  # those that are left wait for the floor, and nobody for them
        return True

    def find(self, uuid: UUID, number: int) -> tuple[Turn, Part] | None:
        """A part of a running turn, and the turn."""
        turn = self.turns.get(uuid)
        if turn is None:
            return None
        index = number - turn.speech.first
        return (turn, turn.speech.parts[index]) if 0 <= index < len(turn.speech.parts) else None

    def spent(self, uuid: UUID, parts: int) -> None:
        """So many parts were spoken for a turn of this uuid already, by an agent in another process."""
        self._spent[uuid] = max(parts, self._spent.get(uuid, 0))

    def awaited(self, turn: Turn) -> None:
        """The caller waits for what the turn says next."""
        if self._thinking is not None and not turn.ended:
            self._thinking.wait()

    def release(self, turn: Turn) -> None:
        """A turn that was begun early may sound."""
        held, turn.held = turn.held, []
        turn.confirm()
        self._scribe.begun(turn)
        for part in turn.speech.parts:
            self._announce(turn, part)
            self._scribe.spoke(turn, part)
        for message in held:
            self._to_line(message)

    def stop_part(self, turn: Turn, part: Part) -> None:
        """Shape and synthesise no more of a part."""
        turn.speech.silence(part)
        self.voices.abort((turn.uuid, part.number))

    def learn(self, part: Part, heard_ms: float) -> None:
        """A part was heard to its end: so fast speaks the voice."""
        part.heard_map.learn(heard_ms)

    def _new_part(self, number: int, options: PartOptions) -> Part:
        if options.model:  # what was said is taken as it is
            return Part(number, shaper_for("tokens", (), normalizes=True), self._rate, options)
        voice = self.voices.capabilities
        shaper = shaper_for(voice.text, self._settings.filters, normalizes=voice.normalizes)
        return Part(number, shaper, self._rate, options, sounds=self._voip.medium == "audio")

    def _part_opened(self, turn: Turn, part: Part) -> None:
        self._spent[turn.uuid] = part.number + 1
        if not part.options.model:
            part.converter = self.voices.assign((turn.uuid, part.number))
        elif part.recording is None and self.model_format != self._voip.audio_format:
            part.converter = Converter(self.model_format, self._voip.audio_format)

    def _announce(self, turn: Turn, part: Part) -> None:
        # The line plays parts in the order in which it hears of them, and audio of a later part may
        # be ready first: tell it now.
        self._to_line(Message(uuid=turn.uuid, part=part.number, data=b""))
        self._opened(turn, part)

    # -- text to the voice, audio to the line -----------------------------------------------------

    def _say_when_reached(self, message: Message[str]) -> None:
        self._reach.when_reached(partial(self._say, message))

    def _say(self, message: Message[str]) -> None:
        try:
            self.voices.post(message)
        except Exception as exc:  # a voice that cannot say it must not leave the part open for ever
            name = self.voices.name((message.uuid, message.part))
            self._failed(as_failure(f"{name} could not take text: {exc!r}", exc))
            found = self.find(message.uuid, message.part)
            if found is not None:
                turn, part = found
                turn.speech.tell()
                turn.speech.silence(part)
                part.truncated = True
                if turn.speculative:  # the line does not know it yet, and must find its end
                    turn.held.append(Message(uuid=turn.uuid, part=part.number, data=b"", done=True))
                else:
                    self._voip.abort(turn.uuid, part=part.number)

    def _play(self, turn: Turn, part: Part) -> bool:
        """Hand over what is recorded, as far as the line may have it; whether that was all there is so far."""
        assert part.recording is not None
        size = self._voip.audio_format.size(_RECORDING_MS)
        while part.recording:
            if not self._gate():
                return False
            data = bytes(part.recording[:size])
            del part.recording[:size]
            self.on_audio(Message(uuid=turn.uuid, part=part.number, data=data, at_ms=part.audio_ms))
        if part.sealed and not part.audio_done:
            self.on_audio(Message(uuid=turn.uuid, part=part.number, data=b"", at_ms=part.audio_ms, done=True))
        return True

    def _gate(self) -> bool:
        """Whether the voice may have another sentence: not too much waits to be heard already."""
        ahead_ms, rate = 0.0, self._rate.chars_per_s
        for turn in self.turns.values():
            for part in turn.speech.parts:
                if part.posted_chars or part.audio_ms:
                    ahead_ms += part.ahead_ms(rate)
        return ahead_ms < self._settings.text_ahead_ms

    def on_audio(self, message: Message[bytes]) -> None:
        """A voice has made audio of a part."""
        found = self.find(message.uuid, message.part)
        if found is None or found[1].final:
            return  # cut meanwhile: cancel is local first
        turn, part = found
        turn.speech.tell()  # a voice may answer before it has returned
        if "first_audio" not in turn.times and message.data and not part.options.filler:
            turn.stamp("first_audio", self._clock.now())
        if part.converter is not None:
            data = part.converter.process(message.data)
            if message.done:
                data += part.converter.flush()
            message = Message(uuid=message.uuid, part=message.part, data=data, at_ms=part.audio_ms, done=message.done)
        part.audio_ms += self._voip.audio_format.ms(len(message.data))
        if message.done:
            part.audio_done = True
        elif part.stop_at_ms is not None and part.audio_ms >= part.stop_at_ms:
            self.voices.abort((turn.uuid, part.number))  # the rest will not be heard
        if turn.speculative:
            turn.held.append(message)
            return
        self._scribe.spoke(turn, part)
        self._to_line(message)

    def on_alignment(self, alignment: Alignment) -> None:
        """A voice tells when it speaks its words."""
        found = self.find(alignment.uuid, alignment.part)
        if found is not None:
            turn, part = found
            part.heard_map.align(alignment.words)
            self._scribe.aligned(turn, part, alignment.words)

    def _to_line(self, message: Message[bytes]) -> None:
        self._spoke(message)
        if self._thinking is not None and message.data:
            self._thinking.spoken()
        self._voip.post(message)
