"""One caller of a load: dials, talks by :class:`dialog.testing.load_talk.Talk`, and notes what becomes of it."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from uuid import uuid4

import aiohttp
from msgspec import Struct

from dialog.net.websocket import connect
from dialog.testing.call import CallSpec, NothingHeard, SimulatedCall
from dialog.testing.carrier import Refused, local_url
from dialog.testing.carrier_stream import CarrierStream
from dialog.testing.heard import Ear
from dialog.testing.load_figures import DEAD_AIR_MS, Figures
from dialog.testing.load_metronome import Metronome
from dialog.testing.load_outcome import CallOutcome, Verdict, judge, refused
from dialog.testing.load_speech import SharedMicrophone, Utterance
from dialog.testing.load_stream import LoadStream
from dialog.testing.load_talk import Talk, TalkSettings, Wait
from dialog.testing.media import Cleared
from dialog.testing.signing import sign
from dialog.testing.twiml import Verb, stream_parameters

__all__ = ["LoadCaller", "Shared"]

_GAP_MS = 400.0
"""Within a reply audio never pauses for so long; what lies farther apart are different ones."""
_HANDSHAKE_S = 10.0
_KEPT = 1000


class Shared(Struct, kw_only=True):
    """What all callers of a process share."""

    session: aiohttp.ClientSession
    metronome: Metronome
    figures: Figures
    utterances: Sequence[Utterance]
    settings: TalkSettings
    began: float
    """When the load began, on the callers' clock."""
    seed: int


