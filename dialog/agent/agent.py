"""The agent: what the framework's user writes.

A subclass brings an ``inference``, an async generator of text::

    class Echo(Agent):
        async def inference(self, message: Message[str]) -> AsyncIterator[str]:
            yield f"You said: {message.data}"

or none, when it is given an ``llm``, and its tools. The rest (streaming into the voice, turn taking,
interruption, a history of what was heard, cleaning up) comes from here.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from dialog.agent.briefing import brief
from dialog.agent.claim import is_elsewhere
from dialog.agent.clienttools import ClientTools
from dialog.agent.clips import make_clips
from dialog.agent.conversation import Conversation
from dialog.agent.digits import Digits
from dialog.agent.ears import LocalHearing
from dialog.agent.endings import Transfer
from dialog.agent.history import History
from dialog.agent.mcptools import MCPTools
from dialog.agent.mode import check_llm, check_mode, check_model, made
from dialog.agent.record import CallRecord, RecordingSink
from dialog.agent.scripts.call import ScriptCall
from dialog.agent.settings import AgentSettings
from dialog.agent.speech import PartOptions, Speech, speech_of_its_own
from dialog.agent.threads import Home, from_any_thread
from dialog.agent.tools import Tool, Toolbox
from dialog.agent.turn import current_turn
from dialog.agent.turnjudge import AudioTurnModel
from dialog.agent.turns.settings import BargeIn, Endpointing
from dialog.audio.filter import AudioFilterFactory
from dialog.calls.checkpoint import Checkpoint
from dialog.calls.events import CallEvent
from dialog.calls.meter import CallMeter
from dialog.calls.metrics import SessionMetrics
from dialog.calls.report import SessionReport
from dialog.errors import ConfigurationError, DialogError, StateError, UserCodeError
from dialog.llm.llm import LLM
from dialog.message import AnsweredBy, Message
from dialog.participant import Event, Participant
from dialog.s2s.s2s import S2S
from dialog.stt.stt import STT
from dialog.tts.text import TextTTS
from dialog.tts.tts import TTS
from dialog.vad.local import LocalVAD
from dialog.vad.vad import VAD
from dialog.voip.text import TextVoIP
from dialog.voip.voip import VoIP

if TYPE_CHECKING:
    from dialog.mcp.server import MCPServer

__all__ = ["Agent"]

logger = logging.getLogger(__name__)


class Agent(Participant):
    """Holds the conversation of one call. It owns the participants it is given and disposes of them.

    Once it is active its plain methods may be called from any thread, as in a plain ``def`` tool: the loop does what
    they ask for, and the thread waits until it is done.

    Args:
        voip: The call.
        stt: Hears the caller; an object, or a factory, which a text call does not use. Without one,
            utterances come by :meth:`post`.
        tts: Speaks; an object or a factory, likewise.
        llm: The model behind the default :meth:`inference`; closed with the agent.
        s2s: A model that hears and speaks, in the place of ``stt``, ``llm`` and ``tts``; an object or a factory. A
            ``tts`` beside it says what is to be said word for word, if the model cannot. In a text call it is
            not used.
        system: Instructions for the model.
        greeting: Said first; it is made ready before the caller is connected.
        settings: How it behaves.
        recording_sink: Takes the carrier's recording, when ``settings.record`` is on.
        vad: The local VAD, or what makes it, where ``settings.vad`` needs one; :class:`LocalVAD` unless given.
        audio_filter: Makes what cleans the caller's audio (noise suppression) before anybody hears it.
        turn_model: Hears whether a caller who has fallen silent has finished; without it the words decide.
        mcp_servers: Servers whose tools the model may call beside those of the class. They stay yours: calls
            share them.
        tools: Further tools, which are no methods of the class: see :func:`~dialog.agent.schematool.schema_tool`.

    Raises:
        ConfigurationError: There is no voice, or a provider is none; what is given cannot be had together; or two
            tools have one name.
    """

    EVENT: ClassVar[Event[CallEvent]] = Event("event")
    """Everything that happens in the call, typed and numbered."""
    REPORT: ClassVar[Event[SessionReport]] = Event("report")
    """The session report, once, when the call has ended."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a hook whose work nobody would wait for.

        Raises:
            ConfigurationError: It is an ``async def``.
        """
        super().__init_subclass__(**options)
        for name in ("on_stt_ready", "state", "restore"):
            if inspect.iscoroutinefunction(getattr(cls, name)):
                raise ConfigurationError(
                    f"{cls.__qualname__}.{name} must be a plain def: it is not waited for; start what takes time "
                    "with self.spawn(...)"
                )

    def __init__(
        self,
        *,
        voip: VoIP,
        tts: TTS | Callable[[], TTS] | None = None,
        stt: STT | Callable[[], STT] | None = None,
        llm: LLM | None = None,
        s2s: S2S | Callable[[], S2S] | None = None,
        system: str = "",
        greeting: str = "",
        settings: AgentSettings | None = None,
        recording_sink: RecordingSink | None = None,
        vad: VAD | Callable[[], VAD] | None = None,
        audio_filter: AudioFilterFactory | None = None,
        turn_model: AudioTurnModel | None = None,
        mcp_servers: Sequence[MCPServer] = (),
        tools: Sequence[Tool] = (),
    ) -> None:
        # Refused before the call's scope knows of it: what is half made could not be disposed of.
        check_llm(type(self).__name__, llm)
        self._toolbox = Toolbox(self, tools, hand_over=self._hand_over)
        super().__init__()
        self.home: Home | None = None
        """The loop of its call, from :meth:`activate` on."""
        self._conversation: Conversation | None = None
        self._handed_off = False
        """Another agent has the call, and with it the participants."""
        self._stt: STT | None = None
        self._tts: TTS | None = None
        self._s2s: S2S | None = None
        self._vad: VAD | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._mcp = MCPTools(self._toolbox, mcp_servers, failed=self._failed)
        self.voip = voip
        self.settings: AgentSettings = settings or AgentSettings()
        self.greeting = greeting
        self.history: History = History()
        """The conversation in neutral items: instructions, what was said and heard, tools."""
        self._system = system
        if system:
            self.history.system(system)
        self.llm = llm
        # In a text call nothing sounds: factories of speech providers, and their keys, are not needed.
        own = type(self).inference is not Agent.inference
        check_mode(self.name, voip, stt=stt, tts=tts, s2s=s2s)
        self._realtime = s2s is not None and not own
        """Without the ``s2s`` only an ``llm`` answers."""
        in_text = isinstance(voip, TextVoIP)
        self._stt = None if callable(stt) and in_text else made(self.name, "stt", stt, STT)
        self._tts = (
            TextTTS(voip.on_text) if callable(tts) and isinstance(voip, TextVoIP) else made(self.name, "tts", tts, TTS)
        )
        self._s2s = None if callable(s2s) and in_text else made(self.name, "s2s", s2s, S2S)
        if self._s2s is not None and voip.medium == "audio":
            check_model(self.name, self._s2s, self.settings, greeting=greeting, own_inference=own, tts=self._tts)
        self._vad = vad if isinstance(vad, VAD) else None
        self._make_vad = LocalVAD if vad is None or isinstance(vad, VAD) else vad
        self._local = LocalHearing(self._local_vad, audio_filter, turn_model)
        self._client_tools = ClientTools(self._toolbox, voip, self._client_tool_taken)
        self._events: list[CallEvent] = []
        self._meter = CallMeter()
        self._record: CallRecord | None = None
        if (self.settings.record or self.settings.transcribe) and voip.medium == "audio":
            self._record = CallRecord(
                self,
                voip,
                record=self.settings.record,
                transcribe=self.settings.transcribe,
                failed=self._failed,
                sink=recording_sink,
            )

    # -- what a subclass writes -------------------------------------------------------------------

    # `Any` is the coroutine: with its type nobody could say `async for text in super().inference(message)`.
    def inference(self, message: Message[str]) -> AsyncIterator[str] | Any:
        """Answer an utterance: yield text, or be a coroutine that dispatches speech by itself.

        It is cancelled when the caller interrupts; use ``try``/``finally`` to clean up, and put no
        ``asyncio.timeout`` or ``TaskGroup`` around a ``yield``. ``message.uuid`` is the turn. The
        default asks the ``llm``, with the tools of this class.
        """
        del message  # the running turn's draft ends with it
        return self._running.respond()

    def state(self) -> object:
        """What of your own is to survive the process, where calls do: numbers, texts, lists, dicts, structs of msgspec.

        Asked after each turn and each tool, and kept when it has changed; see :meth:`restore`. Be quick: it
        is called on the event loop.
        """
        return None

    def restore(self, state: Any) -> None:
        """The process that had the call is gone: take back what :meth:`state` returned there last.

        Called by :meth:`activate`, before anything else. Structs come back as dicts, tuples as lists;
        :func:`msgspec.convert` makes them what they were.
        """

    # -- the participants' side -------------------------------------------------------------------

    @property
    def participant(self) -> Participant:
        """This agent, as the owner of the conversation's tasks."""
        return self

    @property
    def stt(self) -> STT | None:
        """Who hears the caller."""
        return self._conversation.stt if self._conversation else self._stt

    @property
    def tts(self) -> TTS | None:
        """Who speaks; ``None``: the ``s2s``."""
        return self._conversation.tts if self._conversation else self._tts

    @property
    def s2s(self) -> S2S | None:
        """The model that hears and speaks, if there is one."""
        return self._s2s

    @property
    def events(self) -> tuple[CallEvent, ...]:
        """The events of the call so far, also after its end."""
        if self._conversation is not None:
            self._conversation.tell_noticed()
        return tuple(self._events)

    @property
    def metrics(self) -> SessionMetrics:
        """The numbers of the call so far, also after its end."""
        if self._conversation is not None:
            self._conversation.tell_noticed()
        return self._meter.metrics

    @property
    def record(self) -> CallRecord | None:
        """Recording and transcription at the carrier, if the settings ask for them."""
        return self._record

    @property
    def scripted(self) -> bool:
        """Whether code holds the whole call, instead of ``inference``."""
        return False

    def activate(self) -> None:
        """Take the call: open the providers, listen, greet. A call that is live or has ended is taken as it is.

        Raises:
            StateError: The agent is active already or was disposed of, or a provider was, or works for another call.
            ConfigurationError: A text call, and only a model that hears would answer.
            UnsupportedFormat: A provider shares no audio format with the call.
            MissingExtra: The package that converts between their formats is not installed.
        """
        if self._conversation is not None:
            raise StateError(f"{self.name}: activate() was called before, and the call is held already")
        if self._disposed:
            raise StateError(f"{self.name}: activate() after the end of its call: make an agent for each call")
        stt, tts, s2s = self._stt, self._tts, self._s2s
        if isinstance(self.voip, TextVoIP):
            # What is typed comes by post(), what is said is shown: the speech providers stay closed.
            stt, tts, s2s = None, TextTTS(self.voip.on_text), None
            if self._realtime and self.llm is None:
                raise ConfigurationError(f"{self.name}: an s2s hears nothing in a text call, give it an llm for those")
        checkpoint = self._take_checkpoint()
        self.home = Home()
        self._conversation = Conversation(
            self,
            voip=self.voip,
            stt=stt,
            tts=tts,
            llm=self.llm,
            s2s=s2s,
            toolbox=self._toolbox,
            history=self.history,
            settings=self.settings,
            record=self._record,
            local=self._local,
            checkpoint=checkpoint,
        )
        self._events, self._meter = self._conversation.events, self._conversation.meter
        try:
            if self.voip.state != "ended":
                self._conversation.reach.when_reached(self._mcp.open)
            self._conversation.start()
        except BaseException:
            self.deactivate()
            raise
        self._mcp.tell()
        self._client_tools.tell()
        if checkpoint is not None:
            self._conversation.go_on(checkpoint)
        greeted = checkpoint is not None and checkpoint.greeted
        if self.greeting and not greeted and self.voip.state != "ended":
            options = PartOptions(allow_interrupt=self.settings.greeting_interruptible)
            self._conversation.engine.dispatch_message(self.greeting, options, greeting=True)
        elif self.settings.model_opens and checkpoint is None and self.voip.state != "ended":
            self._conversation.reach.when_reached(self._conversation.ask)
        if self.voip.on_clips is not None:
            self._conversation.reach.when_reached(self._make_clips)
        self._taken()

    @from_any_thread
    def deactivate(self) -> None:
        """Let go of the call without disposing of anything; :meth:`activate` takes it again."""
        if self._conversation is not None:
            if self.voip.medium == "audio":
                self._stt, self._tts = self._conversation.stt, self._conversation.tts
            self._conversation.stop()
            self._conversation = None
            self._let_go()

    @from_any_thread
    def post(self, message: Message[str]) -> None:
        """An utterance of the caller; empty ones are ignored.

        Raises:
            StateError: The agent is not active.
        """
        self._running.engine.post(message)

    @from_any_thread
    def dispatch_message(
        self,
        text: str,
        *,
        allow_interrupt: bool = True,
        barge_in: BargeIn | None = None,
        endpointing: Endpointing | None = None,
        mute_caller: bool = False,
        voice: str = "",
    ) -> Speech:
        """Say ``text``: in the turn that the calling code works for, else as soon as the floor is free.

        ``await`` the result to learn what was heard. With ``allow_interrupt=False`` it is heard out,
        whatever the caller does and whoever calls :meth:`abort`.

        Args:
            text: What to say.
            allow_interrupt: The caller may cut it short.
            barge_in: What the caller's speech does to it, if not what the settings say.
            endpointing: How the end of the answer to it is found, if not as the settings say: give
                somebody who reads out a number more time.
            mute_caller: Do not listen to the caller while it sounds.
            voice: Who says it, as the TTS names its voices (an id, a name, a model); empty: who speaks the turn.

        Raises:
            StateError: The agent is not active.
            ConfigurationError: ``voice`` is given, and the TTS speaks with one voice only.
        """
        options = PartOptions(
            allow_interrupt=allow_interrupt,
            barge_in=barge_in,
            endpointing=endpointing,
            mute_caller=mute_caller,
            voice=voice,
        )
        return self._running.engine.dispatch_message(text, options)

    @from_any_thread
    def dispatch_stream(self, stream: AsyncIterator[str], *, allow_interrupt: bool = True, voice: str = "") -> Speech:
        """Say what ``stream`` yields, as it yields it; otherwise like :meth:`dispatch_message`.

        Raises:
            StateError: The agent is not active.
            ConfigurationError: ``voice`` is given, and the TTS speaks with one voice only.
        """
        return self._running.engine.dispatch_stream(stream, PartOptions(allow_interrupt=allow_interrupt, voice=voice))

    @from_any_thread
    def use_voice(self, voice: str) -> None:
        """Say the rest of the running turn with ``voice``: what is yielded, and dispatched without a voice of its own.

        ::

            self.use_voice("narrator")
            yield "Once upon a time a wolf said: "
            self.use_voice("wolf")
            yield "Good evening."

        Args:
            voice: As the TTS names it; empty: its own again, with which every turn begins.

        Raises:
            StateError: The agent is not active, or no turn of it is running here.
            ConfigurationError: The TTS speaks with one voice only.
        """
        self._running.use_voice(voice)

    @from_any_thread
    def hang_up(self, reason: str = "agent_hangup") -> None:
        """Hang up once the caller has heard what the running turn says; ``reason`` is told with the call's end.

        Outside a turn: once all that waits to be said was heard. A caller who speaks over the goodbye is
        answered, and the call goes on.

        Raises:
            StateError: The agent is not active.
        """
        self._running.end_after(reason)

    @from_any_thread
    def transfer_to(self, tel: str, *, back_within_s: float | None = None) -> None:
        """Like :meth:`hang_up`, but connect the caller to ``tel`` then.

        With ``back_within_s`` they come back if nobody answers by then.

        Raises:
            StateError: The agent is not active.
        """
        self._running.end_after("transferred", Transfer(tel, back_within_s))

    @from_any_thread
    def warm_transfer_to(self, tel: str, *, summary: str, ring_s: float = 25.0) -> None:
        """Like :meth:`transfer_to`, but somebody is asked first, while the caller waits with music.

        They hear ``summary`` by :meth:`brief`. If they do not answer, or do not want the call, the caller comes back,
        and is told what the settings say for it.

        Args:
            tel: Who is asked, in E.164.
            summary: What they should know.
            ring_s: How long it may ring there, in seconds.

        Raises:
            StateError: The agent is not active.
        """
        self._running.end_after("transferred", Transfer(tel, ring_s, summary))

    @from_any_thread
    def heard_last(self) -> str:
        """What the other side has said last: in a turn, what it answers; empty before anything was said.

        Raises:
            StateError: The agent is not active.
        """
        return self._running.heard_last()

    @from_any_thread
    def send_digits(self, keys: str) -> None:
        """Press keys (``0-9 * # A-D``, ``w`` waits half a second) towards the other side, after the running turn.

        The carrier takes the stream away for that moment; it comes back with ``resumed="digits_sent"``.

        Raises:
            StateError: The agent is not active.
        """
        self._running.press_after(keys)

    async def brief(self, voip: VoIP, summary: str) -> bool:
        """Tell ``summary`` to the one who answers the call ``voip``; whether they take the caller.

        The default says ``settings.briefing`` with this agent's voice, up to three times, and takes the key 1 for
        yes. Anything else is no. Override it to let an agent of its own talk to them.

        Raises:
            NotSupportedError: This agent has no TTS.
        """
        return await brief(voip, self.tts, self.settings.briefing.replace("{summary}", summary))

    async def collect_digits(
        self, *, max_digits: int | None = None, terminator: str = "#", timeout_s: float = 5.0, between_s: float = 2.0
    ) -> Digits:
        """Wait for keys that the caller presses: in ``inference``, in a tool, or anywhere else.

        A key silences what is being said, and the turn goes on. Keys that were pressed just before count.
        What came is always returned, with the reason why no more was waited for; nothing is raised for
        silence. While keys are collected the model is told of none; what it is told is up to you.

        ::

            self.dispatch_message("Please type in your customer number.")
            number = await self.collect_digits(max_digits=6)

        Args:
            max_digits: So many are enough; ``None``: there is no limit.
            terminator: A key that ends the entry and is no part of it; empty: there is none.
            timeout_s: How long the first key is waited for, once all that was said has been heard. In a
                tool, the tool's own ``timeout_s`` has to be longer.
            between_s: How long each further key is waited for.

        Raises:
            ConfigurationError: A value is out of its range.
            StateError: The agent is not active, or digits are being collected already.
        """
        return await self._running.collect_digits(
            max_digits=max_digits, terminator=terminator, timeout_s=timeout_s, between_s=between_s
        )

    @from_any_thread
    def hand_off(self, agent: Agent, *, history: bool = True) -> None:
        """Let ``agent`` answer from now on, in the same call; from a tool, ``inference`` or anywhere else.

        A tool may just return the agent.

        Ears, voice, turn taking, settings and events stay; prompt, tools, model and ``inference`` are the
        other's, and its voice or STT too, if it was made with another than this one's. It greets, if it has
        a greeting, else its model is asked for its first words. ::

            self.hand_off(Billing(voip=self.voip, stt=self.stt, tts=self.tts, llm=..., system="..."))

        Args:
            agent: Made for the same call, and not active.
            history: It knows what was said; otherwise it begins anew.

        Raises:
            StateError: This agent is not active, or ``agent``, its voice or its STT is not free for this call.
            ConfigurationError: ``agent`` was made for an ``s2s`` and the call has none, or the other way round.
            UnsupportedFormat: Its voice or STT shares no audio format with the call.
        """
        conversation = self._running
        if agent is self or agent.voip is not self.voip or agent._conversation is not None or agent._disposed:
            raise StateError(f"{self.name}: hand_off() needs another agent of the same call that is not active")
        own = agent._brings(conversation)
        if history:
            self.history.instruct(agent._system)
            agent.history = self.history
        agent._conversation, self._conversation = conversation, None
        agent.home = self.home
        agent._handed_off = False  # it may be the one that had the call before
        agent._events, agent._meter = conversation.events, conversation.meter
        agent._mcp.open()
        conversation.hand_over(agent, llm=agent.llm, toolbox=agent._toolbox, history=agent.history)
        agent._mcp.tell()
        agent._client_tools.tell()
        agent._vad, self._vad = self._vad or agent._vad, None
        self._handed_off = True
        for provider in own:
            if isinstance(provider, STT):
                agent.set_stt(provider)
            else:
                agent.set_tts(provider)
        agent._taken()
        if agent.greeting:
            agent.dispatch_message(agent.greeting)
        elif agent.llm is not None or conversation.s2s is not None:
            conversation.ask()

    def _brings(self, conversation: Conversation) -> list[STT | TTS]:
        """The ears and the voice with which this agent is to take over, where they are others than the call's.

        Raises:
            ConfigurationError: It cannot answer in this call.
            StateError: They work for another call.
            UnsupportedFormat: They share no audio format with it.
        """
        if self.voip.medium != "audio":
            return []
        if conversation.s2s is not None and self._s2s is not conversation.s2s:
            raise ConfigurationError(
                f"hand_off(): in this call {conversation.s2s.name} hears and speaks: make {self.name} with s2s=self.s2s"
            )
        if conversation.s2s is None and self._realtime and self.llm is None:
            raise ConfigurationError(
                f"hand_off(): this call has an stt and a tts: make {self.name} with them and an llm, not with an s2s"
            )
        # Ears or a voice that were replaced since it had the call are gone for good.
        own = [
            given
            for given, present in ((self._stt, conversation.stt), (self._tts, conversation.tts))
            if given is not None and given is not present and not given.disposed
        ]
        for given in own:
            conversation.check(given)
        return own

    def _hand_over(self, returned: object) -> str | None:
        """What a tool has returned, if it is an agent, takes the call, unless the tool has let it already."""
        if not isinstance(returned, Agent):
            return None
        if returned._conversation is None or self._conversation is not None:
            self.hand_off(returned)
        return f"handed over to {returned.name}"

    def on_stt_ready(self, stt: STT) -> None:
        """``stt`` was made and will be opened next; the default does nothing.

        Called once for each that the call gets, given as an object, made by a factory or set with :meth:`set_stt`:
        the place to listen to what only this one tells, or to give it phrases. What is raised here,
        :meth:`activate` or :meth:`set_stt` raises, and ``stt`` is not opened.
        """

    def on_answered_by(self, answered_by: AnsweredBy) -> Coroutine[Any, Any, None] | None:
        """Somebody has taken a call that was placed: the default says what a machine is to be told, and hangs up.

        Called once, and again with ``late`` if the carrier's verdict comes after something was assumed. Without
        machine detection ``who`` is ``unknown``. What is to be hung up on is, whatever you do here. An override may be
        an ``async def``.
        """
        if answered_by.then == "leave_message" and not answered_by.late:
            conversation = self._running
            conversation.engine.abort()  # the machine's greeting was no conversation
            conversation.engine.dispatch_message(answered_by.message, PartOptions(allow_interrupt=False))
            conversation.end_after("machine")
        return None

    def on_idle(self, count: int) -> Coroutine[Any, Any, None] | None:
        """Nobody has spoken for a while, for the ``count``-th time: the default asks what the settings say.

        An override may be an ``async def``.
        """
        prompt = self._running.endings.prompt(count)
        if prompt:
            self._running.engine.dispatch_message(prompt, PartOptions(paraphrase=True))
        return None

    @asynccontextmanager
    async def script(self, *, private: bool = False) -> AsyncGenerator[ScriptCall]:
        """Let the code of this block hold the call for a while, in the place of the model; from a tool, or anywhere.

        What the caller says is the block's to hear, the model says nothing by itself, and afterwards it goes on. In a
        tool it learns then what the tool returns; give the tool a ``timeout_s`` that is long enough. ::

            @tool(timeout_s=300)
            async def take_card(self) -> str:
                async with self.script(private=True) as call:
                    card = await call.collect(answers.card())
                return await self.till.charge(card)

        Args:
            private: The model is not told what is said meanwhile. The call's events have it: see
                :class:`~dialog.calls.redact.Redaction`.

        Raises:
            StateError: The agent is not active, a script has the call already, or this is ``inference`` itself.
            NotSupportedError: One model hears and speaks in this call.
        """
        conversation, turn = self._running, current_turn.get()
        if turn is not None:
            if asyncio.current_task() in (turn.task, *turn.feeders):
                raise StateError(f"{self.name}: a script inside inference would wait for itself: use it in a tool")
            await turn.confirmed()
            turn.speech.seal()
        call = ScriptCall(self, conversation)
        conversation.divert(call, private=private)
        if turn is not None:
            turn.leave_tools()  # it waits for this one, and would keep the floor
        token = current_turn.set(None)  # what is said here are turns of their own: the caller may answer each
        try:
            with speech_of_its_own():
                yield call
        finally:
            current_turn.reset(token)
            conversation.restore(call)
            call.let_go()

    @from_any_thread
    def discard_caller_audio(self) -> None:
        """Forget what the caller has said until now, as far as it is not answered yet.

        Raises:
            StateError: The agent is not active.
        """
        self._running.engine.discard()

    @from_any_thread
    def abort(self) -> None:
        """Stop everything that may be interrupted: the reply in progress and what waits to be said."""
        if self._conversation is not None:
            self._conversation.engine.abort()

    @from_any_thread
    def set_stt(self, stt: STT) -> None:
        """Hear the caller with ``stt`` from their next pause on; the old one's last words still count.

        A text call does not listen; it keeps ``stt`` closed.

        Raises:
            UnsupportedFormat: It shares no audio format with the call; the old one stays.
            StateError: It was disposed of (as the old one is then), or works for another call; likewise.
        """
        if self._conversation is not None and self.voip.medium == "audio":
            if stt is not self._conversation.stt:
                self._conversation.set_stt(stt)
        elif stt is not self._stt:
            old, self._stt = self._stt, stt
            self._replaced(old, stt)

    @from_any_thread
    def set_tts(self, tts: TTS) -> None:
        """Speak with ``tts`` from the next part of speech on. A text call does not sound; it keeps ``tts`` closed.

        The old one is disposed of once it has said what it had begun.

        Raises:
            UnsupportedFormat: It shares no audio format with the call; the old one stays.
            StateError: It was disposed of, or works for another call; likewise.
        """
        if self._conversation is not None and self.voip.medium == "audio":
            if tts is not self._conversation.tts:
                self._conversation.set_tts(tts)
        elif tts is not self._tts:
            old, self._tts = self._tts, tts
            self._replaced(old, tts)

    @from_any_thread
    def dispose(self, error: BaseException | None = None) -> None:
        """End the agent and the participants it owns. ``error``, its cause, is logged."""
        if self._disposed:
            return
        if error is not None:
            logger.error("%s: disposed because of %r", self.name, error, exc_info=error)
        owned = {
            participant
            for participant in (self.stt, self.tts, self._stt, self._tts, self._vad, self._s2s)
            if participant is not None and not self._handed_off and not is_elsewhere(participant, self.voip)
        }
        self.deactivate()
        super().dispose()
        self._tasks |= self._closing
        for participant in owned:
            participant.dispose()
        self._let_go()
        if self.llm is not None:
            self._finish(self.llm.close(), "closing its model")

    def _taken(self) -> None:
        """The agent has the call from now on: activated, or handed over by another one."""

    def _make_clips(self) -> None:
        if self._conversation is not None:
            self.spawn(make_clips(self.voip, self._conversation, self.settings), "clips for the line")

    def _client_tool_taken(self, name: str) -> None:
        if self._conversation is not None:
            text = f"the agent has a tool of its own of the name {name!r}: the client's is not used"
            self._conversation.warned("client_tool_taken", text)

    def _take_checkpoint(self) -> Checkpoint | None:
        """Where an agent in another process left the call, if one had it; taken once."""
        checkpoint, self.voip.checkpoint = self.voip.checkpoint, None
        if checkpoint is None or checkpoint.started is None:
            return None
        if checkpoint.state:
            try:
                self.restore(msgspec.msgpack.decode(checkpoint.state))
            except Exception as exc:  # the user's code; the conversation goes on without what it remembers
                error = UserCodeError(f"{self.name}: restore() raised {exc!r}")
                error.__cause__ = exc
                self.fail(error)
        return checkpoint

    def _local_vad(self) -> VAD:
        if self._vad is None:
            self._vad = self._make_vad()
        return self._vad

    # -- the conversation's side ------------------------------------------------------------------

    def happened(self, event: CallEvent) -> None:
        """Tell listeners of an event of the call."""
        self.emit(Agent.EVENT, event)

    def reported(self, report: SessionReport) -> None:
        """Tell listeners of the session report."""
        self.emit(Agent.REPORT, report)

    def _failed(self, error: DialogError) -> None:
        """Something failed: note it among the call's events too, while there is a call."""
        if self._conversation is not None:
            self._conversation.failed(error)
        else:
            self.fail(error)

    def _replaced(self, old: Participant | None, new: Participant) -> None:
        """A provider that is not in use was replaced: what the agent was given it disposes of."""
        if old is not None:
            old.dispose()
        if self._disposed:
            new.dispose()

    @property
    def _running(self) -> Conversation:
        if self._conversation is None:
            raise StateError(f"{self.name}: not active: {self._why_inactive()}")
        return self._conversation

    def _why_inactive(self) -> str:
        if self._handed_off:
            return "another agent has the call"
        return "its call has ended" if self._disposed else "call activate() first"

    def _let_go(self) -> None:
        """Of the connections to MCP servers."""
        closing = self._mcp.close()
        if closing is not None:
            self._finish(closing, "letting go of MCP servers")

    def _finish(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Give something back, which dispose does not cancel but wait for."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self.name} {what}")
        self._closing.add(task)
        if self._disposed:
            self._tasks.add(task)
        task.add_done_callback(self._closing.discard)
        task.add_done_callback(self._task_done)
