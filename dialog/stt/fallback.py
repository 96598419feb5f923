"""Recognisers that stand in for one another: :class:`FallbackSTT`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar
from uuid import UUID
from weakref import WeakSet

from dialog.audio.convert import Converter, common_formats, negotiate
from dialog.errors import ConfigurationError, DialogError, ProviderError, StateError, UnsupportedFormat
from dialog.message import AudioFormat, Failure, Message, SpeechEdge, Utterance
from dialog.net.circuit import Circuit, chain_circuits
from dialog.net.ring import AudioRing
from dialog.net.takeover import Takeover, as_error, caused, failure_of, labels
from dialog.participant import Event, Participant
from dialog.stt.member import Member, Session
from dialog.stt.seam import common_capabilities, seam
from dialog.stt.stt import STT
from dialog.stt.watchdog import Watchdog

__all__ = ["FallbackSTT"]

logger = logging.getLogger(__name__)

_TICK_S = 0.25
_PATIENCE_S = 2.0
"""So long a recogniser may be without a connection; it connects again by itself, and its ring covers it."""
_ERRORS = 3
"""So many errors in a row, and no sign of life, are a failure."""
_FINALIZED_S = 1.0
"""How long a recogniser that hears nothing may take to answer when it is asked for what it has."""
_RENEWED_S = 2.0
"""How long it may be silent after it was connected anew, and has heard the speech again."""
_FINAL_S = 0.6
"""Whoever was asked for a final gets one within this."""
_STEADY_S = 30.0
"""Who has been connected for so long is no reason to hold against the others that they failed before."""
_ORPHAN_S = 3.0
"""How long words of an utterance wait for a recogniser that took over to go on with it."""
_PROBE_S = 5.0
"""How long one that is tried again may take to connect."""
_PROBE_UTTERANCES = 2
"""If so many are told, and it has heard none, it is deaf."""
_QUIET_S = 1.0
"""Both have told all that was said when nothing came for so long."""
_PROBE_AHEAD_MS = 500.0


class FallbackSTT(STT):
    """The first recogniser that works, of several.

    The next one takes over when one gives up, has no connection for two seconds, or hears two seconds of
    speech and says nothing: then it is asked, connected anew, and at last replaced. The next one hears again
    what was not told for good, from the start of the unfinished utterance on (at most ten seconds), and goes
    on under the same uuid. One that is preferred, and failed, listens along after a while; when it has proven
    that it hears, it takes over in a pause.

    What one call has learnt of them the next one knows: it begins with the first that has not failed lately.

    Its capabilities are what all of them can do, so whoever plans with them need not plan again. Each switch
    is a non-fatal ERROR that says who failed and why, and a :attr:`TAKEOVER`; a fatal ERROR comes when all
    have failed.

    ::

        stt = FallbackSTT([DeepgramSTT(api_key=…), ElevenLabsSTT(api_key=…)])

    Args:
        members: The recognisers, best first, unopened. They belong to this one. One that has given up is made
            anew from the arguments of its constructor when it is needed again.
        probe_after_s: How long after a failure a better one is tried again; the wait doubles with each failure.

    Raises:
        ConfigurationError: There are none.
        UnsupportedFormat: They share no audio format.
    """

    TAKEOVER: ClassVar[Event[Takeover]] = Event("takeover")
    """Another one listens from now on."""

    def __init__(self, members: Iterable[STT], *, probe_after_s: float = 15.0) -> None:
        given = list(members)
        if not given:
            raise ConfigurationError("FallbackSTT needs at least one recogniser")
        super().__init__()
        names = labels([stt.name for stt in given])
        self._members = [Member(stt, place, names[place]) for place, stt in enumerate(given)]
        Circuit(failures=1, probe_after_s=probe_after_s)  # refuses what is out of range, already here
        self._probe_after_s = probe_after_s
        # It can take and do what all of them can.
        self.formats = common_formats([stt.formats for stt in given])  # type: ignore[misc]
        if not self.formats:
            raise UnsupportedFormat(f"FallbackSTT: nothing can be converted for all of {[stt.name for stt in given]}")
        self.capabilities = common_capabilities([stt.capabilities for stt in given])  # type: ignore[misc]
        self._format: AudioFormat | None = None
        self._ring: AudioRing
        self._watchdog: Watchdog
        self._active: Session | None = None
        self._beginning: Session | None = None
        """It hears what was said before it took over."""
        self._probe: Session | None = None
        self._dismissed: WeakSet[STT] = WeakSet()
        self._tried: set[Member] = set()
        """Those that failed since somebody last heard something."""
        self._heard_ms = float("-inf")
        self._discarded_ms = float("-inf")
        self._unfinished: Utterance | None = None
        self._last_words: Utterance | None = None
        """A final of one that has no connection: perhaps not the end of the utterance, but its own."""
        self._eager: UUID | None = None
        self._speaking = False
        self._ticker: asyncio.TimerHandle | None = None
        self._finalizing: asyncio.TimerHandle | None = None

    # -- what the agent calls ----------------------------------------------------------------------

    @property
    def active(self) -> str:
        """Name of the one that listens; empty if none does."""
        return self._active.member.label if self._active is not None else ""

    @property
    def pulse(self) -> int | None:
        """See :attr:`STT.pulse`: that of the one that listens."""
        return self._active.stt.pulse if self._active is not None else None

    def open(self, audio_format: AudioFormat) -> None:
        """Start connecting the first one and return.

        Raises:
            UnsupportedFormat: ``audio_format`` is none of :attr:`formats`.
            StateError: It is open already, or disposed of.
            MissingExtra: One of them needs another format, and numpy is not installed.
        """
        if audio_format not in self.formats:
            raise UnsupportedFormat(f"{self.name}: {audio_format} is none of {self.formats}")
        if self._format is not None or self._disposed:
            raise StateError(f"{self.name}.open was called {'after dispose' if self._disposed else 'twice'}")
        for member in self._members:
            Converter(audio_format, negotiate(audio_format, member.stt.formats))
        self._format = audio_format
        self._ring = AudioRing(audio_format)
        self._watchdog = Watchdog(audio_format)
        self._loop = asyncio.get_running_loop()
        self._ticker = self._loop.call_later(_TICK_S, self._tick)
        identities = [member.stt.identity for member in self._members]
        circuits = chain_circuits(identities, failures=1, probe_after_s=self._probe_after_s)
        for member, circuit in zip(self._members, circuits, strict=True):
            member.circuit = circuit
        first = next((member for member in self._members if member.circuit.closed), self._members[0])
        if first.place:
            logger.info("%s: %s listens, for what is preferred has failed lately", self.name, first.label)
        try:
            self._active = self._start(first)
        except ProviderError as exc:
            first.circuit.failed(self._loop.time(), hopeless=True)
            self._tried.add(first)
            self._replace(first, exc)

    def post(self, message: Message[bytes]) -> None:
        """Hand caller audio to the one that listens, and to one that is tried.

        Raises:
            StateError: Called before :meth:`open`.
        """
        active = self._active
        if active is None:
            if self._format is None and not self._disposed:
                raise StateError(f"{self.name}.post was called before open")
            return
        if not message.data:
            return
        self._ring.append(message)
        try:
            active.post(message)
        except Exception as exc:  # a foreign one must not take the call down
            self._down(active, as_error(active.member.label, exc))
        if self._probe is not None:
            self._try(self._probe, partial(self._probe.post, message))

    def finalize(self) -> None:
        """Ask for what was said so far: it comes as MESSAGE soon, also when nobody answers."""
        if self._active is None:
            return
        if self._finalizing is None:
            self._finalizing = self._loop.call_later(_FINAL_S, self._force)
        self._try(self._active, self._active.stt.finalize)

    def discard(self, before_ms: float) -> None:
        """Forget what was said before ``before_ms`` on the call's audio clock, also what is recognised later."""
        self._discarded_ms = max(self._discarded_ms, before_ms)
        if self._format is None:
            return
        self._ring.release(before_ms)
        if self._unfinished is not None and self._unfinished.end_ms <= before_ms:
            self._unfinished = None
            if self._active is not None:
                self._active.kept = self._active.prefix = None
        for session in (self._active, self._probe):
            if session is not None:
                self._try(session, partial(session.stt.discard, before_ms))

    def dispose(self) -> None:
        """End for good, and all of them."""
        for timer in (self._ticker, self._finalizing):
            if timer is not None:
                timer.cancel()
        if self._probe is not None:
            self._probe.member.circuit.abandoned()
        self._active = self._probe = None  # nothing that comes from them counts any more
        try:
            for stt in self._all():
                stt.dispose()  # it tells what it used
        finally:
            super().dispose()

    async def wait_disposed(self, timeout_s: float = 2.0) -> None:
        """Wait, at most ``timeout_s``, until all of them have ended."""
        await asyncio.gather(super().wait_disposed(timeout_s), *(stt.wait_disposed(timeout_s) for stt in self._all()))

    def _all(self) -> set[STT]:
        return {*self._dismissed, *(member.stt for member in self._members)}

    # -- who listens -------------------------------------------------------------------------------

    def _start(self, member: Member) -> Session:
        """Open a member, a new one if it was open before; raises what it raises."""
        if member.used:
            member.stt = self._context().run(member.stt.renewed)
        member.used = True
        stt = member.stt
        assert self._format is not None
        own = negotiate(self._format, stt.formats)
        session = Session(member, stt, Converter(self._format, own), self._loop.time())
        heard: tuple[tuple[Event[Any], Callable[[Session, Any], None]], ...] = (
            (STT.MESSAGE, self._on_message),
            (STT.INTERIM, self._on_interim),
            (STT.VAD, self._on_edge),
            (STT.EAGER, self._on_eager),
            (STT.EAGER_WITHDRAWN, self._on_eager_withdrawn),
            (Participant.ERROR, self._on_error),
        )
        stt.on(STT.USAGE, partial(self.emit, STT.USAGE))  # also as it is disposed of
        session.listen([(event, partial(listener, session)) for event, listener in heard])
        stt.manual_turns = self.manual_turns
        stt.own_speech = self.own_speech
        try:
            self._context().run(stt.open, own)
            if self._discarded_ms > float("-inf"):
                stt.discard(self._discarded_ms)
            session.check()
        except Exception:
            self._drop(session)
            raise
        return session

    def _drop(self, session: Session) -> None:
        session.dispose()
        self._dismissed.add(session.stt)

    def _try(self, session: Session, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as exc:  # a foreign one must not take the call down
            self._down(session, as_error(session.member.label, exc))

    def _down(self, session: Session, error: DialogError) -> None:
        """One has failed: the next one takes over, if it was the one that listens."""
        now = self._loop.time()
        if session is self._beginning:
            session.fatal = error  # who lets it begin looks at that
        elif session is self._probe:
            session.member.circuit.failed(now)
            logger.info("%s: %s does not work again yet: %s", self.name, session.member.label, error)
            self._probe = None
            self._drop(session)
        elif session is self._active:
            session.member.circuit.failed(now, hopeless=True)
            self._tried.add(session.member)
            self._leave(session)
            self._replace(session.member, error)

    def _leave(self, session: Session) -> None:
        """Nothing that comes from the one that listened counts any more."""
        self._active = None
        self._drop(session)
        if self._last_words is not None:
            self._unfinished, self._last_words = self._last_words, None
        eager, self._eager = self._eager, None
        if eager is not None:
            self.emit(STT.EAGER_WITHDRAWN, eager)

    def _replace(self, old: Member, error: DialogError) -> None:
        failed = [(old, error)]
        while not self._disposed:
            member = self._next()
            if member is None:
                self._tell(failed, None)
                self._give_up(failed[-1][1])
                return
            if self._probe is not None and self._probe.member is member:
                probe, self._probe = self._probe, None
                member.circuit.abandoned()
                self._drop(probe)
            try:
                self._take_over(self._start(member))
            except Exception as exc:  # it cannot even begin: the next one, then
                member.circuit.failed(self._loop.time(), hopeless=True)
                self._tried.add(member)
                failed.append((member, as_error(member.label, exc)))
                continue
            self._tell(failed, member)
            self.emit(FallbackSTT.TAKEOVER, Takeover(of=old.label, by=member.label, error=error))
            return

    def _tell(self, failed: list[tuple[Member, DialogError]], by: Member | None) -> None:
        for member, error in failed:
            told = failure_of(member.label, error, by.label if by is not None else None)
            self.fail(told, retryable=True)

    def _next(self) -> Member | None:
        left = [member for member in self._members if member not in self._tried]
        return next((member for member in left if member.circuit.closed), left[0] if left else None)

    def _take_over(self, session: Session) -> None:
        """Let a member hear what was not told for good, and go on from there."""
        session.prefix, from_ms = seam(self._unfinished, self._heard_ms, self._ring.start_ms)
        session.kept = self._unfinished
        session.speaking = self._speaking
        safe_ms = max(self._discarded_ms, session.prefix.end_ms if session.prefix is not None else self._heard_ms)
        if safe_ms > self._discarded_ms:
            session.stt.discard(safe_ms)  # the frame that is cut there ends a word that was told
        self._active = self._beginning = session
        try:
            for message in self._ring.since(from_ms):
                session.post(message)
                session.check()
        except Exception:
            self._leave(session)
            raise
        finally:
            self._beginning = None
        self._watchdog.alive(self._ring.end_ms)

    def _give_up(self, error: DialogError) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        if self._probe is not None:
            self._probe.member.circuit.abandoned()
            self._drop(self._probe)
            self._probe = None
        self._force()  # what was understood before all ended is still worth an answer
        names = ", ".join(member.label for member in self._members)
        told = ProviderError(self.name, f"all of {names} have failed, the last one: {error}", retryable=False)
        self.fail(caused(told, error), fatal=True)

    # -- what is looked at from time to time -------------------------------------------------------

    def _tick(self) -> None:
        self._ticker = self._loop.call_later(_TICK_S, self._tick)
        now = self._loop.time()
        if self._active is not None:
            self._look_at(self._active, now)
        if self._probe is not None:
            self._look_at_probe(self._probe, now)
        elif self._active is not None:
            for member in self._members[: self._active.member.place]:
                # Another call may have found out already that it works again; here it has to hear this caller.
                if member.circuit.closed or member.circuit.due(now):
                    self._start_probe(member)
                    break

    def _look_at(self, session: Session, now: float) -> None:
        pulse = session.stt.pulse
        if self._unconnected(session, pulse, now, _PATIENCE_S):
            return
        signs, (seen, heartbeat) = session.signs, session.seen
        session.seen = (signs, pulse)
        if signs != seen:
            session.renewed = False
            self._tried.clear()
        elif now - session.since >= _STEADY_S:
            self._tried.clear()
        if signs != seen or (heartbeat is not None and pulse not in (None, heartbeat)):
            session.errors = 0
            session.asked_at = None
            self._watchdog.alive(self._ring.end_ms)
        elif pulse is not None:
            self._watch(session, now)
        waited = session.kept is not None and session.theirs is None and now - session.since >= _ORPHAN_S
        if waited and pulse is not None and session is self._active:
            self._force()

    def _unconnected(self, session: Session, pulse: int | None, now: float, patience_s: float) -> bool:
        """Whether it has had no connection for too long, and is given up for that."""
        error = session.unconnected(pulse, now, patience_s)
        if error is not None:
            self._down(session, error)
        return error is not None

    def _watch(self, session: Session, now: float) -> None:
        """No sign of life since the last look: does it hear what we hear?"""
        for message in self._ring.since(self._watchdog.heard_ms):
            self._watchdog.hear(message, now)
        if session.asked_at is not None:
            wait_s = _RENEWED_S if session.renewed else _FINALIZED_S
            if now - session.asked_at < wait_s:
                return
            error = ProviderError(session.member.label, "there is speech, and nothing comes", retryable=True)
            if session.renewed:
                self._down(session, error)
            else:
                self._renew(session, error)
        elif self._watchdog.deaf(now):
            session.asked_at = now
            self._try(session, session.stt.finalize)

    def _renew(self, session: Session, error: ProviderError) -> None:
        """The same provider, connected anew, hears the speech again."""
        self._leave(session)
        try:
            fresh = self._start(session.member)
            fresh.renewed = True
            fresh.asked_at = self._loop.time()
            self._take_over(fresh)
        except Exception as exc:  # then the next one
            session.member.circuit.failed(self._loop.time(), hopeless=True)
            self._tried.add(session.member)
            self._replace(session.member, as_error(session.member.label, exc))
            return
        told = ProviderError(
            session.member.label, "there is speech, and nothing comes: it is connected anew", retryable=True
        )
        self.fail(caused(told, error), retryable=True)

    # -- one that is preferred is tried again ------------------------------------------------------

    def _start_probe(self, member: Member) -> None:
        try:
            self._probe = self._start(member)
        except Exception as exc:  # not yet
            member.circuit.failed(self._loop.time())
            logger.info("%s: %s cannot be tried: %r", self.name, member.label, exc)

    def _look_at_probe(self, probe: Session, now: float) -> None:
        if not probe.shy and now - probe.since >= self._probe_after_s:
            # Only somebody who speaks proves it, and this caller does not: let others try.
            probe.shy = True
            probe.member.circuit.abandoned()
        if self._unconnected(probe, probe.stt.pulse, now, _PROBE_S):
            return
        if not probe.heard and probe.missed >= _PROBE_UTTERANCES:
            self._down(probe, ProviderError(probe.member.label, "there is speech, and nothing comes", retryable=True))
            return
        active = self._active
        if active is None or not probe.heard or probe.in_utterance or self._unfinished is not None:
            return
        quiet = min(now - probe.told_at, now - active.told_at) >= _QUIET_S
        if quiet and probe.end_ms <= self._heard_ms + _PROBE_AHEAD_MS:
            self._hand_back(active, probe)

    def _hand_back(self, old: Session, probe: Session) -> None:
        self._leave(old)
        self._active, self._probe = probe, None
        probe.member.circuit.succeeded()
        self._watchdog.alive(self._ring.end_ms)
        if self._heard_ms > float("-inf"):
            self._try(probe, partial(probe.stt.discard, self._heard_ms))
        logger.info("%s: %s works again", self.name, probe.member.label)
        self.emit(FallbackSTT.TAKEOVER, Takeover(of=old.member.label, by=probe.member.label))

    # -- what they tell ----------------------------------------------------------------------------

    def _note(self, session: Session, *, words: Utterance | None = None, final: bool = False) -> bool:
        """A sign of life; whether it is the one that listens."""
        session.note(self._loop.time(), words=words, final=final)
        return session is self._active

    def _on_message(self, session: Session, utterance: Utterance) -> None:
        if not self._note(session, words=utterance, final=True):
            return
        utterance = session.translated(utterance)
        session.told()
        if session.stt.pulse is None:
            self._last_words = utterance
            self._loop.call_soon(self._say_last_words)
        else:
            self._end(utterance)

    def _say_last_words(self) -> None:
        utterance, self._last_words = self._last_words, None
        if utterance is not None:
            self._end(utterance)

    def _end(self, utterance: Utterance) -> None:
        """An utterance is over."""
        if self._finalizing is not None:
            self._finalizing.cancel()
            self._finalizing = None
        self._unfinished = self._eager = None
        self._heard_ms = max(self._heard_ms, utterance.end_ms)
        self._ring.release(self._heard_ms)
        active = self._active
        if self._speaking and (active is None or active.speaking):
            self._speaking = False  # who said that it began is gone
            self.emit(STT.VAD, SpeechEdge(state="stopped", at_ms=utterance.end_ms))
        if active is not None:
            active.speaking = False
        if self._probe is not None:
            self._probe.missed += 1
        self.emit(STT.MESSAGE, utterance)

    def _force(self) -> None:
        """Nobody ends the utterance: what was heard of it is all."""
        if self._finalizing is not None:
            self._finalizing.cancel()
            self._finalizing = None
        utterance, active = self._unfinished, self._active
        if utterance is None:
            return
        if active is not None:
            active.told()
        self._end(utterance)
        if active is not None:
            self._try(active, partial(active.stt.discard, utterance.end_ms))

    def _on_interim(self, session: Session, utterance: Utterance) -> None:
        if self._note(session, words=utterance):
            self._unfinished = utterance = session.translated(utterance)
            self.emit(STT.INTERIM, utterance)

    def _on_eager(self, session: Session, utterance: Utterance) -> None:
        if self._note(session, words=utterance):
            self._unfinished = utterance = session.translated(utterance)
            self._eager = utterance.uuid
            self.emit(STT.EAGER, utterance)

    def _on_eager_withdrawn(self, session: Session, uuid: UUID) -> None:
        if self._note(session):
            ours = session.ours(uuid)
            if self._eager == ours:
                self._eager = None
            self.emit(STT.EAGER_WITHDRAWN, ours)

    def _on_edge(self, session: Session, edge: SpeechEdge) -> None:
        if not self._note(session, final=edge.state == "stopped"):
            return
        known, session.speaking = session.speaking, False
        self._speaking = edge.state == "started"
        if not (known and self._speaking):
            self.emit(STT.VAD, edge)

    def _on_error(self, session: Session, failure: Failure) -> None:
        error = failure.error
        if failure.fatal:
            session.fatal = error
            self._down(session, error)
            return
        if isinstance(error, ProviderError):
            session.errors += 1
            session.last_error = error
            if session.errors >= _ERRORS:
                self._down(session, error)
                return
        if session is self._active:
            self.emit(Participant.ERROR, failure)
