"""Routes that describe the service: model, health, readiness and metrics."""

import httpx

from deeprank.data.catalogue import Catalogue
from deeprank.registry.searcher import Searcher
from deeprank.serving.schemas.requests import MAX_IMAGES
from tests.serving.live_server import LiveServer


def test_the_release_is_described(client: httpx.Client, searcher: Searcher, catalogue: Catalogue) -> None:
    model = client.get("/v1/model").json()
    assert model["weights_hash"] == searcher.release.bundle.weights_hash
    assert (model["num_images"], model["catalogue_version"], model["embedding_dim"]) == (len(catalogue.frame), catalogue.version, 16)
    assert model["metrics"]["fine.recall_at_1"]["value"] == 0.6
    assert model["canary_passed"] is True
    assert client.get("/healthz").json() == {"status": "alive"}
    readiness = client.get("/readyz")
    assert (readiness.status_code, readiness.json()["status"], readiness.json()["refused"]) == (200, "ready", None)


def test_the_limits_are_those_of_the_settings(client: httpx.Client, server: LiveServer) -> None:
    limits = server.service.settings.limits
    expected = {"max_upload_bytes": limits.max_upload_bytes, "max_pixels": limits.max_pixels, "max_images": MAX_IMAGES}
    assert client.get("/v1/limits").json() == expected


def test_requests_are_counted(client: httpx.Client, catalogue: Catalogue) -> None:
    client.post("/v1/search", json={"id": catalogue.frame["id"][0]})
    client.get("/no/such/route")
    text = client.get("/metrics").text
    assert 'deeprank_http_requests_total{method="POST",route="/v1/search",status="200"}' in text
    assert 'deeprank_http_requests_total{method="GET",route="other",status="404"}' in text
    assert "deeprank_batch_size_images_bucket" in text
    assert "deeprank_queue_size_images 0.0" in text
    assert "deeprank_releases_loaded_total 1.0" in text
