"""The HTTP service: what is asked goes to the release that answers now, and each answer says which that was."""

import base64
import io
import time
from collections.abc import Callable
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse
from PIL import Image
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from deeprank import __version__
from deeprank.errors import DataError
from deeprank.evaluation.explain import overlay_png, similarity_maps
from deeprank.registry.searcher import Vectors, distance_of, together
from deeprank.serving.errors import Problem, described, tell_problems
from deeprank.serving.middleware import RequestGuard
from deeprank.serving.schemas import requests as questions
from deeprank.serving.schemas import responses as answers
from deeprank.serving.schemas.requests import EmbedQuestion, PairQuestion, Question, SearchQuestion, read
from deeprank.serving.service import Served, Service

PAGE = Path(__file__).with_name("page")
THUMBNAIL_QUALITY = 85
# An id is the hash of what it names, so that its picture never changes.
FOR_EVER = "private, max-age=31536000, immutable"

ImageId = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the image's file.")]
PROBLEMS = described(401, 429, 503)
POSTED = described(400, 401, 408, 413, 415, 422, 429, 503)


def create_app(service: Service, token: str | None = None, names: frozenset[str] | None = None) -> FastAPI:
    """Return the service as an ASGI application.

    Args:
        service: that answers.
        token: that clients must show; None: none.
        names: that a request's Host may have; None: any.

    """
    app = FastAPI(
        title="deeprank",
        version=__version__,
        description="Images like this one: search, embeddings and distances by the model that the registry calls champion.",
        docs_url=None,
        redoc_url=None,
    )
    tell_problems(app)
    _search_routes(app, service)
    _browse_routes(app, service)
    _state_routes(app, service)
    page = {"/" if file.name == "index.html" else f"/{file.name}": file for file in sorted(PAGE.iterdir())}
    for path, file in page.items():
        # Each by a route of its own: files mounted at / would answer for the API's routes too, where the method is wrong.
        app.add_route(path, _file(file), include_in_schema=False)
    # The page itself holds nothing secret: it asks for the token, and shows it with each of its requests.
    app.add_middleware(RequestGuard, limits=service.settings.limits, token=token, meters=service.meters, free=frozenset(page), names=names)
    _describe_problems(app)
    return app


def _file(file: Path) -> Callable[[Request], FileResponse]:
    return lambda _: FileResponse(file)


def _search_routes(app: FastAPI, service: Service) -> None:
    async def embeddings(served: Served, question: Question) -> Vectors:
        """Return (n, d): of the images, then of the images of the catalogue."""
        parts = []
        if question.uploads:
            parts.append(await service.batcher.embed(served.searcher, question.uploads))
        if question.all_ids:
            parts.append(await service.batcher.run(served.searcher.embeddings_of, question.all_ids))
        return np.concatenate(parts)

    @app.post("/v1/search", tags=["search"], responses=POSTED, openapi_extra=questions.described(SearchQuestion, id=answers.ID, k=5))
    async def search(request: Request) -> answers.Neighbors:
        """Find the images that are most like one; several images are one thing seen from several sides."""
        question = await read(request, SearchQuestion)
        start, served = time.perf_counter(), service.current()
        query = together(await embeddings(served, question))
        found = await service.batcher.finish(_neighbors, served, query, question)
        took = (time.perf_counter() - start) * 1000
        return answers.Neighbors(version=served.version, model=served.model, neighbors=found, took_ms=round(took, 2))

    @app.post("/v1/embed", tags=["search"], responses=POSTED, openapi_extra=questions.described(EmbedQuestion, image="/9j/4AAQ…"))
    async def embed(request: Request) -> answers.Embeddings:
        """Return the embedding of each image."""
        question = await read(request, EmbedQuestion)
        served = service.current()
        found = await service.batcher.embed(served.searcher, question.uploads)
        return answers.Embeddings(version=served.version, embeddings=found.tolist())

    pair = questions.described(PairQuestion, ids=[answers.ID, answers.ID])

    @app.post("/v1/distance", tags=["search"], responses=POSTED, openapi_extra=pair)
    async def distance(request: Request) -> answers.Distance:
        """Return the distance of two images; comparable within one release only."""
        question = await read(request, PairQuestion)
        served = service.current()
        return answers.Distance(version=served.version, distance=distance_of(await embeddings(served, question)))

    @app.post("/v1/explain", tags=["search"], responses=POSTED, openapi_extra=pair)
    async def explain(request: Request) -> answers.Explained:
        """Draw over two images what each region adds to their similarity."""
        question = await read(request, PairQuestion)
        served = service.current()
        return await service.batcher.run(_explained, service, served, question)


def _neighbors(served: Served, query: Vectors, question: SearchQuestion) -> list[answers.Neighbor]:
    index = served.searcher.index
    ((places, distances),) = index.places_near(
        query, question.k, label_prefix=question.label_prefix.strip("/"), max_distance=question.max_distance
    )
    images = served.browser.images(places)
    return [answers.Neighbor.model_construct(**one, distance=distance) for one, distance in zip(images, distances.tolist(), strict=True)]


def _explained(service: Service, served: Served, question: PairQuestion) -> answers.Explained:
    images = [service.stored(upload) for upload in question.uploads]
    images += [served.searcher.image(id) for id in question.all_ids]
    found = similarity_maps(*served.searcher.model, *images)
    maps = zip(images, (found.first, found.second), strict=True)
    first, second = (base64.b64encode(overlay_png(image, part)).decode() for image, part in maps)
    return answers.Explained(version=served.version, similarity=found.similarity, distance=found.distance, first=first, second=second)


