"""What tests of metrics look at."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from dialog.calls.publish import CallEvents
from dialog.telemetry import Metrics
from dialog.voip.refusals import Refusals


class House:
    """What a gateway shows of itself, for calls in memory."""

    def __init__(self) -> None:
        self.events = CallEvents()
        self.calls = ()
        self.refusals = Refusals()
        self.workers = None


class Figures:
    """A scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def get(self, name: str, **labels: str) -> float:
        return self.samples.get((name, *sorted(labels.items())), 0.0)


def scraped(metrics: Metrics) -> Figures:
    return Figures(metrics.exposition()[0].decode())
