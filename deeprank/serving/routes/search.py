"""Routes that embed and compare images."""

import base64
import time

import numpy as np
from fastapi import APIRouter, Request

from deeprank.data.image_inputs import convert_each
from deeprank.evaluation.explain import similarity_maps
from deeprank.plotting.explanation import overlay_png
from deeprank.registry.searcher import Query, Vectors
from deeprank.serving.errors import problem_descriptions
from deeprank.serving.schemas.requests import (
    EmbedRequest,
    ImagesOrIdsRequest,
    PairRequest,
    SearchRequest,
    read_request,
    request_body_description,
)
from deeprank.serving.schemas.responses import (
    EXAMPLE_ID,
    DistanceResponse,
    EmbedResponse,
    ExplainResponse,
    Neighbor,
    SearchResponse,
)
from deeprank.serving.service import LoadedRelease, Service

PROBLEMS = problem_descriptions(400, 401, 408, 413, 415, 422, 429, 503)
SEARCH_BODY = request_body_description(SearchRequest, id=EXAMPLE_ID, k=5)
EMBED_BODY = request_body_description(EmbedRequest, image="/9j/4AAQ…")
PAIR_BODY = request_body_description(PairRequest, ids=[EXAMPLE_ID, EXAMPLE_ID])


def search_router(service: Service) -> APIRouter:
    """Return the routes of search, embeddings, distances and explanations."""
    router = APIRouter(prefix="/v1", tags=["search"])

    @router.post("/search", responses=PROBLEMS, openapi_extra=SEARCH_BODY)
    async def search(request: Request) -> SearchResponse:
        """Find the images nearest to a query; several images are several views of the same thing and form one query."""
        body = await read_request(request, SearchRequest)
        start, loaded = time.perf_counter(), service.current()
        query = loaded.searcher.query(await _embed(service, loaded, body))
        neighbors = await service.batcher.run_admitted(_neighbors, loaded, query, body)
        duration_ms = round((time.perf_counter() - start) * 1000, 2)
        return SearchResponse(
            version=loaded.version,
            model=loaded.model,
            familiarity=query.familiarity,
            novel=query.novel,
            neighbors=neighbors,
            duration_ms=duration_ms,
        )

    @router.post("/embed", responses=PROBLEMS, openapi_extra=EMBED_BODY)
    async def embed(request: Request) -> EmbedResponse:
        """Return the embedding of each image."""
        body = await read_request(request, EmbedRequest)
        loaded = service.current()
        embeddings = await service.batcher.embed(loaded.searcher, body.all_images)
        return EmbedResponse(version=loaded.version, embeddings=embeddings.tolist())

    @router.post("/distance", responses=PROBLEMS, openapi_extra=PAIR_BODY)
    async def distance(request: Request) -> DistanceResponse:
        """Return the distance between two images; distances of different releases are not comparable."""
        body = await read_request(request, PairRequest)
        loaded = service.current()
        return DistanceResponse(version=loaded.version, distance=loaded.searcher.distance(await _embed(service, loaded, body)))

    @router.post("/explain", responses=PROBLEMS, openapi_extra=PAIR_BODY)
    async def explain(request: Request) -> ExplainResponse:
        """Draw over two images how much each region adds to their similarity."""
        body = await read_request(request, PairRequest)
        loaded = service.current()
        return await service.batcher.run(_explanation, service, loaded, body)

    return router


async def _embed(service: Service, loaded: LoadedRelease, body: ImagesOrIdsRequest) -> Vectors:
    """Return the embeddings (n, d) of the client's images, then of the images of the catalogue."""
    embeddings = []
    if body.all_images:
        embeddings.append(await service.batcher.embed(loaded.searcher, body.all_images))
    if body.all_ids:
        embeddings.append(await service.batcher.run(loaded.searcher.stored_embeddings, body.all_ids))
    return np.concatenate(embeddings)


def _neighbors(loaded: LoadedRelease, query: Query, body: SearchRequest) -> list[Neighbor]:
    ((positions, distances),) = loaded.searcher.index.search_positions(
        query.vector, body.k, label_prefix=body.label_prefix, max_distance=body.max_distance
    )
    images = loaded.browser.images(positions)
    return [Neighbor.model_construct(**image, distance=distance) for image, distance in zip(images, distances.tolist(), strict=True)]


def _explanation(service: Service, loaded: LoadedRelease, body: PairRequest) -> ExplainResponse:
    images = list(convert_each(body.all_images, service.to_stored_jpeg))
    images += [loaded.searcher.stored_image(id) for id in body.all_ids]
    explanation = similarity_maps(loaded.searcher.model, loaded.searcher.preprocessing, *images)
    maps = (explanation.first, explanation.second)
    first, second = (base64.b64encode(overlay_png(image, map)).decode() for image, map in zip(images, maps, strict=True))
    return ExplainResponse(
        version=loaded.version,
        similarity=explanation.similarity,
        distance=explanation.distance,
        first_overlay=first,
        second_overlay=second,
    )
