"""Upload fields, and the check of problem documents, for tests of the HTTP API."""

import base64
from typing import Any

import httpx


def to_base64(data: bytes) -> str:
    """Return bytes as base64."""
    return base64.b64encode(data).decode()


def upload_files(*images: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    """Return the files of a form, for httpx."""
    return [("image", ("../../etc/passwd", image)) for image in images]


def assert_problem(response: httpx.Response, status: int, detail: str) -> dict[str, Any]:
    """Check that a response is a problem document without a traceback, and return the document."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["instance"] == response.request.url.path
    assert {"type", "title"} <= problem.keys()
    assert detail in problem["detail"]
    assert "Traceback" not in response.text
    return problem
