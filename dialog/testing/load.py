"""Simulated callers by the hundred: dials a gateway as Twilio does, and accounts for every call.

::

    load = Load(LoadPlan(url="http://127.0.0.1:8080/twilio", auth_token="…", calls=200, calls_per_s=10))
    report = await load.run()
    assert not report.void, report.void
    assert not report.broken([Limit.parse("failed>0"), Limit.parse("p95_reply_ms>1500")])

``python -m dialog load`` is this in a terminal. Several loads may run in one process at the same time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import ConfigurationError, StateError
from dialog.testing.load_dialler import Dialler
from dialog.testing.load_figures import Figures
from dialog.testing.load_fleet import Fleet
from dialog.testing.load_limits import FIGURE_NAMES, Limit
from dialog.testing.load_outcome import CallOutcome
from dialog.testing.load_plan import LoadPlan
from dialog.testing.load_report import LoadReport, void_reason
from dialog.testing.load_speech import prepare
from dialog.testing.voice import Voice

__all__ = ["FIGURE_NAMES", "CallOutcome", "Figures", "Limit", "Load", "LoadPlan", "LoadReport"]


class Load:
    """One load, run once.

    Args:
        plan: Whom to dial, how often, and what the callers do.
        say: Utterances, in turns: texts, which need a voice; mu-law audio at 8 kHz; WAV files. By default
            made-up sounds that have the level of speech: a recogniser by energy takes them for speech, one of
            words for nothing.
        voice: Speaks texts; espeak by default.
        clock: Real time, or a faster clock; the gateway needs one of the same scale. For one process.
        on_outcome: Given each call when it is over; it must not raise.
        keep: So many outcomes are kept for the report: the newest.
    """

    def __init__(
        self,
        plan: LoadPlan,
        *,
        say: Sequence[str | bytes | Path] = (),
        voice: Voice | None = None,
        clock: Clock = SYSTEM_CLOCK,
        on_outcome: Callable[[CallOutcome], object] | None = None,
        keep: int = 10_000,
    ) -> None:
        if plan.processes > 1 and clock is not SYSTEM_CLOCK:
            raise ConfigurationError("several processes run by the system's clock: another one is for one process")
        self.plan: LoadPlan = plan
        self._say = tuple(say)
        self._voice = voice
        self._clock = clock
        self._on_outcome = on_outcome
        self._outcomes: deque[CallOutcome] = deque(maxlen=keep)
        self._dialling: Dialler | Fleet | None = None
        self._begun = False
        self._stopped = False

    @property
    def figures(self) -> Figures:
        """The figures so far, as one looks at them."""
        return self._dialling.measure() if self._dialling is not None else Figures()

    @property
    def outcomes(self) -> tuple[CallOutcome, ...]:
        """The calls that are over."""
        return tuple(self._outcomes)

    def stop(self) -> None:
        """Dial no more and let everybody hang up; :meth:`run` returns soon. Idempotent."""
        self._stopped = True
        if self._dialling is not None:
            self._dialling.stop()

    async def run(self) -> LoadReport:
        """Dial, and return when the last call is over. Cancelling it ends all calls.

        Raises:
            StateError: It has been run already, or a process could not be started.
            ConfigurationError: Something that is to be said cannot be.
            MissingExtra: Text needs the ``local`` extra, or another ``voice``.
        """
        if self._begun:
            raise StateError("a load is run once: make another")
        self._begun = True
        audio = await prepare(self._say, self._voice)
        if self.plan.processes > 1:
            dialling: Dialler | Fleet = Fleet(self.plan, audio, on_outcome=self._over)
        else:
            dialling = Dialler(self.plan, audio, clock=self._clock, on_outcome=self._over)
        self._dialling = dialling
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        if self._stopped:
            dialling.stop()
        await dialling.run()
        figures = dialling.measure()
        return LoadReport(
            plan=self.plan,
            started_at=started_at,
            stopped=self._stopped,
            figures=figures,
            outcomes=self.outcomes,
            void=void_reason(figures, lost=dialling.lost if isinstance(dialling, Fleet) else 0),
        )

    def _over(self, outcome: CallOutcome) -> None:
        self._outcomes.append(outcome)
        if self._on_outcome is not None:
            self._on_outcome(outcome)
