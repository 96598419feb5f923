"""Whatever the order of events: what turn taking promises."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from dialog.agent.turns import BACKCHANNELS, BargeIn, Endpointing, Silence, TurnSettings, TurnTaking
from dialog.agent.turns.signals import (
    Aborted,
    Backchannel,
    Close,
    Cut,
    Digit,
    Discarded,
    Drop,
    Eager,
    EagerWithdrawn,
    End,
    EndCancelled,
    EndRequested,
    Final,
    Idle,
    Infer,
    Interim,
    LineDown,
    LineUp,
    Overflow,
    PartOpened,
    Pause,
    Played,
    Promote,
    ReplyEnded,
    Resume,
    SayRequested,
    Speak,
    SpeechStarted,
    SpeechStopped,
    Tick,
    ToolEnded,
    ToolStarted,
    TurnJudged,
    Unanswered,
)
from dialog.message import Playback, Utterance

TEXTS = ("book a table", "my number is", "oh seven seven", "yeah", "uh-huh okay", "bye", "and", "um", "stop that")
BARGE_INS = [
    None,
    BargeIn(mode="disabled"),
    BargeIn(mode="after_sentence"),
    BargeIn(min_words=2, min_speech_ms=300, backchannels=BACKCHANNELS),
]
ENDPOINTINGS = [None, Endpointing(mode="local"), Endpointing(mode="provider", unfinished_s=2.0)]

turn_settings = st.builds(
    TurnSettings,
    barge_in=st.sampled_from([barge_in or BargeIn() for barge_in in BARGE_INS]),
    greeting=st.sampled_from(BARGE_INS),
    thinking=st.sampled_from(BARGE_INS),
    endpointing=st.builds(
        Endpointing,
        mode=st.sampled_from(["auto", "provider", "local"]),
        speculate_after_s=st.sampled_from([None, 0.2]),
        turn_model=st.sampled_from([None, lambda _: 0.3, lambda _: 1 / 0]),
    ),
    silence=st.builds(
        Silence,
        idle_s=st.sampled_from([None, 4.0]),
        idle_count=st.integers(0, 2),
        max_duration_s=st.sampled_from([None, 30.0]),
    ),
)


class Engine:
    """Does what it is told, at random moments, and checks the promises."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.taking = TurnTaking(data.draw(turn_settings))
        self.now = 0.0
        self.minted = 0
        self.unanswered: dict[UUID, str] = {}
        """What the STT called final and nobody answered yet."""
        self.answering: dict[UUID, tuple[Utterance, ...]] = {}
        self.live: dict[UUID, set[int]] = {}
        """Turns that may still report, and their open parts."""
        self.speculative: set[UUID] = set()
        self.dropped: set[UUID] = set()
        self.says: set[UUID] = set()
        self.floor: UUID | None = None
        self.cut: set[UUID] = set()
        self.complete: set[UUID] = set()
        """Turns whose reply has ended."""
        self.paused: UUID | None = None
        self.saying: UUID | None = None
        """The utterance that the STT is working on."""
        self.tools: list[str] = []
        self.ended = False

    def mint(self) -> UUID:
        self.minted += 1
        return UUID(int=self.minted)

    def feed(self, signal) -> None:
        for decision in self.taking.feed(signal, self.now):
            self.do(decision)
        if self.paused is not None:
            assert self.taking.turn == self.paused, "only the turn that has the floor is paused"
            assert self.taking.deadline is not None, "and not for ever"
        if isinstance(signal, Tick):
            deadline = self.taking.deadline
            assert deadline is None or deadline > self.now, "a tick makes progress"

    def do(self, decision) -> None:
        assert not isinstance(decision, Overflow), "these few words never overflow"
        if isinstance(decision, Infer):
            assert decision.turn == decision.utterances[-1].uuid
            assert decision.turn not in self.speculative
            self.dropped.discard(decision.turn)
            if decision.speculative:
                assert not self.speculative, "one speculation at a time"
                self.speculative.add(decision.turn)
            else:
                self.answer(decision.turn, decision.utterances)
                self.grant(decision.turn)
            self.live[decision.turn] = set()
            self.complete.discard(decision.turn)
        elif isinstance(decision, Promote):
            assert decision.turn in self.speculative, "only what was prepared is promoted"
            self.speculative.discard(decision.turn)
            self.answer(decision.turn, decision.utterances)
            self.grant(decision.turn)
            self.retire(decision.turn)
        elif isinstance(decision, Speak):
            assert decision.turn in self.says
            self.says.discard(decision.turn)
            self.grant(decision.turn)
            self.live[decision.turn] = set()
        elif isinstance(decision, Drop):
            self.drop(decision.turn)
        elif isinstance(decision, Cut):
            assert decision.turn == self.floor, "only the turn that has the floor is cut"
            self.cut.add(decision.turn)
        elif isinstance(decision, Pause):
            assert self.paused is None
            assert decision.turn == self.floor
            self.paused = decision.turn
        elif isinstance(decision, Resume):
            assert self.paused == decision.turn
            self.paused = None
        elif isinstance(decision, Backchannel):
            del self.unanswered[decision.utterance.uuid]
        elif isinstance(decision, Unanswered):
            for utterance in decision.utterances:
                del self.unanswered[utterance.uuid]
        elif isinstance(decision, End):
            self.ended = True
        elif isinstance(decision, Idle):
            assert self.floor not in self.live or self.floor in self.cut
            assert not self.tools

    def answer(self, turn: UUID, utterances: tuple[Utterance, ...]) -> None:
        for utterance in utterances:
            assert utterance.uuid in self.unanswered, "an utterance is answered once"
            del self.unanswered[utterance.uuid]
        self.answering[turn] = utterances

    def grant(self, turn: UUID) -> None:
        assert not self.ended or turn not in self.answering, "nothing is answered while the call ends"
        assert turn not in self.dropped, "what was dropped is not spoken"
        if self.floor is not None and self.floor != turn:
            over = self.floor not in self.live or self.floor in self.cut or self.floor in self.dropped
            assert over, "two replies at once"
        self.floor = turn
        self.cut.discard(turn)

    def drop(self, turn: UUID) -> None:
        self.says.discard(turn)
        if turn in self.speculative:
            self.speculative.discard(turn)
        else:
            for utterance in self.answering.pop(turn, ()):
                self.unanswered[utterance.uuid] = utterance.data
        if self.floor == turn:
            self.floor = None
        self.live.pop(turn, None)
        self.dropped.add(turn)

    def end_turn(self, turn: UUID) -> None:
        """The reply comes to its end and is heard."""
        parts = sorted(self.live.get(turn, ()))
        self.reply_ended(turn)
        for part in parts:
            self.finish(turn, part, "cut" if turn in self.cut else "played")

    def reply_ended(self, turn: UUID) -> None:
        self.complete.add(turn)
        self.retire(turn)
        self.feed(ReplyEnded(turn))

    def retire(self, turn: UUID) -> None:
        if turn in self.complete and turn not in self.speculative and not self.live.get(turn):
            self.live.pop(turn, None)

    def finish(self, turn: UUID, part: int, state) -> None:
        if part not in self.live.get(turn, ()):
            return  # dropped meanwhile
        self.live[turn].discard(part)
        self.retire(turn)
        self.feed(Played(Playback(uuid=turn, part=part, state=state, heard_ms=900), words=True))

    def text(self) -> str:
        return self.data.draw(st.sampled_from(TEXTS))

    def words(self) -> Utterance:
        if self.saying is None:
            self.saying = self.mint()
        return Utterance(uuid=self.saying, data="interim")

    def step(self) -> None:
        self.now += self.data.draw(st.sampled_from([0.0, 0.0, 0.05, 0.3, 1.0, 6.0]))
        choice = self.data.draw(st.integers(0, 23))
        turns = sorted(self.live) if self.live else []
        if choice <= 2:
            utterance = Utterance(uuid=self.saying or self.mint(), data=self.text())
            self.saying = None
            self.unanswered[utterance.uuid] = utterance.data
            self.feed(Final(utterance, complete=self.data.draw(st.booleans())))
        elif choice == 3:
            self.feed(Interim(self.words()))
        elif choice == 4:
            self.feed(SpeechStarted(age_s=self.data.draw(st.sampled_from([0.0, 0.0, 3.0]))))
        elif choice == 5:
            self.feed(SpeechStopped())
        elif choice == 6:
            wish = self.mint()
            self.says.add(wish)
            self.feed(SayRequested(wish, self.data.draw(st.booleans())))
        elif choice <= 9 and turns:
            turn = self.data.draw(st.sampled_from(turns))
            part = len(self.live[turn])
            if turn not in self.cut and turn not in self.complete and part not in self.live[turn]:
                self.live[turn].add(part)
                self.feed(
                    PartOpened(
                        turn,
                        part,
                        self.data.draw(st.booleans()),
                        self.data.draw(st.sampled_from(BARGE_INS)),
                        self.data.draw(st.sampled_from(ENDPOINTINGS)),
                        self.data.draw(st.booleans()),
                    )
                )
        elif choice == 10 and self.floor in self.live:
            heard = self.data.draw(st.booleans())
            self.feed(Played(Playback(uuid=self.floor, part=0, state="playing", heard_ms=300), words=heard))
        elif choice == 11 and self.floor in self.live and self.live[self.floor]:
            self.finish(self.floor, min(self.live[self.floor]), self.data.draw(st.sampled_from(["played", "lost"])))
        elif choice == 12 and turns:
            turn = self.data.draw(st.sampled_from(turns))
            self.reply_ended(turn)
        elif choice == 13 and self.floor in self.live:
            self.end_turn(self.floor)
        elif choice == 14:
            self.feed(Eager(self.words()))
        elif choice == 15 and self.saying is not None:
            self.feed(EagerWithdrawn(self.saying))
        elif choice == 16 and self.saying is not None:  # the eager end was right
            utterance = Utterance(uuid=self.saying, data="interim")
            self.saying = None
            self.unanswered[utterance.uuid] = utterance.data
            self.feed(Final(utterance))
        elif choice == 17:
            self.feed(LineUp() if self.data.draw(st.booleans()) else LineDown())
        elif choice == 18:
            self.feed(Digit("5"))
        elif choice == 19:
            if self.tools and self.data.draw(st.booleans()):
                self.feed(ToolEnded(self.tools.pop()))
            else:
                self.tools.append(f"call {len(self.tools)}")
                self.feed(ToolStarted(self.tools[-1]))
        elif choice == 20:
            turn = self.data.draw(st.sampled_from([None, *turns]))
            self.feed(EndRequested("agent_hangup", turn))
        elif choice == 21:
            self.feed(self.data.draw(st.sampled_from([Aborted(), Discarded(), TurnJudged(0.1), TurnJudged(0.9)])))
        elif choice == 22:
            self.ended = False
            self.feed(EndCancelled())
        else:
            self.tick()

    def tick(self) -> None:
        if self.taking.deadline is not None:
            self.now = max(self.now, self.taking.deadline)
        self.feed(Tick())

    def settle(self) -> None:
        """Let everything in progress come to its end: the agent must be listening again."""
        self.feed(LineUp())
        self.feed(SpeechStopped())
        for _ in range(120):
            turn = self.taking.turn
            if turn is not None:
                self.end_turn(turn)
            if self.ended:
                self.ended = False
                self.feed(EndCancelled())
            if self.taking.listening and not self.unanswered and not self.says and self.paused is None:
                assert not self.speculative
                return
            self.now += 0.1
            self.tick()
        raise AssertionError("never listening again")


@settings(max_examples=500)
@given(st.data())
def test_no_utterance_is_lost_and_the_agent_always_listens_again(data):
    engine = Engine(data)
    for _ in range(data.draw(st.integers(1, 40))):
        engine.step()
    engine.settle()


@settings(max_examples=200)
@given(st.data())
def test_the_end_of_the_call_leaves_nothing_open(data):
    engine = Engine(data)
    for _ in range(data.draw(st.integers(1, 40))):
        engine.step()
    engine.feed(Close())
    assert engine.paused is None
    assert engine.unanswered == {}
    assert not engine.speculative
    assert not engine.says
    assert engine.taking.deadline is None
    engine.feed(Final(Utterance(uuid=UUID(int=0), data="hello")))
