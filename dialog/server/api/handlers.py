"""What the operations of the REST API do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from dialog.errors import StateError
from dialog.message import CallMetadata
from dialog.server.api.operations import Asked
from dialog.server.api.problems import Problem
from dialog.server.api.questions import Before, Do, Listing
from dialog.server.api.types import (
    CallDetail,
    CallList,
    CallStarted,
    CallView,
    ClientToken,
    Recording,
    RecordingList,
    SentMessage,
    Status,
    Transcript,
)
from dialog.server.config import ApiToken
from dialog.server.live import Session, Spoken, spoken_in
from dialog.voip.answering import MachineDetection
from dialog.voip.voip import VoIP

if TYPE_CHECKING:
    from dialog.calls.store.reading import CallRecord
    from dialog.server.service import Service

__all__ = ["Handlers"]

_NO_CALL = "there is no call of this id"


class Handlers:
    """One method per operation, named as it is; each returns what the operation's ``result`` says."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def root(self, asked: Asked) -> Status:
        """See :data:`~dialog.server.api.operations.OPERATIONS`, as for all of these."""
        del asked
        return Status(status="ok")

    async def start_call(self, asked: Asked) -> CallStarted:
        """Place a call."""
        from dialog.server.service import SessionRefused, Unknown

        start, token, detection = asked.body, asked.token, asked.body.machine_detection
        try:
            call_id = await self._service.place(
                assistant=start.assistant_id,
                number=start.phone_number_id,
                to=start.customer.number,
                context=start.context,
                machine_detection=None if detection is None else MachineDetection(**msgspec.structs.asdict(detection)),
                allowed=lambda tenant: _may_use(token, tenant),
            )
        except Unknown as exc:
            raise Problem(404, str(exc)) from exc
        except SessionRefused as exc:
            raise Problem(403, str(exc)) from exc
        except StateError as exc:
            raise Problem(503, str(exc), (("Retry-After", "5"),)) from exc
        return CallStarted(status="initiated", call_id=call_id)

    async def list_calls(self, asked: Asked) -> CallList:
        """Live ones, or those that have ended."""
        query, token, log = asked.query, asked.token, self._service.log
        if query.state == "ended" and log is not None:
            last = None if query.before is None else await log.call(query.before)
            if query.before is not None and (last is None or not _may_use(token, last.tenant)):
                raise Problem(404, _NO_CALL)
            tenants = () if token is None else token.tenants
            records = await log.calls(live=False, tenants=tenants, limit=query.limit, before=last)
            return CallList(calls=[_of_record(each) for each in records])
        before: Before | None = None
        if query.before is not None:
            before = await self._before(query.before, token)
        wanted = Listing(query.state, query.limit, before, "" if token is None else token.name)
        others, complete = await self._service.api.elsewhere.listed(wanted)
        found = sorted([*self.listed(wanted, token), *others], key=itemgetter(0), reverse=True)
        return CallList(calls=[view for _, view in found[: query.limit]], complete=complete)

    def listed(self, wanted: Listing, token: ApiToken | None) -> list[tuple[Before, CallView]]:
        """The calls of this process, newest first, each with its place."""
        live = self._service.live
        sessions = live.live if wanted.state == "live" else live.ended
        seen = [(_place(each), each) for each in sessions if _may_use(token, each.tenant)]
        seen = [each for each in seen if wanted.before is None or each[0] < wanted.before]
        seen.sort(key=itemgetter(0), reverse=True)
        return [(place, CallView(**self._view(session))) for place, session in seen[: wanted.limit]]

    def placed(self, call_id: UUID, token: ApiToken | None) -> tuple[Before, CallView]:
        """The place in lists of a call of this process.

        Raises:
            Problem: 404.
        """
        session = self._service.session(call_id)
        if session is None or not _may_use(token, session.tenant):
            raise Problem(404, _NO_CALL)
        return _place(session), CallView(**self._view(session))

    async def _before(self, call_id: UUID, token: ApiToken | None) -> Before:
        place = await self._service.api.elsewhere.place(call_id, "" if token is None else token.name)
        return self.placed(call_id, token)[0] if place is None else place

    async def show_call(self, asked: Asked) -> CallDetail:
        """One call."""
        session = self._session(asked)
        if session is not None:
            return CallDetail(**self._view(session), metrics=session.metrics, recordings=len(session.recordings))
        record, log = await self._record(asked), self._service.log
        report = await log.report(asked.call)
        view = _of_record(record)
        return CallDetail(
            **{name: getattr(view, name) for name in CallView.__struct_fields__},
            metrics=None if report is None else report.metrics,
            recordings=len(record.recordings),
        )

    async def transcript(self, asked: Asked) -> Transcript:
        """What was said."""
        session, log = self._session(asked), self._service.log
        if session is None:
            await self._record(asked)
            report = await log.report(asked.call)
            return Transcript(call_id=asked.call, lines=[] if report is None else spoken_in(report.events))
        before: list[Spoken] = []
        if session.first_seq and log is not None:  # another gateway had the call then
            events = await log.events(asked.call, limit=session.first_seq)
            before = spoken_in(event for event in events if event.seq < session.first_seq)
        return Transcript(call_id=asked.call, lines=[*before, *session.transcript])

    async def recordings(self, asked: Asked) -> RecordingList:
        """Its recordings."""
        _, urls = await self._recorded(asked)
        found = [Recording(index=index, url=url) for index, url in enumerate(urls)]
        return RecordingList(call_id=asked.call, recordings=found)

    async def recording(self, asked: Asked) -> AsyncIterator[bytes]:
        """The bytes of one; the first of them are here before the answer begins."""
        tenant, urls = await self._recorded(asked)
        text = asked.path["index"]
        if not text.isdecimal() or len(text) > 6 or int(text) >= len(urls):
            raise Problem(404, "there is no recording of this index")
        try:
            pieces = self._service.download(tenant, urls[int(text)])
        except KeyError as exc:
            raise Problem(404, "the account that has this recording is not configured any more") from exc
        try:
            first = await anext(pieces)
        except StopAsyncIteration:
            first = b""
        return _joined(first, pieces)

    async def transfer_call(self, asked: Asked) -> None:
        """Connect the caller to somebody else."""
        await self._voip(asked).transfer_to(asked.body.to, back_within_s=asked.body.back_within_s)

    async def hang_up(self, asked: Asked) -> None:
        """End a call."""
        await self._voip(asked).hangup(reason="api_hangup")

    async def say(self, asked: Asked) -> None:
        """Let the agent say something."""
        self._voip(asked).say(asked.body.text, allow_interrupt=asked.body.allow_interrupt)

    async def whisper(self, asked: Asked) -> None:
        """Tell the agent something that the caller does not hear."""
        self._voip(asked).whisper(asked.body.text)

    async def client_token(self, asked: Asked) -> ClientToken:
        """Let a browser or an app start a session."""
        from dialog.server.service import Unknown

        wanted, token, config = asked.body, asked.token, self._service.config
        own = tuple(config.tenants) if token is None or not token.tenants else tuple(token.tenants)
        tenant = wanted.tenant or (own[0] if len(own) == 1 else "")
        if not _may_use(token, tenant):
            raise Problem(404, "there is no tenant of this id" if tenant else "name the tenant whose session it is")
        try:
            text, call_id = self._service.client_token(
                wanted.session, user=wanted.user, tenant=tenant, life_s=wanted.life_s
            )
        except Unknown as exc:
            raise Problem(404, str(exc)) from exc
        assert self._service.clients is not None
        return ClientToken(token=text, call_id=call_id, path=self._service.clients.path, life_s=wanted.life_s)

    async def send_message(self, asked: Asked) -> SentMessage:
        """Write a text message."""
        from dialog.server.service import Unknown

        message, token = asked.body, asked.token
        number = self._service.config.numbers.get(message.phone_number_id)
        if number is not None and not _may_use(token, self._service.config.tenant_of(number)):
            raise Problem(404, "there is no phone number of this id")
        tenant = next(iter(token.tenants)) if token is not None and len(token.tenants) == 1 else ""
        if not message.phone_number_id and not tenant and token is not None and token.tenants:
            raise Problem(404, "name the phone number that the message comes from")
        try:
            sent = await self._service.send_sms(message.to, message.text, number=message.phone_number_id, tenant=tenant)
        except Unknown as exc:
            raise Problem(404, str(exc)) from exc
        return SentMessage(message_sid=sent.message_sid, status=sent.status, to=sent.to)

    # What streams of events ask.

    def may_see(self, token: ApiToken | None, call: CallMetadata) -> bool:
        """Whether a call is the token's business."""
        return _may_use(token, self._service.tenant_of(call))

    def check_live(self, token: ApiToken | None, call_id: UUID) -> None:
        """Check that a call goes on.

        Raises:
            Problem: 404 or 409.
        """
        session = self._service.session(call_id)
        if session is None or not _may_use(token, session.tenant):
            raise Problem(404, _NO_CALL)
        if session.end is not None:
            raise Problem(409, "the call has ended: nothing more happens in it")

    # Inside.

    def _session(self, asked: Asked) -> Session | None:
        session = self._service.session(asked.call)
        if session is None:
            if self._service.log is None:
                raise Problem(404, _NO_CALL)
            return None
        if not _may_use(asked.token, session.tenant):
            raise Problem(404, _NO_CALL)
        return session

    async def _record(self, asked: Asked) -> CallRecord:
        """A call of the log."""
        record: CallRecord | None = await self._service.log.call(asked.call)
        if record is None or not _may_use(asked.token, record.tenant):
            raise Problem(404, _NO_CALL)
        return record

    async def _recorded(self, asked: Asked) -> tuple[str, tuple[str, ...]]:
        found = await self._recorded_elsewhere(asked)
        if found is None:
            session = self._session(asked)
            if session is not None:
                return session.tenant, tuple(session.recordings)
            record = await self._record(asked)
            found = record.tenant, record.recordings
        tenant, urls = found
        if tenant in self._service.gateways:
            return found
        for name, account in self._service.config.tenants.items():  # the URL names the account
            if any(account.owns(url) for url in urls):
                return name, urls
        return "", urls

    async def _recorded_elsewhere(self, asked: Asked) -> tuple[str, tuple[str, ...]] | None:
        elsewhere = self._service.api.elsewhere
        owner = await elsewhere.owner(asked.call)
        if not owner.node:
            return None
        token = "" if asked.token is None else asked.token.name
        shown = await elsewhere.do(owner.node, asked.call, Do("show_call", asked.path, b"", token))
        listed = await elsewhere.do(owner.node, asked.call, Do("recordings", asked.path, b"", token))
        if shown is None or listed is None:
            return None
        urls = tuple(each.url for each in msgspec.json.decode(listed.body, type=RecordingList).recordings)
        return msgspec.json.decode(shown.body, type=CallDetail).tenant, urls

    def _voip(self, asked: Asked) -> VoIP:
        """A call that goes on.

        Raises:
            Problem: 404 or 409.
        """
        voip = self._service.get(asked.call)
        if voip is None:
            session = self._service.session(asked.call)
            if session is None or not _may_use(asked.token, session.tenant):
                raise Problem(404, _NO_CALL)
            raise Problem(409, "the call has ended")
        if not self.may_see(asked.token, voip.metadata):
            raise Problem(404, _NO_CALL)
        if voip.state == "ended":
            raise Problem(409, "the call has ended")
        return voip

    def _view(self, session: Session) -> dict[str, Any]:
        call, end = session.call, session.end
        voip = self._service.get(call.call_id)
        state = "ended" if end is not None or voip is None else voip.state
        return {
            "call_id": call.call_id,
            "state": state,
            "tenant": session.tenant,
            "carrier": call.carrier,
            "carrier_call_id": call.carrier_call_id,
            "from_": call.from_,
            "to": call.to,
            "direction": call.direction,
            "agent": session.agent,
            "started_at": session.started_at,
            "duration_s": session.duration_s,
            "end_reason": "" if end is None else end.reason,
            "end_detail": "" if end is None else end.detail,
        }


def _may_use(token: ApiToken | None, tenant: str) -> bool:
    return token is None or not token.tenants or tenant in token.tenants


def _of_record(record: CallRecord) -> CallView:
    return CallView(
        call_id=record.call_id,
        state="live" if record.ended_at is None else "ended",
        tenant=record.tenant,
        carrier=record.carrier,
        carrier_call_id=record.carrier_call_id,
        from_=record.from_,
        to=record.to,
        direction=record.direction,
        agent=record.agent,
        started_at=record.started_at.isoformat(timespec="milliseconds"),
        duration_s=record.duration_s or 0.0,
        end_reason=record.end_reason,
        end_detail=record.end_detail,
    )


def _place(session: Session) -> Before:
    return session.since, session.call.call_id


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
