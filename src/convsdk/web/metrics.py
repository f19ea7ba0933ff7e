"""What can be measured of an app: counted here, and told in Prometheus' text format."""

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime

import structlog
from attrs import frozen
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from convsdk.core.ports import Clock
from convsdk.core.storage import Queue
from convsdk.desk import Received
from convsdk.errors import ConvsdkError
from convsdk.hub import Hub

NO_CHANNEL = "(none)"
"""The label of requests that name no configured channel: what a stranger made up becomes no label."""

# A sync to disk takes a millisecond or a few; a queue that is nearly full, up to a minute.
_COMMIT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_OUTCOMES = ("sent", "failed", "put_off")

_log = structlog.get_logger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class Metrics:
    """The metrics of one app, in a registry of its own. `waiting` gives the length of the queue in front of `hubs`.

    Labels are names of the configuration and of the code: nothing of a request becomes one.
    """

    def __init__(self, *, waiting: Callable[[], int], hubs: Collection[Hub] = (), clock: Clock = _now) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "convsdk_webhook_requests",
            "Requests to a channel's webhook, by what became of them.",
            ("channel", "outcome"),
            registry=self._registry,
        )
        self._rejects = Counter(
            "convsdk_webhook_rejects", "Requests that were kept aside.", ("channel",), registry=self._registry
        )
        self._events = Counter(
            "convsdk_events",
            "Events that were committed, by decision.",
            ("channel", "outcome"),
            registry=self._registry,
        )
        self._commit = Histogram(
            "convsdk_commit_seconds",
            "Seconds from handing events to the queue until they were committed.",
            registry=self._registry,
            buckets=_COMMIT_S,
        )
        queue = Gauge("convsdk_queue_events", "Events that wait for a transaction.", registry=self._registry)
        queue.set_function(waiting)
        self._registry.register(_Deliveries(hubs=hubs, clock=clock))

    def count_request(self, channel: str, outcome: str) -> None:
        """Count a request that was answered."""
        self._requests.labels(channel, outcome).inc()

    def count_reject(self, channel: str) -> None:
        """Count a request that was kept aside."""
        self._rejects.labels(channel).inc()

    def count_commit(self, channel: str, received: Sequence[Received], *, took_s: float) -> None:
        """Count the events that were committed together for one request."""
        self._commit.observe(took_s)
        for one in received:
            self._events.labels(channel, one.decision.outcome.value).inc()

    def text(self) -> bytes:
        """Give all metrics in Prometheus' text format. It asks the stores, and blocks: for a thread."""
        return generate_latest(self._registry)


@frozen(kw_only=True, eq=False)
class _Deliveries(Collector):
    """What is still to go, as the stores have it, and what the workers of this process did."""

    hubs: Collection[Hub]
    clock: Clock

    def describe(self) -> list[Metric]:
        """Give nothing: no store is asked before somebody wants to know."""
        return []

    def collect(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily("convsdk_deliveries_waiting", "Messages that are still to go.", labels=["channel"])
        age = GaugeMetricFamily(
            "convsdk_deliveries_oldest_seconds", "The age of the oldest of these.", labels=["channel"]
        )
        done = CounterMetricFamily(
            "convsdk_deliveries", "Deliveries by this process, by outcome.", labels=["channel", "outcome"]
        )
        now = self.clock()
        for hub in self.hubs:
            names = sorted(name for name, channel in hub.channels.items() if channel.can.sends)
            queues = _queues(hub) if names else {}
            for name in names:
                for outcome in _OUTCOMES:
                    done.add_metric([name, outcome], hub.delivered[name, outcome])
                if queues is not None:
                    found = queues.get(name)
                    waiting.add_metric([name], found.length if found else 0)
                    age.add_metric([name], max((now - found.oldest_at).total_seconds(), 0.0) if found else 0)
        yield from (waiting, age, done)


def _queues(hub: Hub) -> dict[str, Queue] | None:
    try:
        return hub.store.queues(hub.workspace)
    except ConvsdkError as error:  # what was counted here is told all the same
        _log.warning("no metrics of what is to go", why=str(error))
        return None
