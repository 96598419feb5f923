"""The other processes of a service: what is asked of them about their calls, and what they are answered.

A request lands in any process. What it may ask is checked there; what it is about is done where the call is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import UUID

from msgspec import Struct

from dialog.errors import RemoteProtocolError
from dialog.net.malformed import UNDECODABLE
from dialog.server.api import questions as q
from dialog.server.api.feeds import Batch, Feed, Followed, missed
from dialog.server.api.problems import Problem
from dialog.server.api.types import CallView
from dialog.server.config import ApiToken
from dialog.server.limits import Stamp
from dialog.voip.peers import MediaEnd, MediaWire, PeerLost, Peers

if TYPE_CHECKING:
    from dialog.server.api.core import Api

__all__ = ["Elsewhere", "Owner"]

logger = logging.getLogger(__name__)

_LIST_S: Final = 2.0
"""How long all of them may take to answer; whoever does not is left out."""
_FIND_S: Final = 0.5
_COUNT_S: Final = 0.3
"""The same while a caller waits."""
_LEAVE_S: Final = 0.5
_SOON: Final = (("Retry-After", "1"),)
_ANY: Final = UUID(int=0)

AnswerT = TypeVar("AnswerT", bound=q.Answer)


class Owner(Struct, frozen=True):
    """Who has a call."""

    node: str = ""
    """Empty: it is here, or nowhere."""
    sure: bool = True
    """All others have said whether they have it."""

    def missing(self, problem: Problem) -> Problem:
        """What is told to whoever asked, if the call is not here: perhaps it is with somebody who does not answer."""
        if self.sure or problem.status != 404:
            return problem
        return Problem(503, "a process of the service does not answer: it may have this call", _SOON)


class Elsewhere:
    """Asks the other processes, and answers them; without peers there are none."""

    def __init__(self, api: Api, holds: Callable[[UUID], bool], counts: Callable[[Stamp], dict[str, int]]) -> None:
        self.peers: Peers | None = None
        self._api = api
        self._holds = holds
        self._counts = counts
        self._counted: dict[str, dict[str, int]] = {}
        """What each of them said last."""
        self._followed: dict[int, Followed] = {}
        self._numbers = count(1)

    async def start(self) -> None:
        """Answer the others from here on."""
        if self.peers is not None:
            await self.peers.start(self)

    async def close(self) -> None:
        """Answer nobody any more; calling it again is harmless."""
        for followed in tuple(self._followed.values()):
            followed.close()
        if self.peers is not None:
            await self.peers.close()

    # What we ask.

    @property
    def others(self) -> AbstractSet[str]:
        """Those that are there."""
        return self.peers.others if self.peers is not None else frozenset()

    async def owner(self, call_id: UUID) -> Owner:
        """Which of the others has a call."""
        if self._holds(call_id):
            return Owner()
        answers = await self._everybody(q.Has(call_id), q.Here, _FIND_S)
        node = min((node for node, answer in answers.items() if answer.here), default="")
        return Owner(node, sure=self.others <= answers.keys())

    async def do(self, node: str, call_id: UUID, wanted: q.Do) -> q.Answered | None:
        """Let the owner of a call do something with it; ``None``: it is gone, and its calls with it.

        Raises:
            Problem: It cannot be done, or the owner does not answer.
        """
        return await self._of_owner(node, call_id, wanted, q.Answered)

    async def place(self, call_id: UUID, token: str) -> q.Before | None:
        """The place in lists of a call that one of the others has; ``None``: none has it.

        Raises:
            Problem: The token may not see it, or its owner does not answer.
        """
        owner = await self.owner(call_id)
        if not owner.node:
            return None
        found = await self._of_owner(owner.node, call_id, q.Whereabouts(call_id, token), q.Listed)
        return None if found is None else found.calls[0][0]

    async def listed(self, wanted: q.Listing) -> tuple[list[tuple[q.Before, CallView]], bool]:
        """The calls of all the others, each with its place; and whether all of them have answered."""
        answers = await self._everybody(wanted, q.Listed, _LIST_S)
        return [each for answer in answers.values() for each in answer.calls], self.others <= answers.keys()

    async def counts(self, stamp: Stamp) -> Mapping[str, int]:
        """How many calls of each tenant the others have; of one that does not answer what it had before."""
        answers = await self._everybody(q.Counts(stamp), q.Counted, _COUNT_S)
        self._counted.update((node, answer.counts) for node, answer in answers.items())
        self._counted = {node: counts for node, counts in self._counted.items() if node in self.others}
        together = Counter[str]()
        for counts in self._counted.values():
            together.update(counts)
        return together

    async def follow_call(self, node: str, call_id: UUID, token: str) -> Feed | None:
        """The events of a call from its owner, up to its end; ``None``: it is gone, and its calls with it.

        The feed raises PeerLost.

        Raises:
            Problem: There is no such call, it has ended, or its owner does not answer.
        """
        kept = await self._of_owner(node, call_id, q.Follow(call_id, token), q.Followed)
        return None if kept is None else self._read(node, kept.reader)

    async def follow(self, node: str, token: str) -> Feed:
        """The events of all calls of one of the others. Raises PeerLost, as the feed does."""
        kept = await self._ask(node, _ANY, q.Follow(None, token), q.Followed)
        return self._read(node, kept.reader)

    async def _read(self, node: str, reader: int) -> Feed:
        number = 0
        try:
            yield None
            over = False
            while not over:
                number += 1
                batch = await self._batch(node, q.Next(reader, number))
                for told in batch.told or (None,):
                    yield told
                over = batch.over
        finally:
            with suppress(PeerLost, Problem, TimeoutError):
                async with asyncio.timeout(_LEAVE_S):
                    await self._ask(node, _ANY, q.Leave(reader), q.Answered)

    async def _batch(self, node: str, wanted: q.Next) -> Batch:
        try:
            return (await self._ask(node, _ANY, wanted, q.Batches)).batch
        except PeerLost:
            if node not in self.others:
                raise
            # The question or the answer was lost: it has kept what it told last.
            return (await self._ask(node, _ANY, wanted, q.Batches)).batch

    async def _of_owner(self, node: str, call_id: UUID, question: q.Question, kind: type[AnswerT]) -> AnswerT | None:
        try:
            return await self._ask(node, call_id, question, kind)
        except PeerLost as exc:
            logger.warning("%s", exc)
            if node not in self.others:
                return None
            raise Problem(503, "the process that has this call does not answer", _SOON) from exc

    async def _everybody(self, question: q.Question, kind: type[AnswerT], within_s: float) -> dict[str, AnswerT]:
        asked = {
            asyncio.create_task(self._ask(node, _ANY, question, kind), name=f"ask {node}"): node for node in self.others
        }
        if not asked:
            return {}
        try:
            done, _ = await asyncio.wait(asked, timeout=within_s)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.wait(asked)
        answers: dict[str, AnswerT] = {}
        for task in done:
            error = task.exception()
            if error is None:
                answers[asked[task]] = task.result()
            else:
                logger.warning("process %s: %s", asked[task], error)
        late = [node for task, node in asked.items() if task not in done]
        if late:
            logger.warning("did not answer within %g s: %s", within_s, ", ".join(late))
        return answers

    async def _ask(self, node: str, call_id: UUID, question: q.Question, kind: type[AnswerT]) -> AnswerT:
        assert self.peers is not None
        try:
            answer = q.decode_answer(await self.peers.ask(node, call_id, q.encode(question)))
        except UNDECODABLE as exc:
            raise PeerLost(f"process {node} answers in a way that is not understood: {exc}") from exc
        if isinstance(answer, q.Refused):
            raise Problem(answer.status, answer.detail, tuple(answer.headers))
        if not isinstance(answer, kind):
            raise PeerLost(f"process {node} answered {type(answer).__name__} to {type(question).__name__}")
        return answer

    # What we are asked.

    def holds(self, call_id: UUID) -> bool:
        """See :class:`~dialog.voip.peers.Owner`."""
        return self._holds(call_id)

    async def answer(self, request: bytes) -> bytes:
        """See :class:`~dialog.voip.peers.Owner`."""
        try:
            question = q.decode_question(request)
        except UNDECODABLE as exc:
            raise RemoteProtocolError(f"a process asks what is not understood: {exc}") from exc
        try:
            return q.encode(await self._answer(question))
        except Problem as problem:
            return q.encode(q.Refused(problem.status, str(problem), list(problem.headers)))

    def join_relayed(self, opening: bytes, wire: MediaWire) -> MediaEnd:
        """See :class:`~dialog.voip.peers.Owner`."""
        del opening, wire
        raise RemoteProtocolError("the REST API has no media sockets")

    async def _answer(self, question: q.Question) -> q.Answer:
        match question:
            case q.Do():
                return await self._api.do(question, self._token(question.token))
            case q.Has():
                return q.Here(self._holds(question.call_id))
            case q.Listing():
                return q.Listed(self._api.handlers.listed(question, self._token(question.token)))
            case q.Whereabouts():
                return q.Listed([self._api.handlers.placed(question.call_id, self._token(question.token))])
            case q.Counts():
                return q.Counted(self._counts(question.stamp))
            case q.Follow():
                return q.Followed(self._keep(question))
            case q.Next():
                followed = self._followed.get(question.reader)
                batch = Batch([missed()], over=True) if followed is None else await followed.batch(question.number)
                return q.Batches(batch)
            case q.Leave():
                followed = self._followed.get(question.reader)
                if followed is not None:
                    followed.close()
                return q.Answered(204, b"", [])

    def _keep(self, question: q.Follow) -> int:
        token = self._token(question.token)
        if question.call_id is not None:
            self._api.handlers.check_live(token, question.call_id)
        if len(self._followed) >= self._api.settings.max_feeds * max(1, len(self.others)):
            raise Problem(429, "too many streams of events are open", (("Retry-After", "30"),))
        number = next(self._numbers)
        self._followed[number] = Followed(
            self._api.reader(question.call_id),
            lambda call: self._api.handlers.may_see(token, call),
            lambda: self._followed.pop(number, None),
        )
        return number

    def _token(self, name: str) -> ApiToken:
        token = next((each for each in self._api.settings.tokens if each.name == name), None)
        if token is None:
            raise Problem(403, f"the process that has this call does not know the token {name!r}")
        return token
