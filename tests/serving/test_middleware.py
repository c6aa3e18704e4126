"""The request guard: token, size limits, and security headers."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from deeprank.serving.batching import BatchSettings
from deeprank.serving.middleware import Limits
from deeprank.serving.service import ServeSettings
from tests.drawing import encoded
from tests.serving.http_helpers import assert_problem, upload_files
from tests.serving.live_server import LiveServer, live_server

SMALL_LIMITS = ServeSettings(
    batching=BatchSettings(num_workers=2, num_decoders=2),
    limits=Limits(max_upload_bytes=200_000, max_pixels=1_000_000, body_timeout_s=0.5, header_timeout_s=0.5),
)
TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    """A server with small limits and a token."""
    with live_server(str(folder), SMALL_LIMITS, TOKEN) as server:
        yield server


def test_responses_have_security_headers(folder: Path) -> None:
    with live_server(str(folder)) as server, httpx.Client(base_url=server.url) as client:
        for response in (client.get("/healthz"), client.get("/no/such"), client.post("/v1/search")):
            policy = response.headers["content-security-policy"]
            assert "frame-ancestors 'none'" in policy
            assert "unsafe-inline" not in policy
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["referrer-policy"] == "no-referrer"
            assert "server" not in response.headers


def test_a_token_is_required_if_one_is_set(server: LiveServer) -> None:
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": TOKEN},
            {"Authorization": "Basic @"},
            {"Authorization": "Basic é"},
            {"Authorization": "Bearer é"},
        ):
            encoded_headers = {name: value.encode("latin-1") for name, value in headers.items()}
            response = client.get("/v1/model", headers=encoded_headers)
            assert_problem(response, 401, "token")
            assert "Bearer" in response.headers["www-authenticate"]
        assert client.get("/v1/model", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.get("/v1/model", auth=("anybody", TOKEN)).status_code == 200
        assert client.get("/metrics").status_code == 401


def test_a_large_body_or_image_is_refused_before_decoding(server: LiveServer) -> None:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        assert_problem(client.post("/v1/search", files=upload_files(bytes(300_000))), 413, "200,000 bytes")
        chunks = (bytes(10_000) for _ in range(30))
        assert_problem(client.post("/v1/search", content=chunks, headers={"content-type": "application/json"}), 413, "200,000 bytes")
        wide = encoded(Image.new("1", (2000, 1000)))
        assert_problem(client.post("/v1/search", files=upload_files(wide)), 413, "the image has 2000 x 1000 pixels")
        two = upload_files(encoded(Image.new("1", (64, 64))), wide)
        assert_problem(client.post("/v1/search", files=two), 413, "image 2 of 2: the image has 2000 x 1000 pixels")
        assert server.service.batcher.admission.queue_size == 0
