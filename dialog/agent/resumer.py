"""Goes on with a call after an outage, of its process or of its line: does what :mod:`dialog.agent.resume` finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol
from uuid import UUID

from msgspec.structs import replace

from dialog.agent.draft import Draft
from dialog.agent.endings import Transfer
from dialog.agent.history import UNKNOWN, History
from dialog.agent.resume import NOTE, Rest, Resumption, Unheard, rest_of, resume
from dialog.agent.scribe import Scribe
from dialog.agent.speech import PartOptions, Speech
from dialog.agent.toolrunner import ToolRunner
from dialog.agent.turn import Turn
from dialog.calls import events as ev
from dialog.calls.checkpoint import Checkpoint, Ending
from dialog.llm.llm import ToolCall
from dialog.message import Utterance
from dialog.voip.voip import VoIP

__all__ = ["Engine", "Host", "Resumer"]

_PLAIN = PartOptions()


class Engine(Protocol):
    """What going on needs of the engine."""

    def catch_up(self, at_ms: float, spent: Iterable[tuple[UUID, int]]) -> None: ...  # noqa: D102
    def resume(self, live_s: float | None, waiting: tuple[Utterance, ...], *, warned: bool) -> None: ...  # noqa: D102
    def finished(self, uuid: UUID, draft: Draft) -> Turn: ...  # noqa: D102
    def close(self, turn: Turn) -> None: ...  # noqa: D102

    def dispatch_message(
        self, text: str, options: PartOptions, *, greeting: bool = False, goes_on: UUID | None = None
    ) -> Speech:
        """Say ``text``, which is what was not heard of the turn ``goes_on``."""
        ...


class Host(Protocol):
    """What going on needs of the conversation."""

    voip: VoIP
    history: History

    @property
    def elapsed_s(self) -> float:
        """Seconds since an agent took the call."""
        ...

    def happened(self, event: Callable[..., Any], **fields: Any) -> int:
        """Note an event of the call."""
        ...

    def ask(self) -> None:
        """Let the agent say something by itself, as soon as there is room."""
        ...

    def end_after(self, reason: str, transfer: Transfer | None = None) -> None:
        """End the call, or transfer it, once what is said was heard."""
        ...


class Resumer:
    """Lets a conversation go on, in two steps: what is known, and then what is to be done.

    Every step is told the journal before it is done, and in such an order that this process, too, may die
    between any two of them.
    """

    def __init__(
        self, host: Host, engine: Engine, scribe: Scribe, tools: ToolRunner, *, agent: str, has_model: bool
    ) -> None:
        self._host = host
        self._engine = engine
        self._scribe = scribe
        self._tools = tools
        self._agent = agent
        self._has_model = has_model
        self._found: Resumption | None = None

    def begin(self, checkpoint: Checkpoint) -> None:
        """Fill the history, and tell what is known."""
        host, voip = self._host, self._host.voip
        found = self._found = resume(
            checkpoint,
            voip.snapshot,
            host.history,
            sounds=voip.medium == "audio",
            has_model=self._has_model,
            may_repeat=self._tools.may_repeat,
        )
        self._engine.catch_up(voip.snapshot.at_ms, found.spent)
        self._scribe.watch(host.history)
        host.happened(
            ev.CallResumed,
            agent=self._agent,
            lost_s=round(host.elapsed_s - checkpoint.elapsed_s, 4),
            unanswered=len(found.questions),
            in_doubt=tuple(call.name for call in (*[u.call for u in found.unknown], *[d.call for d in found.again])),
        )
        for turn, part, heard, state, heard_ms in found.ended:
            host.happened(
                ev.AgentSaid,
                turn=turn,
                part=part.number,
                text=part.text,
                heard=heard,
                state=state,
                heard_ms=heard_ms,
                filler=part.filler,
            )
        for doubt in found.unknown:
            call = doubt.call
            host.happened(
                ev.ToolEnded,
                turn=doubt.turn,
                call_id=call.call_id,
                name=call.name,
                result=UNKNOWN,
                state="unknown",
                took_s=0.0,
            )

    def go_on(self, checkpoint: Checkpoint, *, says_rest: bool = True) -> None:
        """Say what is still to be said, unless somebody begins anew; answer what waits, run what may be run again."""
        found = self._found
        assert found is not None
        answering = bool(found.questions)
        for rest in found.rests if says_rest else ():
            if not (answering and rest.begun and rest.allow_interrupt):  # the caller has gone on meanwhile
                self._say(rest)
        for turn, draft, owed in found.settled:
            self._scribe.settled(draft, turn, owed=owed)
        if self._host.history.blocks()[:1] != tuple(block.items for block in checkpoint.history[:1]):
            self._scribe.rewritten()  # it begins with other instructions
        for doubt in found.again:
            call = ToolCall(id=doubt.call.call_id, name=doubt.call.name, arguments=doubt.call.arguments)
            self._tools.again(self._engine.finished(doubt.turn, doubt.draft), call, doubt.call.key)
        live_s = None if checkpoint.live_s is None else self._host.elapsed_s - checkpoint.live_s
        waiting = tuple(
            Utterance(
                uuid=each.turn,
                data=each.text,
                at_ms=each.start_ms,
                end_ms=each.end_ms,
                speaker=each.speaker or None,
            )
            for each in found.questions
        )
        self._engine.resume(live_s, waiting, warned=checkpoint.warned)
        if found.owed and self._has_model and not answering:
            if any(settled.owed for settled in found.settled):
                self._host.history.system(NOTE)
            self._host.ask()
        if checkpoint.ending is not None:
            self._end(checkpoint.ending)

    def say_rest(self, turn: Turn) -> None:
        """The line is back that broke ``turn`` off: say what was not heard of it, or let the model go on."""
        parts = [part for part in turn.speech.parts if not part.options.filler and not part.heard_whole]
        asked = bool(turn.utterances) or turn.reply is not None
        # Of a tool that is still at work the model tells by itself, once that has ended.
        owed = asked and not turn.written and self._has_model and not self._tools.works_for(turn)
        if owed:
            self._scribe.settled(None, turn.uuid, owed=True)
            self._engine.close(turn)
            self._host.history.system(NOTE)
            self._host.ask()
            return
        left = [
            Unheard(part.speech.text, part.heard_text(), part.allow_interrupt, part.options.repeats) for part in parts
        ]
        rest = rest_of(turn.uuid, left, greeting=turn.greeting, begun=turn.heard, sentence=True)
        try:
            if rest is not None:
                self._say(rest, parts[0].options)
        finally:
            self._engine.close(turn)

    def _say(self, rest: Rest, options: PartOptions = _PLAIN) -> None:
        options = replace(
            options, allow_interrupt=rest.allow_interrupt, repeats=rest.repeats, paraphrase=True, model=False
        )
        self._engine.dispatch_message(rest.text, options, greeting=rest.greeting, goes_on=rest.turn)

    def _end(self, ending: Ending) -> None:
        transfer = Transfer(ending.tel, ending.back_within_s, ending.summary) if ending.tel else None
        self._host.end_after(ending.reason, transfer)
