"""What the service counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64)


class ServiceMetrics:
    """The counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        to = self.registry
        self.requests = Counter("deeprank_requests", "Requests answered.", ["method", "route", "status"], registry=to)
        self.seconds = Histogram("deeprank_request_seconds", "From head to answer.", ["route"], buckets=SECONDS, registry=to)
        self.batch = Histogram("deeprank_batch_images", "Images that one forward embeds.", buckets=IMAGES, registry=to)
        self.waiting = Gauge("deeprank_waiting_images", "Images that wait or are in work.", registry=to)
        self.version = Gauge("deeprank_release_version", "Version that answers; 0: none, or not from the registry.", registry=to)
        self.swaps = Counter("deeprank_swaps", "Releases taken, the first one included.", registry=to)
        self.refused = Counter("deeprank_refused_releases", "Releases not taken as they failed their check.", registry=to)
        self.reachable = Gauge("deeprank_registry_reachable", "Whether the registry answered when last asked.", registry=to)

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self.registry)
