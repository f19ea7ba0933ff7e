"""What can be measured of an app: counted here, and told in Prometheus' text format."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from convsdk.desk import Received

NO_CHANNEL = "(none)"
"""The label of requests that name no configured channel: what a stranger made up becomes no label."""

# A sync to disk takes a millisecond or a few; a queue that is nearly full, up to a minute.
_COMMIT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one app, in a registry of its own. `waiting` gives the length of the queue.

    Labels are names of the configuration and of the code: nothing of a request becomes one.
    """

    def __init__(self, *, waiting: Callable[[], int]) -> None:
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
        """Give all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
