"""Options that several commands have."""

from typing import Annotated

import typer

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A release in the registry (models:/deeprank@champion, models:/deeprank/3), or the folder of a bundle or release.",
    ),
]
NameOption = Annotated[str, typer.Option("--name", help="Name of the registered model.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; the champion's history keeps it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
