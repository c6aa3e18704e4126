"""`deeprank serve`: the HTTP service."""

from pathlib import Path
from typing import Annotated

import typer

from deeprank.cli.options import ModelOption
from deeprank.settings import parse_settings, read_yaml


def serve(
    model: ModelOption = "models:/deeprank@champion",
    host: Annotated[str, typer.Option(help="Address to listen at; any but this machine's own needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that clients must send; default: the variable DEEPRANK_TOKEN.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Without a token, listen at other addresses and accept other host names: anybody may search.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="YAML file with the service's settings; docs/settings.md lists them.")] = None,
) -> None:
    """Serve a release over HTTP: a search page at /, the API under /v1, its description at /openapi.json.

    If the model is an alias, the service follows it: when the alias moves, the new release is loaded and checked, then replaces the
    old one without a failed request; /readyz says if that failed. A version or a folder stays.
    Try: curl -F image=@photo.jpg http://127.0.0.1:8000/v1/search
    """
    from deeprank.serving.server import read_token
    from deeprank.serving.server import serve as run_server
    from deeprank.serving.service import ServeSettings

    settings = parse_settings(ServeSettings, read_yaml(config), config) if config else ServeSettings()
    run_server(model, host, port, settings, read_token(token_file), insecure)
