"""Errors as RFC 9457 problem documents: what was wrong, and never how the program came to it."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from deeprank.errors import DeepRankError
from deeprank.serving.batching import BusyError, LateError, NotReadyError

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """Why there is no answer (RFC 9457)."""

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


def problem(
    status: int, detail: str, instance: str, headers: Mapping[str, str] | None = None, errors: list[dict[str, str]] | None = None
) -> Response:
    """Return the answer that tells of a problem.

    Args:
        status: of HTTP.
        detail: what was wrong.
        instance: the path that was asked for.
        headers: beside the media type.
        errors: each a `where` and a `what`, if there are several.

    """
    found = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, instance=instance, errors=errors or [])
    content = found.model_dump(exclude=None if errors else {"errors"})
    return Response(json.dumps(content), status, headers, MEDIA_TYPE)


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI descriptions of problems by their statuses; the schema they point to is Problem's."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def tell_problems(app: FastAPI) -> None:
    """Have an app answer errors as problems."""

    @app.exception_handler(HTTPException)
    async def by_status(request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, error.detail, request.url.path, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        # What was sent is not repeated: it may be an image.
        errors = [{"where": ".".join(str(part) for part in one["loc"]) or "body", "what": str(one["msg"])} for one in error.errors()]
        return problem(422, "; ".join(f"{one['where']}: {one['what']}" for one in errors[:3]), request.url.path, errors=errors)

    @app.exception_handler(DeepRankError)
    async def known(request: Request, error: DeepRankError) -> Response:
        if isinstance(error, BusyError):
            return problem(429, str(error), request.url.path, {"Retry-After": str(error.retry_after)})
        if isinstance(error, (LateError, NotReadyError)):
            return problem(503, str(error), request.url.path, {"Retry-After": "1"})
        return problem(422, str(error), request.url.path)