def _browse_routes(app: FastAPI, service: Service) -> None:
    @app.get(
        "/v1/images/{id}",
        tags=["catalogue"],
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, 304: {"description": "Not Modified"}, **described(401, 404, 422, 429, 503)},
    )
    async def image(request: Request, id: ImageId, size: Annotated[int, Query(ge=16, le=256, description="Long side.")] = 256) -> Response:
        """Return an image of the catalogue as a small JPEG."""
        tag = f'"{id}-{size}"'
        headers = {"ETag": tag, "Cache-Control": FOR_EVER}
        served = service.current()
        try:
            served.searcher.index.places_of([id])
            if tag in request.headers.get("if-none-match", ""):
                return Response(status_code=304, headers=headers)
            jpeg = await service.batcher.run(_thumbnail, served, id, size)
        except DataError as error:
            raise HTTPException(404, str(error)) from None
        return Response(jpeg, media_type="image/jpeg", headers=headers)

    @app.get("/v1/classes", tags=["catalogue"], responses=PROBLEMS)
    async def classes() -> answers.Classes:
        """List every label and every folder of labels, to filter by."""
        served = service.current()
        found = await service.batcher.run(lambda: served.browser.classes)
        counts = [answers.ClassCount(label=label, count=count, is_class=leaf) for label, count, leaf in found]
        return answers.Classes(version=served.version, classes=counts)

    @app.get("/v1/samples", tags=["catalogue"], responses=described(401, 422, 429, 503))
    async def samples(count: Annotated[int, Query(ge=1, le=200)] = 24) -> answers.Samples:
        """List images to start from, of so many classes, spread over all of them."""
        served = service.current()
        found = await service.batcher.run(lambda: served.browser.samples)
        places = np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int))
        return answers.Samples(
            version=served.version, samples=[answers.CatalogueImage(**one) for one in served.browser.images(found[places])]
        )

    @app.get("/v1/clusters", tags=["catalogue"], responses=PROBLEMS)
    async def clusters() -> answers.Clusters:
        """List the clusters, the largest first."""
        served = service.current()
        found = await service.batcher.run(lambda: served.browser.clusters)
        return answers.Clusters(version=served.version, clusters=[answers.ClusterSummary(**asdict(one)) for one in found])

    @app.get("/v1/clusters/{cluster}", tags=["catalogue"], responses=described(401, 404, 422, 429, 503))
    async def members(
        cluster: Annotated[int, PathParameter(ge=0, le=2**31)],
        offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 60,
    ) -> answers.ClusterMembers:
        """Return a cluster and a page of its images."""
        served = service.current()
        browser = served.browser
        try:
            places = await service.batcher.run(browser.members, cluster)
        except DataError as error:
            raise HTTPException(404, str(error)) from None
        summary = next(one for one in await service.batcher.finish(lambda: browser.clusters) if one.cluster == cluster)
        end = offset + limit
        page = [answers.CatalogueImage(**one) for one in browser.images(places[offset:end])]
        more = end if end < len(places) else None
        return answers.ClusterMembers(version=served.version, **asdict(summary), members=page, offset=offset, next=more)


def _thumbnail(served: Served, id: str, size: int) -> bytes:
    jpeg = served.searcher.image(id)
    image = Image.open(io.BytesIO(jpeg))
    if max(image.size) <= size:
        return jpeg
    image.draft("RGB", (size, size))
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=THUMBNAIL_QUALITY)
    return buffer.getvalue()


def _state_routes(app: FastAPI, service: Service) -> None:
    @app.get("/v1/model", tags=["state"], responses=PROBLEMS)
    async def model() -> answers.ModelFacts:
        """Describe the release that answers now: version, metrics, since when."""
        served = service.current()
        searcher, index = served.searcher, served.searcher.index
        metrics = {
            name: answers.Metric(**{key: _known(value) for key, value in asdict(one).items()}) for name, one in served.metrics.items()
        }
        return answers.ModelFacts(
            version=served.version,
            model=served.model,
            name=served.model.removeprefix("models:/").partition("/")[0],
            aliases=list(served.aliases),
            since=served.since,
            checked=served.checked,
            weights=searcher.release.bundle.weights_hash,
            embedding_dim=searcher.model[0].embedding_dim,
            images=len(index.rows),
            catalogue_version=index.catalogue.version,
            gate_state=served.tags.get("gate.state", ""),
            gate_reason=served.tags.get("gate.reason", ""),
            metrics=metrics,
        )

    @app.get("/healthz", tags=["state"])
    async def healthz() -> answers.Health:
        """Say that the process is alive."""
        return answers.Health(status="alive")

    @app.get("/readyz", tags=["state"], responses={503: {"model": answers.Readiness}})
    async def readyz(response: Response) -> answers.Readiness:
        """Say whether a release answers, and what keeps a newer one from it."""
        served, refused, registry = service.served, service.refused, service.registry
        response.status_code = 200 if served else 503
        return answers.Readiness(
            status="ready" if served else "no release",
            version=served.version if served else None,
            since=served.since if served else None,
            refused=answers.RefusedRelease(**asdict(refused)) if refused else None,
            registry=answers.RegistryLook(**asdict(registry)) if registry else None,
        )

    @app.get("/metrics", tags=["state"], response_class=Response, responses={200: {"content": {"text/plain": {}}}, **described(401)})
    async def metrics() -> Response:
        """Return the counters in Prometheus' text format."""
        return Response(service.meters.text(), media_type=CONTENT_TYPE_LATEST)


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and isnan(value) else value


def _describe_problems(app: FastAPI) -> None:
    """Put the problem's schema where the descriptions of the routes point to."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return document

    app.openapi = openapi  # type: ignore[method-assign]
