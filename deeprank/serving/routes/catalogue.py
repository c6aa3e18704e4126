"""Routes that browse the catalogue: images, classes, samples and clusters."""

import io
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParameter
from PIL import Image
from starlette.exceptions import HTTPException

from deeprank.errors import DataError
from deeprank.row_numbers import IndexPositions
from deeprank.serving.errors import problem_descriptions
from deeprank.serving.schemas.requests import ID_PATTERN
from deeprank.serving.schemas.responses import (
    CatalogueImage,
    ClassCount,
    ClassesResponse,
    ClusterResponse,
    ClustersResponse,
    ClusterSummary,
    SamplesResponse,
)
from deeprank.serving.service import LoadedRelease, Service

THUMBNAIL_QUALITY = 85
# An id is the hash of the image's file, so the image of an id never changes.
CACHE_FOREVER = "private, max-age=31536000, immutable"
MAX_CLUSTER = MAX_OFFSET = 2**31

ImageId = Annotated[str, PathParameter(pattern=ID_PATTERN, description="SHA-256 of the image's file.")]
ThumbnailSize = Annotated[int, Query(ge=16, le=256, description="Longer side in pixels.")]
PROBLEMS = problem_descriptions(401, 429, 503)
PROBLEMS_WITH_QUERY = problem_descriptions(401, 422, 429, 503)
PROBLEMS_WITH_PATH = problem_descriptions(401, 404, 422, 429, 503)
IMAGE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}},
    304: {"description": "Not Modified"},
    **PROBLEMS_WITH_PATH,
}


def catalogue_router(service: Service) -> APIRouter:
    """Return the routes of images, classes and samples."""
    router = APIRouter(prefix="/v1", tags=["catalogue"])

    @router.get("/images/{id}", response_class=Response, responses=IMAGE_RESPONSES)
    async def image(request: Request, id: ImageId, size: ThumbnailSize = 256) -> Response:
        """Return an image of the catalogue as a small JPEG."""
        etag = f'"{id}-{size}"'
        headers = {"ETag": etag, "Cache-Control": CACHE_FOREVER}
        loaded = service.current()
        try:
            loaded.searcher.index.positions_of([id])
            if etag in request.headers.get("if-none-match", ""):
                return Response(status_code=304, headers=headers)
            jpeg = await service.batcher.run(_thumbnail, loaded, id, size)
        except DataError as error:
            raise HTTPException(404, str(error)) from None
        return Response(jpeg, media_type="image/jpeg", headers=headers)

    @router.get("/classes", responses=PROBLEMS)
    async def classes() -> ClassesResponse:
        """List every label and every folder of labels that a search can be limited to."""
        loaded = service.current()
        counts = await service.batcher.run(lambda: loaded.browser.classes)
        return ClassesResponse(version=loaded.version, classes=[ClassCount(**asdict(count)) for count in counts])

    @router.get("/samples", responses=PROBLEMS_WITH_QUERY)
    async def samples(count: Annotated[int, Query(ge=1, le=200)] = 24) -> SamplesResponse:
        """List example images, each of another class, spread over all classes."""
        loaded = service.current()
        positions = await service.batcher.run(lambda: loaded.browser.samples)
        spread = np.unique(np.linspace(0, len(positions) - 1, min(count, len(positions))).round().astype(int))
        images = loaded.browser.images(IndexPositions(positions[spread]))
        return SamplesResponse(version=loaded.version, samples=[CatalogueImage(**image) for image in images])

    _add_cluster_routes(router, service)
    return router


def _add_cluster_routes(router: APIRouter, service: Service) -> None:
    @router.get("/clusters", responses=PROBLEMS)
    async def clusters() -> ClustersResponse:
        """List the clusters, largest first."""
        loaded = service.current()
        summaries = await service.batcher.run(lambda: loaded.browser.clusters)
        return ClustersResponse(version=loaded.version, clusters=[ClusterSummary(**asdict(summary)) for summary in summaries])

    @router.get("/clusters/{cluster}", responses=PROBLEMS_WITH_PATH)
    async def members(
        cluster: Annotated[int, PathParameter(ge=0, le=MAX_CLUSTER)],
        offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 60,
    ) -> ClusterResponse:
        """Return a cluster and one page of its images."""
        loaded = service.current()
        browser = loaded.browser
        try:
            positions = await service.batcher.run(browser.members, cluster)
        except DataError as error:
            raise HTTPException(404, str(error)) from None
        summaries = await service.batcher.run_admitted(lambda: browser.clusters)
        summary = next(summary for summary in summaries if summary.cluster == cluster)
        end = offset + limit
        page = [CatalogueImage(**image) for image in browser.images(IndexPositions(positions[offset:end]))]
        next_offset = end if end < len(positions) else None
        return ClusterResponse(version=loaded.version, **asdict(summary), members=page, offset=offset, next_offset=next_offset)


def _thumbnail(loaded: LoadedRelease, id: str, size: int) -> bytes:
    jpeg = loaded.searcher.stored_image(id)
    image = Image.open(io.BytesIO(jpeg))
    if max(image.size) <= size:
        return jpeg
    image.draft("RGB", (size, size))
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=THUMBNAIL_QUALITY)
    return buffer.getvalue()
