"""Has the caller finished? Silence, words and the STT each have a say."""

from __future__ import annotations

from typing import Literal, NamedTuple
from uuid import UUID

from msgspec.structs import replace

from dialog.agent.turns.completeness import completeness
from dialog.agent.turns.decisions import Decision, Finalize, NoTranscript
from dialog.agent.turns.settings import Endpointing, TurnSettings
from dialog.agent.turns.wording import joined, spoken
from dialog.message import Utterance

__all__ = ["Endpointer", "Outcome"]

_ANSWER_S = 1.0
"""An STT that was asked answers within half of this, from its last interim if need be."""
_MISSED_S = 1.0
"""Words that change so long after the voice stopped: the VAD missed that it started again."""
_HANGOVER_S = 0.5
"""A VAD that hears the voice stop so long after the words have ended is late, and has heard no others."""
_NO_NEWS_S = 0.5
"""Words that have not changed for this much longer than the longest pause have ended; interims come once a second."""
_LAG_S = 0.25
"""Words that came sooner than this after the voice stopped need not be all: an STT is behind the audio."""
_MAX_KEPT_CHARS = 2000
_PROBABLY = 0.5


class Outcome(NamedTuple):
    """What a deadline brought."""

    decisions: list[Decision]
    ended: tuple[Utterance, ...] = ()
    """The caller has finished these."""
    probably: tuple[Utterance, ...] = ()
    """The caller has probably finished these."""


