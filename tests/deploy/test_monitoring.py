"""The dashboard and the alerts ask for figures that a gateway and a worker really tell, and the page describes all."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import aiohttp
import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from dialog.calls import events as ev
from dialog.calls.metrics import DeadAir, SessionMetrics
from dialog.calls.store.log import CallLog
from dialog.calls.timeline import TurnTimeline
from dialog.cli.worker import _exposition
from dialog.message import CallMetadata
from dialog.server.serving import serve
from dialog.testing.caller import Caller
from dialog.usage import Usage
from dialog.voip.twilio import TwilioGateway
from dialog.workers.pool import WorkerPool
from dialog.workers.supervisor import Load

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "calls.json").read_text())
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())
PAGE = (ROOT / "docs" / "operations.md").read_text()
ACCOUNT = "AC" + "0" * 32
TOKEN = "secret-token"
NOT_OURS = {"up"}
OF_PROMETHEUS = {"job", "instance"}


class Asked(NamedTuple):
    """A query, and where it stands."""

    where: str
    text: str

    @property
    def expression(self) -> Any:
        text = self.text.replace("$__rate_interval", "5m").replace("$job", ".*")
        return promql.parse(text)


QUERIES = [
    *(Asked(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])),
    *(Asked(rule["alert"], rule["expr"]) for group in RULES["groups"] for rule in group["rules"]),
]


def selectors(expression: Any) -> Iterator[Any]:
    """The vectors that an expression is made of."""
    if isinstance(expression, promql.VectorSelector):
        yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector", "args"):
        part = getattr(expression, name, None)
        for each in part if isinstance(part, list) else [part]:
            if each is not None:
                yield from selectors(each)


def all_kinds(call: CallMetadata) -> list[ev.CallEvent]:
    """One event of every kind of which a figure is made."""
    turn = uuid4()
    stages = {"end_of_speech": 1.0, "final": 1.2, "inference": 1.3, "first_token": 1.6, "first_text": 1.7}
    timeline = TurnTimeline(turn=turn, speech_source="vad", first_audio=1.9, first_frame=2.0, **stages)
    usage = Usage(
        model="m", input_tokens=9, cached_tokens=3, output_tokens=2, input_audio_s=1.0, session_s=1.0, characters=5
    )
    told: list[tuple[type, dict[str, Any]]] = [
        (ev.TurnMeasured, {"timeline": timeline}),
        (ev.UsageReported, {"turn": turn, "usage": usage, "cost_usd": 0.1}),
        (ev.ToolEnded, {"turn": turn, "call_id": "c", "name": "t", "result": "", "state": "failed", "took_s": 1.0}),
        (ev.ErrorRaised, {"source": "STT", "code": "provider", "text": "", "fatal": True}),
        (ev.Warned, {"code": "vad_fallback", "text": ""}),
        (ev.Interrupted, {"turn": turn, "reason": ""}),
        (ev.SpeculationEnded, {"turn": turn, "outcome": "saved"}),
        (ev.CallerUnheard, {"waited_s": 1.0}),
        (ev.IdlePrompted, {"count": 1}),
        (ev.CallAnsweredBy, {"who": "human"}),
        (ev.StreamChanged, {"state": "live", "generation": 1}),
        (ev.StreamChanged, {"state": "lost", "generation": 1}),
        (ev.TransferChanged, {"to": "", "state": "answered"}),
        (ev.HandedOff, {"from_": "A", "to": "B"}),
        (ev.ProviderSwitched, {"kind": "stt", "provider": "B", "instead_of": "A", "reason": ""}),
        (ev.CallResumed, {"agent": "A", "lost_s": 1.0}),
        (ev.CallMeasured, {"metrics": SessionMetrics(dead_air=(DeadAir(begin_s=1.0, seconds=3.0),))}),
        (ev.CallEnded, {"reason": "error"}),
    ]
    return [kind(seq=seq, at_s=float(seq), **fields) for seq, (kind, fields) in enumerate(told)]


async def told_by_a_gateway(log: CallLog) -> str:
    """What /metrics of a served gateway with a worker says after a call, and after one in which all went wrong."""
    workers = WorkerPool(str(ROOT / "tests" / "workers" / "apps" / "greeting.py:on_voip"), processes=1)
    gateway = TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN, base_url="http://127.0.0.1:9", workers=workers)
    log.follow(gateway.events)
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(gateway, host="127.0.0.1", port=0, leave_s=0.0, stop=stop, started=port.set_result)
    )
    url = f"http://127.0.0.1:{await port}"
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(40):
            while not gateway.ready:
                await asyncio.sleep(0.02)
            async with Caller.dial(f"{url}/twilio", auth_token=TOKEN, account_sid=ACCOUNT) as caller:
                await caller.listen()
                await caller.hang_up()
            async with session.post(f"{url}/twilio", data={"CallSid": "CA1"}) as response:
                assert response.status == 400
            async with session.get(f"{url}/twilio/media") as response:
                assert response.status == 400
            gateway.refusals.sip[403] += 1  # as a gateway for SIP counts them
            call = CallMetadata(call_id=uuid4())
            for event in all_kinds(call):
                gateway.events.publish(call, event)
            while True:
                async with session.get(f"{url}/metrics") as response:
                    text = await response.text()
                if 'outcome="caller_hangup"' in text and "dialog_loop_lag_seconds_count 0.0" not in text:
                    return text
                await asyncio.sleep(0.05)
    finally:
        stop.set()
        await serving


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, list[dict[str, str]]]:
    """The labels of every sample that a gateway and a worker tell, by its name."""
    log = CallLog(f"sqlite:///{tmp_path_factory.mktemp('log') / 'calls.db'}")  # not open: it counts what waits
    text = asyncio.run(told_by_a_gateway(log)) + _exposition(Load(calls=1, capacity=2, processes=1))
    samples: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                samples.setdefault(sample.name, []).append(sample.labels)
    return samples


@pytest.mark.parametrize("asked", QUERIES, ids=lambda asked: asked.where)
def test_what_is_asked_for_is_told_with_the_labels_that_are_asked_for(asked: Asked, told) -> None:
    found = list(selectors(asked.expression))
    assert found
    for selector in found:
        if selector.name in NOT_OURS:
            continue
        assert selector.name in told, f"{asked.where}: no gateway and no worker tells {selector.name}"
        for matcher in selector.matchers.matchers:
            if matcher.name in OF_PROMETHEUS:
                continue
            assert any(matcher.name in labels for labels in told[selector.name]), (
                f"{selector.name} has no {matcher.name}"
            )
            if matcher.op == promql.MatchOp.Equal:
                values = {labels.get(matcher.name) for labels in told[selector.name]}
                assert matcher.value in values, f"{selector.name} never has {matcher.name}={matcher.value}"


@pytest.mark.parametrize("asked", QUERIES, ids=lambda asked: asked.where)
def test_what_is_grouped_by_is_a_label_of_what_is_grouped(asked: Asked, told) -> None:
    def check(expression: Any) -> None:
        modifier = getattr(expression, "modifier", None)
        if isinstance(expression, promql.AggregateExpr) and modifier is not None:
            names = {selector.name for selector in selectors(expression.expr)} - NOT_OURS
            for label in set(modifier.labels) - OF_PROMETHEUS:
                assert all(any(label in labels for labels in told[name]) for name in names), f"{names} without {label}"
        for name in ("expr", "lhs", "rhs", "args"):
            part = getattr(expression, name, None)
            for each in part if isinstance(part, list) else [part]:
                if each is not None:
                    check(each)

    check(asked.expression)


def test_every_figure_is_described_and_shown(told) -> None:
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in told if name.startswith("dialog_")}
    shown = {
        re.sub(r"_(bucket|sum|count)$", "", selector.name)
        for asked in QUERIES
        for selector in selectors(asked.expression)
    }
    for name in sorted(ours):
        assert f"`{name}`" in PAGE, f"docs/operations.md does not describe {name}"
        assert name in shown, f"neither the dashboard nor an alert uses {name}"


def test_the_page_describes_nothing_that_is_not_told(told) -> None:
    for name in set(re.findall(r"`(dialog_\w+)`", PAGE)):
        assert any(each in told for each in (name, f"{name}_count")), name


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    headings = re.findall(r"^### (Dialog\w+)$", PAGE, re.MULTILINE)
    alerts = [rule for group in RULES["groups"] for rule in group["rules"]]
    assert [rule["alert"] for rule in alerts] == headings
    for rule in alerts:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


def test_no_panel_lies_over_another_and_each_has_an_id() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
