"""A call as a script holds it: say this, listen, ask, hang up.

::

    async def run(self, call: ScriptCall) -> None:
        await call.say("Hello, this is Luigi's.")
        if await call.ask("Will you come at seven?", answers.YesNo()):
            await call.say("See you then.")

Turn taking, interruptions and history are those of every agent; what the caller says comes to
:meth:`ScriptCall.listen` instead of ``inference``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dialog.agent.digits import Digits
from dialog.agent.scripts.asking import Asking, Phrases
from dialog.agent.scripts.recording import RecordedMessage, record
from dialog.agent.scripts.speaking import SayResult, Speaking
from dialog.agent.speech import PartOptions, Speech
from dialog.agent.turns.settings import BargeIn
from dialog.answers.answer import Answer
from dialog.answers.forms import Form
from dialog.answers.plain import YesNo
from dialog.audio.wav import StrPath
from dialog.errors import CallHungUp, DialogError, NotUnderstood, Timeout
from dialog.message import CallEnd, CallMetadata, Failure, Message, StreamStarted, TransferStatus
from dialog.participant import Participant
from dialog.voip.voip import VoIP

if TYPE_CHECKING:
    from dialog.agent.conversation import Conversation

__all__ = ["SayResult", "ScriptCall"]

T = TypeVar("T")

_PHRASES = Phrases()
_LINE_TELLS_S = 0.1
"""The end of a call is told within this to everybody."""
_MAX_HEARD = 64
"""Utterances that nobody has listened to; beyond it the oldest go."""


class ScriptCall(Speaking):
    """The call of a script; every method raises :class:`CallHungUp` once the call has ended.

    Its coroutines are awaited on the event loop of the call; what is no coroutine may be called from any thread.
    :class:`~dialog.agent.scripts.blocking.BlockingCall` is the same for threads.
    """

    def __init__(self, agent: Participant, conversation: Conversation, *, in_charge: bool = False) -> None:
        """``in_charge``: the script decides what comes of a provider that has given up; else the call ends."""
        super().__init__(agent, conversation)
        self._in_charge = in_charge
        self._heard: deque[Message[str]] = deque(maxlen=_MAX_HEARD)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._voip.metadata.call_id} {self._voip.state}>"

    @property
    def voip(self) -> VoIP:
        """The call itself: events, recording at the carrier, text messages."""
        return self._voip

    @property
    def metadata(self) -> CallMetadata:
        """Who calls whom."""
        return self._voip.metadata

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the call."""
        return self._loop

    @property
    def end(self) -> CallEnd | None:
        """How the call ended; ``None`` while it goes on."""
        return self._voip.end

    @property
    def is_disconnected(self) -> bool:
        """The call has ended, or the script does not have it any more."""
        return self._waiting.over

    # -- listening --------------------------------------------------------------------------------

    async def listen(self, timeout_s: float = 10.0, *, fresh: bool = False) -> str:
        """Wait for what the caller says next, or has said since it was last listened to.

        Args:
            timeout_s: How long they may be silent, counted from the end of what is being said.
            fresh: What they have said until now does not count.

        Raises:
            CallHungUp: The call has ended.
            RecognitionFailed: Who listens has given up.
            Timeout: They said nothing.
        """
        self._end_audio()
        if fresh:
            self._forget_caller()
        return await self._hear(timeout_s)

    async def gather(
        self,
        max_digits: int | None = None,
        *,
        prompt: str = "",
        terminator: str = "#",
        timeout_s: float = 5.0,
        between_s: float = 2.0,
    ) -> Digits:
        """Wait for keys; those that were pressed since the last question count.

        Args:
            max_digits: So many are enough; ``None``: there is no limit.
            prompt: Said first; a key silences it.
            terminator: A key that ends the entry and is no part of it; empty: there is none.
            timeout_s: How long the first key is waited for, counted from the end of what is being said.
            between_s: How long each further key is waited for.

        Raises:
            CallHungUp: The call has ended.
            SpeechFailed: The prompt could not be said.
            Timeout: No key was pressed.
            ConfigurationError: A value is out of its range.
            StateError: Keys are being collected already.
        """
        self._end_audio()
        self._waiting.check()
        await self._line_up()
        speech = self._begin(prompt, PartOptions()) if prompt else None
        digits = await self._waiting.run(
            self._conversation.keypad.collect(
                max_digits=max_digits, terminator=terminator, timeout_s=timeout_s, between_s=between_s
            ),
            speaking=speech is not None and not speech.done(),
        )
        if digits.why == "hung_up":
            await self._settle_end()
        if speech is not None and speech.heard is not None and speech.heard.why == "failed":
            raise self._waiting.speech_failed()
        if not digits.digits:
            raise Timeout(f"no key was pressed within {timeout_s:g} s")
        return digits

    async def ask(
        self,
        prompt: str,
        answer: Answer[T],
        *,
        reprompts: Sequence[str] = (),
        attempts: int = 3,
        timeout_s: float = 8.0,
        confirm: bool = False,
        check: Callable[[T], str | None] | None = None,
        allow_interrupt: bool = True,
        barge_in: BargeIn | None = None,
        phrases: Phrases = _PHRASES,
    ) -> T:
        """Ask, until there is an answer that will do; it may be said, or typed in where the kind of answer has keys.

        What the caller said before the question is no answer to it; over the question it is.

        Args:
            prompt: The question.
            answer: What kind of answer is wanted: see :mod:`dialog.answers`.
            reprompts: Said instead when it is asked again, one after the other; else why, and what is wanted.
            attempts: How often it is asked.
            timeout_s: How long the caller may be silent.
            confirm: Read the answer back, and ask again if they say that it is not right.
            check: Says why an answer will not do; ``None``: it does.
            allow_interrupt: The caller may answer before the question was heard.
            barge_in: What the caller's voice does to the question, if not what the settings say.
            phrases: What is said besides.

        Raises:
            CallHungUp: The call has ended.
            SpeechFailed: The question could not be said.
            RecognitionFailed: Who listens has given up, and there are no keys for such an answer.
            Timeout: There was no answer, the last time.
            NotUnderstood: There was one, and it would not do.
            ConfigurationError: A value is out of its range.
        """
        question = Asking(
            prompt=prompt,
            answer=answer,
            reprompts=tuple(reprompts) if not isinstance(reprompts, str) else reprompts,
            attempts=attempts,
            timeout_s=timeout_s,
            confirm=confirm,
            check=check,
            allow_interrupt=allow_interrupt,
            barge_in=barge_in,
            phrases=phrases,
        )
        return await question.ask(self)

    async def collect(self, form: Form, *, attempts: int = 3, timeout_s: float = 8.0) -> dict[str, Any]:
        """Ask the questions of a form; with a summary, until the caller agrees to it, ``attempts`` times at most.

        Returns:
            The answers, by the names of the questions.

        Raises:
            NotUnderstood: They did not agree; and whatever :meth:`ask` raises.
        """
        for _ in range(attempts):
            values: dict[str, Any] = {}
            for each in form.questions:
                values[each.name] = await self.ask(
                    each.prompt, each.answer, attempts=attempts, timeout_s=timeout_s, confirm=each.confirm
                )
            if not form.summary:
                return values
            question = _PHRASES.confirm.replace("{answer}", form.readback(values))
            if await self.ask(question, YesNo(), timeout_s=timeout_s):
                return values
            self.post_text(_PHRASES.again)
        raise NotUnderstood(f"a form was filled in {attempts} times, and was not right", "no")

    def clear_inbound(self) -> None:
        """Forget what the caller has said and pressed until now: it is no answer to what comes."""
        self._on_loop(self._forget_caller)

    async def record(
        self, *, max_s: float = 60.0, silence_s: float = 3.0, terminator: str = "#", path: StrPath | None = None
    ) -> RecordedMessage:
        """Record what the caller says, as an answering machine does; to be announced before.

        It ends after ``silence_s`` of silence, with the key ``terminator``, or after ``max_s``. What was said is no
        utterance: :meth:`listen` does not return it. The whole call is recorded by ``call.voip.start_recording()``.

        Args:
            max_s: The longest message, in seconds.
            silence_s: So much silence ends it, and so much before it ends the wait for it.
            terminator: A key that ends it.
            path: Where to write it, as a WAV file of 16-bit PCM.

        Raises:
            CallHungUp: The call ended: many end a message so. ``recorded`` has it, and it was written.
            OSError: The file cannot be written.
        """
        self._end_audio()
        self._waiting.check()
        await self._waiting.until(lambda: not self._engine.sounding)
        try:
            message = await record(self._voip, self._waiting, max_s=max_s, silence_s=silence_s, terminator=terminator)
        except CallHungUp as exc:
            if path is not None and exc.recorded is not None:
                await asyncio.to_thread(exc.recorded.write, path)
            raise
        finally:
            self._forget_caller()
        if path is not None:
            await asyncio.to_thread(message.write, path)
        return message

    # -- the call ---------------------------------------------------------------------------------

    async def wait_connected(self) -> None:
        """Wait until the other side is there.

        Raises:
            CallHungUp: The call has ended.
            CallNotAnswered: It has, and nobody had answered it.
        """
        await self._waiting.until(lambda: self._voip.state not in ("offered", "ended"))
        self._waiting.was_live = True

    async def wait_over(self, timeout_s: float | None = None) -> bool:
        """Wait until the call has ended, or the script has lost it; ``False``: it goes on after ``timeout_s``."""
        until = None if timeout_s is None else self._clock.now() + timeout_s
        try:
            return await self._waiting.until(lambda: self._waiting.over, lambda: until)
        except DialogError:  # it ended meanwhile
            return True

    async def hangup(self, *, reason: str = "agent_hangup") -> None:
        """End the call now; one that has ended is left in peace.

        Raises:
            CarrierError: The carrier could not be told (the media is closed all the same).
        """
        self._ours = True
        await self._voip.hangup(reason=reason)

    def request_disconnect(self, reason: str = "agent_hangup") -> None:
        """Like :meth:`hangup`, without waiting for it."""
        self._on_loop(lambda: self._agent.spawn(self._disconnect(reason), "hanging up"))

    async def transfer(self, tel: str, *, back_within_s: float | None = None) -> bool:
        """Connect the caller to ``tel``, and wait for what comes of it.

        Args:
            tel: A number in E.164.
            back_within_s: The caller comes back if nobody answers by then; ``None``: the call ends.

        Returns:
            ``True``: they are connected, and the call has ended for this script. ``False``: they are back.

        Raises:
            CallHungUp: The caller hung up meanwhile.
            CarrierError: The carrier refused.
            NotSupportedError: This carrier cannot transfer.
        """
        self._waiting.check()
        back: list[StreamStarted] = []
        told: list[TransferStatus] = []

        def started(stream: StreamStarted) -> None:
            if stream.resumed == "transfer_failed":
                back.append(stream)

        self._voip.on(VoIP.STREAMING_STARTED, started)
        self._voip.on(VoIP.TRANSFER, told.append)
        self._ours = True
        try:
            await self._voip.transfer_to(tel, back_within_s=back_within_s)
            try:
                await self._waiting.until(lambda: bool(back))
            except CallHungUp as exc:
                if exc.reason == "transferred" or any(status.state == "answered" for status in told):
                    return True
                raise
        finally:
            self._ours = self._voip.end is not None
            self._voip.off(VoIP.STREAMING_STARTED, started)
            self._voip.off(VoIP.TRANSFER, told.append)
        return False

    # -- the conversation's side ------------------------------------------------------------------

    def hear(self, message: Message[str]) -> None:
        """The caller has said something."""
        self._heard.append(message)
        self._waiting.wake()

    def lost(self, failure: Failure) -> bool:
        """A provider has given up."""
        self._waiting.lost(failure)
        return self._in_charge

    def let_go(self, error: DialogError | None = None) -> None:
        """The script does not have the call any more; every wait ends with ``error``."""
        self._waiting.close(error or self._waiting.not_active())

    # -- inside -----------------------------------------------------------------------------------------

    async def _settle_end(self) -> None:
        """The end of the call was told to others already.

        Raises:
            CallHungUp: It has ended.
        """
        until = self._clock.now() + _LINE_TELLS_S
        await self._waiting.until(lambda: False, lambda: until)
        raise self._waiting.not_active()

    async def _hear(self, timeout_s: float, speech: Speech | None = None) -> str:
        """What the caller says next; the silence counts from the end of ``speech``, and of all that sounds."""
        since: float | None = None

        def deadline() -> float | None:
            nonlocal since
            engine = self._engine
            busy = engine.sounding or engine.caller_speaking or engine.expecting_words
            if busy or (speech is not None and not speech.done()):
                since = None
                return None
            since = self._clock.now() if since is None else since
            return since + timeout_s

        if not await self._waiting.until(lambda: bool(self._heard), deadline, listening=True):
            raise Timeout(f"the caller said nothing for {timeout_s:g} s")
        return self._heard.popleft().data

    def _forget_caller(self) -> None:
        self._heard.clear()
        self._conversation.keypad.forget()
        self._engine.discard()

    async def _disconnect(self, reason: str) -> None:
        try:
            await self.hangup(reason=reason)
        except DialogError as exc:
            self._conversation.failed(exc)
