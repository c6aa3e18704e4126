"""The service as an ASGI application: the API, the page and the request guard."""

from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse

from deeprank import __version__
from deeprank.serving.errors import add_problem_handlers
from deeprank.serving.middleware import RequestGuard
from deeprank.serving.routes.catalogue import catalogue_router
from deeprank.serving.routes.search import search_router
from deeprank.serving.routes.state import state_router
from deeprank.serving.service import Service

PAGE = Path(__file__).with_name("page")


def create_app(service: Service, token: str | None = None, allowed_hosts: frozenset[str] | None = None) -> FastAPI:
    """Return a service as an ASGI application.

    Args:
        service: the service behind the routes.
        token: token that clients must send; None: no token.
        allowed_hosts: values that a request's Host header may have; None: any.

    """
    app = FastAPI(
        title="deeprank",
        version=__version__,
        description="Image similarity: search, embeddings and distances by the champion of the model registry.",
        docs_url=None,
        redoc_url=None,
    )
    for create_router in (search_router, catalogue_router, state_router):
        app.include_router(create_router(service))
    public_paths = _add_page(app)
    app.add_middleware(
        RequestGuard,
        limits=service.settings.limits,
        token=token,
        metrics=service.metrics,
        public_paths=public_paths,
        allowed_hosts=allowed_hosts,
    )
    add_problem_handlers(app)
    return app


def _add_page(app: FastAPI) -> frozenset[str]:
    """Add one route for each file of the page, and return their paths.

    A mount at / would also answer requests to the API's routes that have the wrong method. The files need no token: they hold no
    data, and the page adds the token to its own requests.
    """
    files = {"/" if file.name == "index.html" else f"/{file.name}": file for file in sorted(PAGE.iterdir())}
    for path, file in files.items():
        app.add_route(path, _file_endpoint(file), include_in_schema=False)
    return frozenset(files)


def _file_endpoint(file: Path) -> Callable[[Request], FileResponse]:
    return lambda _: FileResponse(file)
