"""The application as a whole: unknown routes, unexpected failures, and the OpenAPI document."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serving.http_helpers import assert_problem
from tests.serving.live_server import LiveServer, live_server


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    with live_server(str(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


def test_unknown_routes_and_methods_are_problems(client: httpx.Client) -> None:
    assert_problem(client.get("/v1/nothing"), 404, "Not Found")
    response = client.get("/v1/search")
    assert_problem(response, 405, "Method Not Allowed")
    assert response.headers["allow"] == "POST"


def test_an_unexpected_failure_is_a_problem_without_traceback(
    server: LiveServer, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    index = server.service.current().searcher.index
    monkeypatch.setattr(type(index), "search_positions", fail)
    response = client.post("/v1/search", json={"id": index.rows["id"][0]})
    assert_problem(response, 500, "see the log of the service")
    assert "secret" not in response.text


def test_openapi_describes_requests_responses_and_problems(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) >= {"/v1/search", "/v1/embed", "/v1/distance", "/v1/explain", "/v1/images/{id}", "/v1/model", "/readyz"}
    post = document["paths"]["/v1/search"]["post"]
    assert set(post["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert post["requestBody"]["content"]["application/json"]["examples"]
    assert "application/problem+json" in post["responses"]["422"]["content"]
    assert document["components"]["schemas"]["SearchResponse"]["examples"]
    assert "Problem" in document["components"]["schemas"]