class LoadCaller(SimulatedCall):
    """One call, from :meth:`live` to its outcome."""

    def __init__(self, spec: CallSpec, number: int, shared: Shared) -> None:
        self._mouth = SharedMicrophone()
        super().__init__(spec, self._mouth)
        self._number = number
        self._shared = shared
        self._figures = shared.figures
        self._talk = Talk(shared.settings, random.Random(shared.seed * 1_000_003 + number))
        self._ear = Ear()
        self._speaking = False
        self._voice_end_ms = 0.0
        self._stopped = False
        self._leaving: asyncio.Event = asyncio.Event()
        self._torn = False
        self._cut = False
        self._media_error: BaseException | None = None
        # What the outcome tells.
        self._answer_ms: float | None = None
        self._first_audio_ms: float | None = None
        self._replies = 0
        self._unanswered = 0
        self._reply_ms: deque[float] = deque(maxlen=_KEPT)
        self._dead_air: deque[tuple[float, float]] = deque(maxlen=_KEPT)
        self._heard_ms = 0.0
        self._stretches = 0
        self._gaps = self._own_gaps = self._cuts = self._warned = 0

    # The call.

    async def live(self) -> CallOutcome:
        """Dial, talk, hang up; whatever happens becomes the outcome. Cancelling it ends the call."""
        dialled = self.clock.now()
        self._figures.took_up(self._at_s)
        try:
            verdict = await self._live()
        except Refused as exc:
            verdict = refused(exc)
        except NothingHeard:
            verdict = self._endless()
        except Exception as exc:  # an error of ours must not be taken for one of the server
            verdict = Verdict("generator", f"{type(exc).__name__} in the generator: {exc}"[:120])
        self._shut_ear()
        outcome = self._outcome(verdict, dialled)
        self._figures.over(self._at_s, outcome.status, outcome.detail if outcome.failed else "")
        return outcome

    async def _live(self) -> Verdict:
        leaving = asyncio.create_task(self._leaving.wait(), name=f"leaving {self.call_sid}")
        try:
            setting_up = asyncio.create_task(self.set_up(), name=f"setting up {self.call_sid}")
            try:
                await asyncio.wait((setting_up, leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                setting_up.cancel()
                await asyncio.wait((setting_up,))
            if not setting_up.cancelled():
                setting_up.result()
            if self._task is not None:
                # The talk ends calls in time; the limit is for those that have no stream, as in a <Dial>.
                remaining_ms = self._shared.settings.longest_ms + 1000.0 - self.now_ms()
                limit = max(0.0, self.clock.real(remaining_ms / 1000.0))
                await asyncio.wait((self._task, leaving), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if self._torn:
                await self.drop(hang_up=True)
        finally:
            leaving.cancel()
            await self.close()
        return judge(
            verbs=self.verbs,
            warnings=self.warnings,
            streams=self.streams,
            upgrade_status=self.upgrade_status,
            media_error=self._media_error,
            close_code=self.closed_with[0],
            cut=self._cut,
            by_caller=self.ended_by == "caller",
            complete=self._talk.complete,
            may_end=self._talk.may_end,
            unanswered=self._unanswered,
            stopped=self._stopped,
        )

    def _endless(self) -> Verdict:
        """The carrier waited in vain, for the call to be set up or to end."""
        if self.streams:
            return Verdict("not_ended", "no end within 20 s of hanging up")
        return Verdict("no_stream", "no media stream within a minute")

    def leave(self) -> None:
        """Hang up now, because the load is being stopped."""
        self._stopped = True
        self._leaving.set()

    def _outcome(self, verdict: Verdict, dialled: float) -> CallOutcome:
        return CallOutcome(
            number=self._number,
            call_sid=self.call_sid,
            status=verdict.status,
            detail=verdict.detail,
            ended_by=self.ended_by,
            dialled_s=round(dialled - self._shared.began, 3),
            duration_s=round(self.clock.now() - dialled, 3),
            answer_ms=self._answer_ms,
            first_audio_ms=self._first_audio_ms,
            turns=self._talk.spoken,
            replies=self._replies,
            reply_ms=tuple(round(ms, 1) for ms in self._reply_ms),
            dead_air=tuple(self._dead_air),
            heard_s=round(self._heard_ms / 1000.0, 3),
            stretches=self._stretches,
            gaps=self._gaps,
            own_gaps=self._own_gaps,
            streams=self.streams,
            cuts=self._cuts,
            close_code=self.closed_with[0],
            warnings=self._warned,
        )

    @property
    def _at_s(self) -> float:
        return self.clock.now() - self._shared.began

    # What the carrier's side tells.

    def noted(self, name: str, detail: str) -> None:  # noqa: ARG002 - nobody reads the details of so many
        """Something happened: the first verb is the answer, a warning is counted."""
        if name == "verb" and self._answer_ms is None:
            self._answer_ms = self.now_ms()
            self._figures.answer.add(self._answer_ms)
        elif name == "warning":
            self._warned += 1
            self._figures.warnings += 1

    def arrived(self, now_ms: float, data: bytes) -> None:  # noqa: ARG002 - it is heard when it is played
        """Audio of the agent arrived: after a hole, perhaps."""
        stream = self.stream
        if stream is None or not stream.buffer.gaps:
            return
        for gap in stream.buffer.gaps:
            if gap.duration_ms >= _GAP_MS:
                continue
            if self._shared.metronome.disturbed:
                self._own_gaps += 1
                self._figures.own_gaps += 1
            else:
                self._gaps += 1
                self._figures.gaps.add(gap.duration_ms)
        stream.buffer.gaps.clear()

    def ticked(self, now_ms: float) -> None:
        """Hear what was played, and do what is next."""
        stream = self.stream
        if stream is None:
            return
        for fragment in stream.buffer.played(now_ms):
            self._ear.hear(fragment)
        talk = self._talk
        if self._speaking and not self._mouth.speaking and self._mouth.begun_ms is not None:
            self._speaking = False
            talk.spoke(self._mouth.begun_ms + self._voice_end_ms)
        stretches = self._ear.stretches
        wait, step = talk.wait, talk.step(now_ms, stretches[-1] if stretches else None)
        if wait is not None:
            self._note(wait)
        if step == "speak":
            self._speak(talk.spoken)
        elif step:
            self._torn = step == "reset"
            self._leaving.set()
        if len(stretches) > 1:
            self._keep_last()

    def cleared(self, now_ms: float, cleared: Cleared) -> None:
        """The agent's side cut itself short."""
        if cleared.dropped_ms:
            self._ear.cut(now_ms)

    # Talking and listening.

    def _speak(self, number: int) -> None:
        utterances = self._shared.utterances
        # Callers do not all say the same at the same time.
        utterance = utterances[(number + self._number) % len(utterances)]
        self._mouth.say(utterance)
        self._voice_end_ms = utterance.voice_end_ms
        self._speaking = True
        self._figures.turns += 1

    def _note(self, wait: Wait) -> None:
        """Count what came of a wait, once it is known."""
        if wait.noted or (wait.heard_ms is None and not wait.over):
            return
        wait.noted = True
        if wait.heard_ms is None:
            if wait.asked:
                self._unanswered += 1
                self._figures.unanswered += 1
                self._note_silence(wait.since_ms, self.now_ms())
            return
        if wait.asked:
            self._replies += 1
            self._figures.replies += 1
            if wait.timed:
                self._reply_ms.append(wait.heard_ms - wait.since_ms)
                self._figures.replied(self._at_s, wait.heard_ms - wait.since_ms)
        else:
            self._first_audio_ms = round(wait.heard_ms, 1)
            self._figures.first_audio.add(wait.heard_ms)
        self._note_silence(wait.since_ms, wait.heard_ms)

    def _note_silence(self, since_ms: float, until_ms: float) -> None:
        if until_ms - since_ms > DEAD_AIR_MS:
            self._dead_air.append((round(since_ms), round(until_ms - since_ms)))
            self._figures.dead_air.add(until_ms - since_ms)

    def _keep_last(self) -> None:
        """Count all stretches but the last, which may go on, and forget them."""
        for stretch in self._ear.stretches[:-1]:
            self._count(stretch.ended_ms - stretch.started_ms)
        del self._ear.stretches[:-1]

    def _count(self, heard_ms: float) -> None:
        self._stretches += 1
        self._heard_ms += heard_ms
        self._figures.heard_s += heard_ms / 1000.0

    def _shut_ear(self) -> None:
        """The call is over: count what was heard last, and a wait that was in vain."""
        for stretch in self._ear.stretches:
            self._count(stretch.ended_ms - stretch.started_ms)
        self._ear.stretches.clear()
        wait = self._talk.wait
        if wait is not None and wait.heard_ms is None and not wait.noted and wait.asked:
            self._note_silence(wait.since_ms, self.now_ms())

    # Streams.

    def _require_packages(self) -> None:
        """Nothing that Dialog does not need anyway."""

    async def _open_stream(self, verb: Verb, url: str) -> tuple[int, CarrierStream | None]:
        headers = {"x-twilio-signature": sign(self._leg.auth_token, url), "User-Agent": self.user_agent}
        target = local_url(url, self._public, self._spec.url)
        try:
            async with asyncio.timeout(_HANDSHAKE_S):
                response = await connect(self._shared.session, target, headers)
        except aiohttp.WSServerHandshakeError as exc:
            return exc.status, None
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            self._media_error = exc
            return 0, None
        stream = LoadStream(
            response,
            self._shared.metronome,
            self._mouth,
            listener=self,
            clock=self.clock,
            epoch=self._epoch,
            account_sid=self._leg.account_sid,
            call_sid=self.call_sid,
            stream_sid=f"MZ{uuid4().hex}",
            parameters=stream_parameters(verb),
        )
        return 101, stream

    def _stream_over(self, stream: CarrierStream) -> None:
        super()._stream_over(stream)
        for fragment in stream.buffer.played(self.now_ms()):
            self._ear.hear(fragment)
        if self.streams > 1:
            self._figures.reconnects += 1
        self._cut = stream.end == "closed" and stream.close_code != 1000
        if self._cut:
            self._cuts += 1
            self._figures.cuts += 1
