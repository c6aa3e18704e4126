"""Prometheus metrics of the service."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

DURATION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


class ServiceMetrics:
    """The metrics of one service, in a Prometheus registry of its own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter("deeprank_http_requests", "HTTP requests.", ["method", "route", "status"], registry=registry)
        self.request_duration = Histogram(
            "deeprank_http_request_duration_seconds",
            "Time from the request's header to the end of the response.",
            ["route"],
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self.batch_size = Histogram(
            "deeprank_batch_size_images", "Images in one forward pass.", buckets=BATCH_SIZE_BUCKETS, registry=registry
        )
        self.queue_size = Gauge("deeprank_queue_size_images", "Images waiting or in progress.", registry=registry)
        self.release_version = Gauge(
            "deeprank_release_version", "Version of the served release; 0: none, or not from the registry.", registry=registry
        )
        self.releases_loaded = Counter("deeprank_releases_loaded", "Releases put into service, including the first.", registry=registry)
        self.releases_refused = Counter("deeprank_releases_refused", "Releases refused because a check failed.", registry=registry)
        self.registry_reachable = Gauge(
            "deeprank_registry_reachable", "1 if the registry was reachable at the last poll, else 0.", registry=registry
        )

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self.registry)
