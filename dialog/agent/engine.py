"""What a conversation needs of the engine that runs it, whichever it is.

An engine is given the participants of a call and decides, by turn taking, who speaks.
:class:`~dialog.agent.cascade.Cascade` hears with an STT, thinks with ``inference`` and speaks with a TTS;
another may leave all three to one model.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol
from uuid import UUID

from dialog.agent.draft import Draft
from dialog.agent.recorded import Recorded
from dialog.agent.speech import PartOptions, Speech
from dialog.agent.turn import Turn
from dialog.message import Message, Utterance
from dialog.stt.stt import STT
from dialog.tts.tts import TTS

__all__ = ["Engine"]


class Engine(Protocol):
    """Runs the turns of one call. All methods are called on the call's event loop."""

    # -- life

    def start(self) -> None:
        """Open the providers and listen to them."""
        ...

    def end_turns(self) -> None:
        """The call is over: no turn goes on or begins. Words that still come are only noted."""
        ...

    def stop(self) -> None:
        """Give up all turns and let go of everything; harmless when repeated."""
        ...

    def set_stt(self, stt: STT) -> None:
        """Let ``stt`` listen, from the next pause of the caller on."""
        ...

    def set_tts(self, tts: TTS) -> None:
        """Let ``tts`` speak every part that begins from now on."""
        ...

    # -- going on with a call that another process had

    def catch_up(self, at_ms: float, spent: Iterable[tuple[UUID, int]]) -> None:
        """The call's audio clock stands at ``at_ms``; of these turns so many parts were spoken already."""
        ...

    def resume(self, live_s: float | None, waiting: tuple[Utterance, ...], *, warned: bool) -> None:
        """Go on with a call that has been live for so long: answer what waits for it.

        ``warned``: the caller knows that the call comes near its longest duration.
        """
        ...

    def finished(self, uuid: UUID, draft: Draft) -> Turn:
        """A turn of another process, of which only a tool is still at work."""
        ...

    # -- the caller

    @property
    def caller_speaking(self) -> bool:
        """The caller's voice is on."""
        ...

    @property
    def expecting_words(self) -> bool:
        """The caller has begun an utterance that is not final yet."""
        ...

    @property
    def quiet(self) -> bool:
        """No turn speaks, prepares to or waits to, and no words of the caller are outstanding."""
        ...

    def post(self, message: Message[str]) -> None:
        """An utterance: from the STT, typed, or made by a test. Empty ones are ignored."""
        ...

    def on_interim(self, utterance: Utterance) -> None:
        """The caller is saying something."""
        ...

    def on_utterance(self, utterance: Utterance, *, complete: bool = False) -> None:
        """The caller has said something; ``complete``: there is nothing to add, for it was typed."""
        ...

    def use_voice(self, turn: Turn, voice: str) -> None:
        """Let ``voice`` say what ``turn`` says from now on."""
        ...

    def on_digit(self, key: str) -> None:
        """The caller pressed a key."""
        ...

    def discard(self) -> None:
        """Forget what the caller has said until now, as far as it is not answered yet."""
        ...

    # -- the agent

    def dispatch_message(
        self, text: str, options: PartOptions, *, greeting: bool = False, goes_on: UUID | None = None
    ) -> Speech:
        """Say ``text`` as a part of its own, in the running turn or in a new one.

        ``goes_on``: it is what was not heard of that turn, whose process is gone, or whose line was.
        """
        ...

    def close(self, turn: Turn) -> None:
        """A turn that the line broke off is over, or goes on in another one: history has what was heard of it."""
        ...

    def dispatch_stream(self, stream: AsyncIterator[str], options: PartOptions) -> Speech:
        """Say what ``stream`` yields as a part of its own."""
        ...

    def dispatch_audio(self, options: PartOptions, text: str = "") -> Recorded | None:
        """Play audio in a turn of its own, in which ``text`` is said; ``None``: the call is over."""
        ...

    def stop_speech(self, speech: Speech) -> None:
        """Say no more of ``speech``, also if it may not be interrupted; what its turn says besides goes on."""
        ...

    def ask(self, reply: Callable[[], AsyncIterator[str] | None]) -> Turn | None:
        """Begin a turn of the agent's own that thinks of its words when it has the floor: then ``reply`` is asked."""
        ...

    def fill(self, turn: Turn, text: str) -> bool:
        """Say a filler in ``turn``, unless something of it sounds or waits to; tell whether it does."""
        ...

    def unfill(self, turn: Turn) -> None:
        """Take back a filler that has not begun to sound: the answer is there."""
        ...

    @property
    def speaking(self) -> bool:
        """The voice has something to say to the caller, or is about to."""
        ...

    @property
    def sounding(self) -> bool:
        """Something of a turn that has the floor is not heard to its end yet."""
        ...

    def hush_all(self) -> None:
        """Say no more of what sounds, as far as it may be interrupted; turns go on."""
        ...

    def abort(self) -> None:
        """Give up every turn that may be interrupted."""
        ...

    # -- tools, and the end of the call

    def tool_started(self, call_id: str) -> None:
        """A tool works: the caller is not idle but waits."""
        ...

    def tool_ended(self, call_id: str) -> None:
        """A tool has ended, however."""
        ...

    def patience(self, turn: Turn, seconds: float) -> AbstractContextManager[None]:
        """Let ``turn`` say nothing for so much longer than usual, inside the block."""
        ...

    def end_after(self, reason: str, turn: Turn | None) -> None:
        """End the call once what ``turn`` says was heard; without one, or after its end, once all was."""
        ...

    def stay(self) -> None:
        """The call was to end, and does not."""
        ...
