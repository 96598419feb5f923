"""The calls of the other processes of a service, as one page of the console is told of them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from dialog.calls import events as ev
from dialog.message import CallMetadata
from dialog.server.api.core import Api
from dialog.server.api.feeds import Feed, everywhere
from dialog.server.api.problems import Problem
from dialog.server.api.questions import Listing
from dialog.server.api.types import CallView
from dialog.server.config import ApiToken
from dialog.server.console.board import Board, Row
from dialog.voip.peers import PeerLost

__all__ = ["Neighbours", "metadata_of"]

logger = logging.getLogger(__name__)

_MOST: Final = 1000
_AGAIN_S: Final = 1.0
_decode: Final[msgspec.json.Decoder[ev.CallEvent]] = msgspec.json.Decoder(ev.CallEvent)


class _Named(Struct):
    call_id: UUID


_named: Final = msgspec.json.Decoder(_Named)


class Neighbours:
    """Follows the events of the other processes, with the rights of a token.

    Args:
        api: Of this process, which reaches the others.
        token: Whose page it is.
    """

    def __init__(self, api: Api, token: ApiToken) -> None:
        self.board: Board = Board(lambda _: None)
        self._api = api
        self._token = token

    async def run(self) -> None:
        """Follow them until cancelled; without other processes this ends at once."""
        peers = self._api.elsewhere.peers
        if peers is None:
            return
        while True:
            try:
                feed = everywhere(_nothing(), peers, lambda node: self._api.elsewhere.follow(node, self._token.name))
                async with aclosing(feed):
                    await anext(feed)
                    there = await self._look()
                    async for told in feed:
                        if not there <= peers.others:  # of the calls of one that is gone nobody tells
                            there = await self._look()
                        there |= peers.others
                        if told is not None and told.seq >= 0:
                            self._take(told.body)
            except (PeerLost, Problem) as exc:
                logger.warning("the calls of other processes cannot be had: %s", exc)
            await asyncio.sleep(_AGAIN_S)  # something was missed: look again

    async def _look(self) -> set[str]:
        """What goes on there now; who was asked."""
        there = set(self._api.elsewhere.others)
        found, complete = await self._api.elsewhere.listed(Listing("live", _MOST, None, self._token.name))
        calls = {view.call_id: view for _, view in found}
        for call_id in [call_id for call_id in self.board.rows if complete and call_id not in calls]:
            self.board.forget(call_id)
        for view in calls.values():
            row = self.board.rows.get(view.call_id) or Row(metadata_of(view), view.tenant)
            row.agent, row.state = view.agent, view.state
            row.started = datetime.fromisoformat(view.started_at).timestamp() if view.started_at else row.started
            self.board.put(row)
        return there

    def _take(self, body: bytes) -> None:
        try:
            call_id, event = _named.decode(body).call_id, _decode.decode(body)
        except msgspec.MsgspecError as exc:
            logger.debug("an event of a newer process: %s", exc)
            return
        row = self.board.get(call_id)
        if row is not None:
            self.board.take(row.call, event)
        elif isinstance(event, ev.CallStarted):
            call = CallMetadata(
                call_id=call_id,
                carrier=event.carrier,
                carrier_call_id=event.carrier_call_id,
                from_=event.from_,
                to=event.to,
                direction="outbound" if event.direction == "outbound" else "inbound",
            )
            self.board.take(call, event)


def metadata_of(view: CallView) -> CallMetadata:
    """A call as the REST API shows it."""
    return CallMetadata(
        call_id=view.call_id,
        carrier=view.carrier,
        carrier_call_id=view.carrier_call_id,
        from_=view.from_,
        to=view.to,
        direction="outbound" if view.direction == "outbound" else "inbound",
    )


async def _nothing() -> Feed:
    """Our own calls come another way."""
    yield None
