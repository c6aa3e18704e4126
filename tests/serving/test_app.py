"""The application as a whole: unknown routes, unexpected failures, and the OpenAPI document."""

import httpx
import pytest

from deeprank.serving.app import PAGE
from tests.serving.http_helpers import assert_problem
from tests.serving.live_server import LiveServer


def test_unknown_routes_and_methods_are_problems(client: httpx.Client) -> None:
    assert_problem(client.get("/v1/nothing"), 404, "Not Found")
    response = client.get("/v1/search")
    assert_problem(response, 405, "Method Not Allowed")
    assert response.headers["allow"] == "POST"


def test_head_has_the_status_and_headers_of_get(server: LiveServer, client: httpx.Client) -> None:
    id = server.service.current().searcher.index.rows["id"].iloc[0]
    operations = client.get("/openapi.json").json()["paths"].items()
    paths = [path.format(id=id, cluster=0) for path, methods in operations if "get" in methods]
    assert {"/healthz", "/readyz", "/metrics", "/v1/model", f"/v1/images/{id}"} <= set(paths)
    page_files = ["/", *(f"/{file.name}" for file in PAGE.iterdir() if file.name != "index.html")]
    for path in [*paths, *page_files, "/openapi.json", "/v1/search", "/none", f"/v1/images/{'0' * 64}"]:
        expected, response = client.get(path), client.head(path)
        assert (response.status_code, response.content) == (expected.status_code, b""), path
        # The counters of /metrics grow with each request.
        changing = {"date", "content-length"} if path == "/metrics" else {"date"}
        headers, expected_headers = (
            {name: value for name, value in each.headers.items() if name not in changing} for each in (response, expected)
        )
        assert headers == expected_headers, path
    assert 'deeprank_http_requests_total{method="HEAD",route="/healthz",status="200"} 1.0' in client.get("/metrics").text


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
