"""What is looked up only when somebody asks for the metrics: queues, workers, refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

from dialog.calls.publish import CallEvents
from dialog.telemetry.prometheus import Collector, CounterMetricFamily, GaugeMetricFamily, Metric
from dialog.voip.admission import Workers
from dialog.voip.call import Call
from dialog.voip.refusals import Refusals
from dialog.workers.host import Host

__all__ = ["Gauges", "Watched"]


@runtime_checkable
class Watched(Protocol):
    """What a gateway shows of itself."""

    @property
    def events(self) -> CallEvents:
        """The events of all its calls."""
        ...

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls of which something is left."""
        ...

    @property
    def refusals(self) -> Refusals:
        """What it has refused."""
        ...

    @property
    def workers(self) -> Workers | None:
        """Who runs its agents."""
        ...


class Gauges(Collector):
    """Looks at gateways and queues when it is asked to."""

    def __init__(self) -> None:
        self.gateways: list[Watched] = []
        self.queues: dict[str, Callable[[], float]] = {}

    def describe(self) -> Iterator[Metric]:
        """Nothing that another collector could be in conflict with by chance."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        yield from self._playout()
        yield from self._refusals()
        yield from self._workers()
        depth = GaugeMetricFamily("dialog_queue_depth", "How much waits in a queue.", labels=["queue"])
        queues = dict(self.queues)
        losses: dict[str, Callable[[], float]] = {}
        for gateway in self.gateways:
            queues |= gateway.events.queues
            losses |= gateway.events.losses
        for name, read in queues.items():
            depth.add_metric([name], read())
        yield depth
        lost = CounterMetricFamily("dialog_events_lost", "Events for which a queue had no room.", labels=["queue"])
        for name, read in losses.items():
            lost.add_metric([name], read())
        yield lost

    def _playout(self) -> Iterator[Metric]:
        queued_s = [call.queued_ms / 1000.0 for gateway in self.gateways for call in gateway.calls]
        yield GaugeMetricFamily(
            "dialog_playout_queued_seconds", "The agents' audio that waits to be sent, of all calls.", sum(queued_s)
        )
        yield GaugeMetricFamily(
            "dialog_playout_longest_seconds", "The same of the call that has most.", max(queued_s, default=0.0)
        )

    def _refusals(self) -> Iterator[Metric]:
        webhooks = CounterMetricFamily(
            "dialog_webhook_refusals", "Webhooks that were refused, by HTTP status.", labels=["status"]
        )
        sockets = CounterMetricFamily(
            "dialog_socket_refusals", "Media sockets that were refused, by HTTP status or close code.", labels=["code"]
        )
        sip = CounterMetricFamily(
            "dialog_sip_refusals", "SIP requests that were refused, by status; 0: ignored strangers.", labels=["status"]
        )
        for family, counts in (
            (sip, [gateway.refusals.sip for gateway in self.gateways]),
            (webhooks, [gateway.refusals.webhooks for gateway in self.gateways]),
            (sockets, [gateway.refusals.sockets for gateway in self.gateways]),
        ):
            for code in sorted({code for count in counts for code in count}):
                family.add_metric([str(code)], sum(count[code] for count in counts))
            yield family

    def _workers(self) -> Iterator[Metric]:
        hosts = {host for gateway in self.gateways if isinstance(host := getattr(gateway.workers, "host", None), Host)}
        if not hosts:
            return
        known = [each for host in hosts for each in host.directory]
        calls = [call for host in hosts for call in host.calls]
        working = [each for each in known if not each.retired and not each.beat.draining]
        slots, load = sum(each.hello.capacity for each in working), sum(each.load for each in working)
        workers = GaugeMetricFamily("dialog_workers", "Workers that this gateway knows.", labels=["state"])
        workers.add_metric(["working"], len(working))
        workers.add_metric(["leaving"], len(known) - len(working))
        yield workers
        yield GaugeMetricFamily("dialog_workers_slots", "Calls that the working ones take at most.", slots)
        yield GaugeMetricFamily("dialog_workers_calls", "Calls that they have, of all gateways.", load)
        yield GaugeMetricFamily(
            "dialog_workers_load", "Those by these; 1 also while there is no worker.", load / slots if slots else 1.0
        )
        yield GaugeMetricFamily(
            "dialog_workers_lag_seconds",
            "The longest delay of any worker's event loop within its last ten seconds.",
            max((each.beat.lag_ms for each in known), default=0.0) / 1000.0,
        )
        yield GaugeMetricFamily(
            "dialog_calls_without_worker",
            "Calls of this gateway that no worker has at the moment.",
            sum(not call.worker and call.voip.state != "ended" for call in calls),
        )
