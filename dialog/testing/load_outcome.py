"""What became of one call of a load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

from msgspec import Struct

from dialog.testing.carrier import Refused, Warned
from dialog.testing.load_hosts import connection_trouble
from dialog.testing.twiml import Verb

__all__ = ["FAILURES", "CallOutcome", "OutcomeStatus", "Verdict", "judge", "refused"]

OutcomeStatus = Literal[
    "done",
    "stopped",
    "unanswered",
    "ended_early",
    "not_ended",
    "cut",
    "said",
    "rejected",
    "refused",
    "no_stream",
    "generator",
]
"""How a call went:

===============  =======================================================================================
``done``         as planned: everything said was answered, and who was to end the call ended it
``stopped``      it went well until the load was stopped
``unanswered``   something that was said was not answered in time
``ended_early``  the agent's side ended it before all was said
``not_ended``    it was not over when its longest time was
``cut``          its media socket broke or was closed with another code than 1000, and nothing came after
``said``         TwiML said or played something and ended the call
``rejected``     TwiML rejected it (``busy``, ``rejected``)
``refused``      a webhook was not answered with TwiML
``no_stream``    there was no media stream, or its handshake failed
``generator``    this generator failed itself: no ports or files left, or an error of its own
===============  =======================================================================================
"""
FAILURES: Final = frozenset(get_args(OutcomeStatus)) - {"done", "stopped"}


class CallOutcome(Struct, frozen=True, kw_only=True):
    """One call. Times in milliseconds, of the call or of the generator's clock; ``_s`` in seconds."""

    number: int
    """Of the call in its load, from 1."""
    call_sid: str
    status: OutcomeStatus
    detail: str = ""
    """What went wrong, in a few words that are the same for all calls that it happened to."""
    ended_by: Literal["", "caller", "agent"] = ""
    dialled_s: float = 0.0
    """When it was dialled, since the load began."""
    duration_s: float = 0.0
    answer_ms: float | None = None
    """Webhook sent to TwiML received."""
    first_audio_ms: float | None = None
    """Webhook sent to the agent's first sound, if that came before the caller spoke."""
    turns: int = 0
    """Utterances that were said."""
    replies: int = 0
    """How many of them were answered."""
    reply_ms: tuple[float, ...] = ()
    """End of the caller's voice to the reply's first sound, for the last thousand replies."""
    dead_air: tuple[tuple[float, float], ...] = ()
    """Waits of more than two seconds: when they began, and how long they were, both in milliseconds."""
    heard_s: float = 0.0
    """Speech of the agent that was heard."""
    stretches: int = 0
    """Stretches of speech that were heard, each without a silence of 300 ms inside."""
    gaps: int = 0
    """Holes in what was heard: audio ran dry and went on within 400 ms."""
    own_gaps: int = 0
    """Holes that came while the generator was late itself."""
    streams: int = 0
    cuts: int = 0
    """Streams that broke or were closed with another code than 1000, also when the call went on."""
    close_code: int = 0
    """Of the last stream."""
    warnings: int = 0
    """What the carrier's debugger would show."""

    @property
    def failed(self) -> bool:
        """Whether it did not go as planned."""
        return self.status in FAILURES


class Verdict(Struct, frozen=True):
    """How a call went, and what went wrong."""

    status: OutcomeStatus
    detail: str = ""


def refused(exc: Refused) -> Verdict:
    """What a refused webhook means."""
    if exc.status:
        return Verdict("refused", f"webhook: HTTP {exc.status}" if not 200 <= exc.status < 300 else "webhook: no TwiML")
    own, what = connection_trouble(exc.__cause__)
    return Verdict("generator" if own else "refused", f"webhook: {what}")


def judge(
    *,
    verbs: Sequence[Verb],
    warnings: Sequence[Warned],
    streams: int,
    upgrade_status: int,
    media_error: BaseException | None,
    close_code: int,
    cut: bool,
    by_caller: bool,
    complete: bool,
    may_end: bool,
    unanswered: int,
    stopped: bool,
) -> Verdict:
    """How a call that was taken went.

    Args:
        verbs: The TwiML that was carried out.
        warnings: The carrier's debugger.
        streams: Media streams that were opened.
        upgrade_status: Of the newest handshake; 0 without an answer.
        media_error: Why the newest handshake had none.
        close_code: Of the newest stream.
        cut: The newest stream broke.
        by_caller: The caller ended the call.
        complete: He had done all that he was to do.
        may_end: All was said, and the last reply was heard at least in part.
        unanswered: Utterances that were not answered in time.
        stopped: The load was stopped during the call.
    """
    names = {verb.name for verb in verbs}
    if "Reject" in names:
        reason = next(verb.get("reason", "rejected") for verb in verbs if verb.name == "Reject")
        return Verdict("rejected", f"TwiML: Reject {reason}"[:60])
    if not by_caller and names & {"Say", "Play"}:
        return Verdict("said", "TwiML said something and ended the call")
    if not streams:
        if stopped:
            return Verdict("stopped")
        if any(warning.code == 31920 for warning in warnings):
            if upgrade_status:
                return Verdict("no_stream", f"media: HTTP {upgrade_status}")
            own, what = connection_trouble(media_error)
            return Verdict("generator" if own else "no_stream", f"media: {what}")
        return Verdict("no_stream", f"TwiML: {' '.join(sorted(names))[:60] or 'empty'}")
    if cut and not by_caller:
        return Verdict("cut", f"media socket closed with {close_code}")
    if unanswered:
        return Verdict("unanswered", "an utterance was not answered in time")
    if stopped:
        return Verdict("stopped")
    if by_caller:
        return Verdict("done") if complete else Verdict("not_ended", "not over when its longest time was")
    return Verdict("done") if may_end else Verdict("ended_early", "the agent ended the call before all was said")
