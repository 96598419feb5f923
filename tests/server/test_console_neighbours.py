"""What a page of the console is told of other processes, where nobody tells."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from uuid import uuid4

from service_line import SECRET
from twilio_phone import until

from dialog.server.api import feeds
from dialog.server.api.types import CallView
from dialog.server.config import ApiToken
from dialog.server.console.neighbours import Neighbours
from dialog.voip.peers import PeerLost


class Others:
    """The other processes, each with a call; and what a page asks of them."""

    def __init__(self, *names: str) -> None:
        self.calls = {name: a_call() for name in names}
        self.silent: set[str] = set()
        self.peers = self
        self._died = {name: asyncio.Event() for name in names}

    @property
    def others(self) -> set[str]:
        return set(self.calls)

    def watch(self, told):
        return lambda: None

    def dies(self, name: str) -> None:
        del self.calls[name]
        self._died[name].set()

    async def follow(self, node, token):
        async def feed():
            yield None
            await self._died[node].wait()
            raise PeerLost(f"{node} is gone")

        return feed()

    async def listed(self, wanted):
        found = [((0.0, view.call_id), view) for name, view in self.calls.items() if name not in self.silent]
        return found, not self.silent


def a_call() -> CallView:
    return CallView(
        call_id=uuid4(),
        state="live",
        tenant="main",
        carrier="twilio",
        carrier_call_id="CA1",
        from_="+15550100",
        to="+15550123",
        direction="inbound",
        agent="desk",
        started_at="",
        duration_s=1.0,
        end_reason="",
        end_detail="",
    )


async def test_the_calls_of_a_process_that_died_are_shown_no_more_and_those_of_a_slow_one_are(monkeypatch) -> None:
    monkeypatch.setattr(feeds, "_ALIVE_S", 0.02)
    others = Others("one", "two")
    gone, stays = (view.call_id for view in others.calls.values())
    neighbours = Neighbours(SimpleNamespace(elsewhere=others), ApiToken(name="tests", token=SECRET))
    following = asyncio.create_task(neighbours.run())
    try:
        await until(lambda: set(neighbours.board.rows) == {gone, stays})
        others.dies("one")
        await until(lambda: set(neighbours.board.rows) == {stays})
        others.silent.add("two")
        await neighbours._look()
        assert set(neighbours.board.rows) == {stays}
    finally:
        following.cancel()
        await asyncio.wait((following,))