class Endpointer:
    """Follows the caller's voice and words up to the end of each utterance.

    An utterance that the STT ended is kept while it sounds unfinished, and joined with what comes. In local
    mode silence ends utterances, and the STT is asked for the words. A voice without words, or words
    without an end, never leave the agent waiting for ever.
    """

    def __init__(self, settings: TurnSettings) -> None:
        self._settings = settings
        self._policy = settings.endpointing
        self._auto: Literal["provider", "local"] = "provider"
        self.voice: bool = False
        """The caller's voice is on."""
        self.voice_since: float = 0.0
        self._interim: Utterance | None = None
        self._kept: list[Utterance] = []
        self._changed_at = 0.0
        self._ended_at = 0.0
        self._stopped_at: float | None = None
        self._finalized_at: float | None = None
        self._judged: float | None = None
        self._complete = 1.0
        self._suggested = False
        self._tells_stops = True
        """Somebody hears when the voice stops."""
        self.faults: list[Exception] = []
        """What the user's turn model raised."""

    @property
    def words(self) -> bool:
        """Words came that no final has confirmed yet."""
        return self._interim is not None

    @property
    def busy(self) -> bool:
        """The caller has begun to say something and has not finished."""
        return self._interim is not None or bool(self._kept)

    @property
    def said(self) -> tuple[Utterance, ...]:
        """What the caller has said without finishing it."""
        return (*self._kept, self._interim) if self._interim is not None else tuple(self._kept)

    @property
    def finished(self) -> bool:
        """It sounds as if nothing is to be added."""
        return self._complete >= _PROBABLY

    @property
    def deadline(self) -> float | None:
        """When to look again."""
        times = [time for time in (self._due(), self._suggest_at()) if time is not None]
        return min(times) if times else None

    def resolve(self, mode: Literal["provider", "local"], *, tells_stops: bool) -> None:
        """What ``auto`` means, and whether anybody tells when the voice stops."""
        self._auto = mode
        self._tells_stops = tells_stops

    def asked(self, policy: Endpointing | None) -> None:
        """How to find the end of the next utterance; ``None``: as ever."""
        policy = policy or self._settings.endpointing
        if policy is not self._policy:
            self._policy = policy
            self._judge()

    def judged(self, probability: float, uuid: UUID | None) -> None:
        """A model that listens to the audio says whether the caller has finished."""
        if uuid is None or uuid in [utterance.uuid for utterance in self.said]:
            self._judged = min(1.0, max(0.0, probability))
            self._judge()

    def started(self, now: float, age_s: float = 0.0) -> None:
        """The voice started."""
        self.voice = True
        self.voice_since = now - age_s
        self._stopped_at = None
        self._finalized_at = None
        self._judged = None
        self._suggested = False
        self._changed_at = max(self._changed_at, now)

    def stopped(self, now: float) -> None:
        """The voice stopped."""
        if self.voice:
            self.voice = False
            self._stopped_at = now

    def interim(self, utterance: Utterance, now: float) -> bool:
        """Words came; whether they say anything new."""
        if not utterance.data.strip():
            return False
        if self._interim is None or spoken(utterance.data) != spoken(self._interim.data):
            self._changed_at = now
            self._suggested = False
            if self._finalized_at is not None:
                self._finalized_at = now  # it is at it
        self._interim = utterance
        self._judge()
        return True

    def noted(self) -> None:
        """An utterance ended that is no part of what the caller wants to say."""
        self._words_ended()
        self._stopped_at = None
        self._judge()

    def forget(self) -> tuple[Utterance, ...]:
        """What was said until now does not count; return what was kept of it. A voice that is on goes on."""
        self._interim = None
        self._finalized_at = None
        self._suggested = False
        kept = tuple(self._kept)
        self._kept.clear()
        if not self.voice:
            self._stopped_at = None
        self._judge()
        return kept

    def final(self, utterance: Utterance, now: float, *, complete: bool = False) -> tuple[Utterance, ...]:
        """An utterance ended; what the caller has finished by it, nothing if it is to be continued."""
        self._words_ended()
        self._kept.append(utterance)
        self._ended_at = now
        self._suggested = False
        self._judge()
        due = self._due()
        if complete or (not self.voice and due is not None and due <= now) or self._too_long:
            return self._release()
        return ()

    def line_down(self, now: float) -> tuple[Utterance, ...]:
        """The caller is not heard any more: what the STT has is asked for, what was kept has ended."""
        self.stopped(now)
        if self._interim is not None:
            self._finalized_at = now
        return self._release() if self._interim is None else ()

    def close(self) -> tuple[Utterance, ...]:
        """The call is over."""
        self._interim = None
        return self._release()

    def expired(self, now: float) -> Outcome:
        """What the deadline brings."""
        suggest_at = self._suggest_at()
        due = self._due()
        waits = due is None or now < due
        probably: tuple[Utterance, ...] = ()
        if suggest_at is not None and now >= suggest_at:
            self._suggested = True
            if waits and self._behind:  # what it says then is worth a reply
                return Outcome([Finalize("the caller has probably finished")])
            probably = self.said
        if waits:
            return Outcome([], probably=probably)
        if self._finalized_at is not None:
            return self._give_up()
        if self.voice:  # a voice without new words for so long is noise
            self.stopped(now)
        if self._interim is None and self._kept and not self._more_to_come:
            return Outcome([], ended=self._release())
        self._finalized_at = now
        reason = "the caller paused" if self._local else "no final utterance came"
        return Outcome([Finalize(reason)], probably=probably)

    @property
    def _too_long(self) -> bool:
        return sum(len(kept.data) for kept in self._kept) > _MAX_KEPT_CHARS

    def _words_ended(self) -> None:
        self._interim = None
        self._finalized_at = None
        if not self._local:
            self.voice = False  # the STT says so, and not every STT tells of the voice

    @property
    def _local(self) -> bool:
        return (self._auto if self._policy.mode == "auto" else self._policy.mode) == "local"

    def _due(self) -> float | None:
        timeout_s = self._settings.transcript_timeout_s
        if self._finalized_at is not None:
            return self._finalized_at + (min(_ANSWER_S, timeout_s) if self.busy else timeout_s)
        if self.voice:
            return self._changed_at + self._no_news_s if self.busy else None
        if self._interim is not None:
            return self._words_end_at()
        if self._kept:
            return self._kept_until()
        if self._stopped_at is None:
            return None
        return self._stopped_at + (self._policy.wait_s if self._local else timeout_s)

    @property
    def _no_news_s(self) -> float:
        """How long words may stay as they are, although nobody says that the voice has stopped.

        An STT that tells of starts only leaves the voice on: then its words change as long as it lasts.
        """
        timeout_s = self._settings.transcript_timeout_s
        return timeout_s if self._tells_stops else min(timeout_s, self._policy.max_s + _NO_NEWS_S)

    def _words_end_at(self) -> float:
        """When words that the STT has not ended are asked for."""
        stopped_at = self._stopped_at
        if not self._local:
            limit = self._changed_at + self._no_news_s
            return limit if stopped_at is None else min(limit, max(stopped_at, self._changed_at) + self._policy.max_s)
        if stopped_at is None:  # the VAD missed them: interims come about once a second while they last
            return self._changed_at + self._policy.unfinished_s
        if self._behind and self._judged is None:  # what it has said so far cannot tell whether that was all
            return stopped_at + self._policy.wait_s
        return (stopped_at if self._changed_at < stopped_at + _MISSED_S else self._changed_at) + self._wait_s

    @property
    def _behind(self) -> bool:
        """The STT has perhaps not told the last words yet, and may be asked for them."""
        stopped_at = self._stopped_at
        if not self._local or stopped_at is None:
            return False
        if self._interim is None:
            return not self._kept or self._more_to_come
        return self._changed_at < stopped_at + _LAG_S

    @property
    def _more_to_come(self) -> bool:
        """The voice went on after the last utterance, and only the STT knows what it said."""
        return self._local and self._stopped_at is not None and self._stopped_at > self._ended_at + _HANGOVER_S

    def _kept_until(self) -> float:
        """When an ended utterance has been waited for long enough."""
        stopped_at = self._stopped_at
        if stopped_at is not None and (self._local or stopped_at > self._ended_at):
            return stopped_at + self._wait_s
        return self._ended_at + self._wait_s - self._policy.wait_s

    def _suggest_at(self) -> float | None:
        """When the words so far are worth a reply, although they have not ended."""
        after_s = self._policy.speculate_after_s
        if after_s is None or self._stopped_at is None or self._suggested or self._finalized_at is not None:
            return None
        if not self._behind and not (self.busy and self.finished):
            return None
        return max(self._stopped_at, self._changed_at) + after_s

    @property
    def _wait_s(self) -> float:
        policy = self._policy
        return policy.wait_s + (1.0 - self._complete) * (policy.unfinished_s - policy.wait_s)

    def _judge(self) -> None:
        said = self.said
        if self._judged is not None or not said:
            self._complete = 1.0 if self._judged is None else self._judged
            return
        whole = said[-1] if len(said) == 1 else replace(said[-1], data=joined(said))
        judgement: float | None = None
        if self._policy.turn_model is not None:
            try:
                judgement = self._policy.turn_model(whole)
            except Exception as exc:  # the user's: a caller must not wait because it failed
                self.faults.append(exc)
        self._complete = completeness(whole) if judgement is None else min(1.0, max(0.0, judgement))

    def _give_up(self) -> Outcome:
        """Asked, and not answered: whatever it was, it came to nothing."""
        words = self._interim is not None
        nothing = words or not self._kept
        self._interim = None
        return Outcome([NoTranscript(words)] if nothing else [], ended=self._release())

    def _release(self) -> tuple[Utterance, ...]:
        """What was kept has ended, and nothing is being said."""
        kept = tuple(self._kept)
        self._kept.clear()
        self._stopped_at = None
        self._finalized_at = None
        self._judged = None
        self._policy = self._settings.endpointing
        self._complete = 1.0
        return kept
