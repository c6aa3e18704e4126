"""The service's own errors, and every error as an RFC 9457 problem document."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from deeprank.errors import DataError, DeepRankError

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS_IN_DETAIL = 3


class QueueFullError(DeepRankError):
    """The queue of images is full.

    Attributes:
        retry_after: seconds until the images in the queue are expected to be done.

    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full: try again in {retry_after} s")
        self.retry_after = retry_after


class RequestTimeoutError(DeepRankError):
    """A request had no result within the time limit."""


class ImageTooLargeError(DataError):
    """An image has more pixels than the service decodes."""


class NotReadyError(DeepRankError):
    """No release is loaded yet."""


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Entity",
                    "status": 422,
                    "detail": "the file is empty",
                    "instance": "/v1/search",
                }
            ]
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    errors: list[dict[str, str]] = []


def problem_response(
    status: int, detail: str, instance: str, headers: Mapping[str, str] | None = None, errors: list[dict[str, str]] | None = None
) -> Response:
    """Return a response that holds a problem document.

    Args:
        status: HTTP status code.
        detail: description of this error.
        instance: path of the request.
        headers: response headers other than the media type.
        errors: one mapping with the keys `field` and `message` for each invalid field.

    """
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, instance=instance, errors=errors or [])
    content = problem.model_dump(exclude=None if errors else {"errors"})
    return Response(json.dumps(content), status, headers, MEDIA_TYPE)


def problem_descriptions(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of a problem for each status; all of them refer to the schema of `Problem`."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def add_problem_handlers(app: FastAPI) -> None:
    """Make an app respond to errors with problem documents, and describe their schema in its OpenAPI document."""

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> Response:
        return problem_response(error.status_code, error.detail, request.url.path, error.headers)

    @app.exception_handler(RequestValidationError)
    async def handle_invalid_request(request: Request, error: RequestValidationError) -> Response:
        # The input is left out: it may be an image.
        errors = [{"field": ".".join(str(key) for key in item["loc"]) or "body", "message": str(item["msg"])} for item in error.errors()]
        detail = "; ".join(f"{item['field']}: {item['message']}" for item in errors[:MAX_ERRORS_IN_DETAIL])
        return problem_response(422, detail, request.url.path, errors=errors)

    @app.exception_handler(DeepRankError)
    async def handle_deeprank_error(request: Request, error: DeepRankError) -> Response:
        if isinstance(error, QueueFullError):
            return problem_response(429, str(error), request.url.path, {"Retry-After": str(error.retry_after)})
        if isinstance(error, (RequestTimeoutError, NotReadyError)):
            return problem_response(503, str(error), request.url.path, {"Retry-After": "1"})
        return problem_response(413 if isinstance(error, ImageTooLargeError) else 422, str(error), request.url.path)

    generate_openapi = app.openapi

    def openapi_with_problem() -> dict[str, Any]:
        document = generate_openapi()
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return document

    app.openapi = openapi_with_problem  # type: ignore[method-assign]
