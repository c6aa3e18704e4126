"""Routes that describe the service: model, health, readiness and metrics."""

from dataclasses import asdict
from math import isnan
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from deeprank.evaluation.intervals import Estimate
from deeprank.registry.model_uri import ModelUri
from deeprank.serving.errors import problem_descriptions
from deeprank.serving.schemas.requests import MAX_IMAGES
from deeprank.serving.schemas.responses import (
    HealthResponse,
    LimitsResponse,
    MetricEstimate,
    ModelResponse,
    ReadinessResponse,
    RefusedRelease,
    RegistryStatus,
)
from deeprank.serving.service import Service

METRICS_RESPONSES: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {}}}, **problem_descriptions(401)}


def state_router(service: Service) -> APIRouter:
    """Return the routes that describe the service."""
    router = APIRouter(tags=["state"])

    @router.get("/v1/model", responses=problem_descriptions(401, 429, 503))
    async def model() -> ModelResponse:
        """Describe the release in service: version, metrics, and when it was loaded."""
        loaded = service.current()
        searcher, index, uri = loaded.searcher, loaded.searcher.index, ModelUri.parse(loaded.model)
        return ModelResponse(
            version=loaded.version,
            model=loaded.model,
            name=uri.name if uri else loaded.model,
            aliases=list(loaded.aliases),
            since=loaded.since,
            canary_passed=loaded.canary_passed,
            weights_hash=searcher.release.bundle.weights_hash,
            embedding_dim=searcher.model.embedding_dim,
            num_images=len(index.rows),
            catalogue_version=index.catalogue.version,
            gate_state=loaded.tags.get("gate.state", ""),
            gate_reason=loaded.tags.get("gate.reason", ""),
            metrics={name: _metric_estimate(estimate) for name, estimate in loaded.metrics.items()},
        )

    @router.get("/v1/limits", responses=problem_descriptions(401))
    async def limits() -> LimitsResponse:
        """Return the limits of a request, so that a client can shrink an image before it sends it."""
        settings = service.settings.limits
        return LimitsResponse(max_upload_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels, max_images=MAX_IMAGES)

    @router.get("/metrics", response_class=Response, responses=METRICS_RESPONSES)
    async def metrics() -> Response:
        """Return the metrics in the Prometheus text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    _add_health_routes(router, service)
    return router


def _add_health_routes(router: APIRouter, service: Service) -> None:
    @router.get("/healthz")
    async def healthz() -> HealthResponse:
        """Return status 200 while the process is alive."""
        return HealthResponse(status="alive")

    @router.get("/readyz", responses={503: {"model": ReadinessResponse}})
    async def readyz(response: Response) -> ReadinessResponse:
        """Say whether a release is in service, and why a newer one is not."""
        loaded, refused, registry = service.loaded, service.refused, service.registry
        response.status_code = 200 if loaded else 503
        return ReadinessResponse(
            status="ready" if loaded else "no release",
            version=loaded.version if loaded else None,
            since=loaded.since if loaded else None,
            refused=RefusedRelease(**asdict(refused)) if refused else None,
            registry=RegistryStatus(**asdict(registry)) if registry else None,
        )


def _metric_estimate(estimate: Estimate) -> MetricEstimate:
    # JSON has no NaN.
    values = {name: None if isinstance(value, float) and isnan(value) else value for name, value in asdict(estimate).items()}
    return MetricEstimate(**values)
