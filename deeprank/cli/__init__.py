"""The `deeprank` command."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
import yaml
from rich.console import Console
from rich.table import Table

from deeprank.errors import ConfigError, DataError, DeepRankError
from deeprank.home import activate, home
from deeprank.settings import read_yaml

if TYPE_CHECKING:
    from deeprank.data.catalogue import Catalogue

app = typer.Typer(
    help="Image similarity by deep ranking: train on folders of similar images, then search with the model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
console = Console(width=None if sys.stdout.isatty() else 200)

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="A bundle's folder, or from the registry: models:/deeprank@champion, models:/deeprank/3.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def main() -> None:
    """Run the command; an error the user can do something about is one message and exit code 1."""
    # The seed's short forms, which have two letters behind one dash.
    argv = [{"-i1": "--image1", "-i2": "--image2"}.get(word, word) for word in sys.argv[1:]]
    activate()
    try:
        app(args=argv, prog_name="deeprank")
    except DeepRankError as error:
        Console(stderr=True).print(f"[bold red]Error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="A YAML file, e.g. configs/demo.yaml.")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE over the config, e.g. train.epochs=3; repeatable.")] = None,
    stack: Annotated[str | None, typer.Option(help="ZenML stack to run on; else the active one.")] = None,
) -> None:
    """Run the training pipeline: ingest, sample triplets, train, evaluate, cluster, register.

    The same as `zenml pipeline run pipelines.training -c CONFIG`, with settings on top. An unknown key ends it before it
    starts.
    """
    if not config.is_file():
        raise ConfigError(f"{config} is no file; configs/ holds ready ones")
    with tempfile.TemporaryDirectory() as folder:
        if settings:
            config = _merged(config, settings, Path(folder))
        zenml = shutil.which("zenml", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if zenml is None:
            raise ConfigError("the zenml command is not installed in this environment: run `make setup`")
        command = [zenml, "pipeline", "run", "pipelines.training", "-c", str(config)]
        code = subprocess.run(command + (["-s", stack] if stack else []), check=False).returncode
    raise typer.Exit(code)


def _merged(config: Path, settings: list[str], folder: Path) -> Path:
    """Write the config with KEY=VALUE pairs merged into its parameters, under its own name, and return the file."""
    merged = read_yaml(config)
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {setting}: expected KEY=VALUE, e.g. train.epochs=3")
        place = merged.setdefault("parameters", {})
        *path, last = key.split(".")
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {setting}: {part} is a value in {config}, it has no keys")
        place[last] = yaml.safe_load(value)
    file = folder / config.name
    file.write_text(yaml.safe_dump(merged))
    return file


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def schedule(context: typer.Context) -> None:
    """Retrain at fixed times: `install --cron "0 3 * * *" --config configs/retrain.yaml`, `list`, `remove`; each has --help."""
    # ZenML is asked, which the library does not know.
    raise typer.Exit(subprocess.run([sys.executable, "-m", "pipelines.schedule", *context.args], check=False).returncode)


@app.command()
def triplets(
    input_directory: Annotated[Path, typer.Option("--input_directory", help="Folder of <class>/<image>, to any depth.")],
    output_directory: Annotated[Path, typer.Option("--output_directory", help="Where triplets.txt goes; made if missing.")],
    num_pos_images: Annotated[int, typer.Option("--num_pos_images", min=1, help="Positives a query, from its own class.")],
    num_neg_images: Annotated[int, typer.Option("--num_neg_images", min=1, help="Negatives for each positive, from other classes.")],
    seed: Annotated[int, typer.Option(help="Same seed, same triplets.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw triplets from a folder and write them as text: `query,positive,negative` a line."""
    from deeprank.data.ingest import ingest_folder
    from deeprank.triplets.sampling import SampleSettings, rows_without_positive, sample_triplets
    from deeprank.triplets.textfile import write_triplet_file

    with tempfile.TemporaryDirectory() as scratch:
        frame = ingest_folder(input_directory, scratch, say=_warn).frame
    settings = SampleSettings(positives=num_pos_images, negatives=num_neg_images, seed=seed)
    drawn, alone = sample_triplets(frame, settings).frame, len(rows_without_positive(frame, settings))
    if alone:
        _warn(f"{alone:,} of {len(frame):,} images are alone in their class: they have no positive and are negatives only")
    try:
        output_directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--output_directory {output_directory}: cannot be made: {error.strerror}; name a folder") from None
    file = output_directory / "triplets.txt"
    write_triplet_file(file, drawn, frame["path"].tolist(), str(input_directory))
    facts = {"file": str(file), "triplets": len(drawn), "images": len(frame), "classes": int(frame["label"].nunique())}
    facts |= {"queries_without_positive": alone}
    _say(facts, as_json, f"{len(drawn):,} triplets of {len(frame):,} images in {facts['classes']} classes: {file}")


@app.command()
def embed(
    model: ModelOption,
    catalogue: Annotated[
        str,
        typer.Option(
            "--catalogue", help="URI of its table, with @VERSION for another than the newest: .deeprank/catalogues/shop-1a2b3c4d5e.lance@3."
        ),
    ],
    part: Annotated[str, typer.Option("--part", help="N/OF: the Nth of so many shares, each for a process or machine of its own.")] = "1/1",
    as_json: JsonOption = False,
) -> None:
    """Embed a catalogue's images ahead of time; those that the model has embedded before are not embedded again.

    Embeddings are kept in a table beside the catalogue, where evaluation, clustering, index and drift find them. A job that was
    killed goes on where it was: call it again. To divide the work, start one command a process or machine, in any order:

        deeprank embed --model models:/deeprank@champion --catalogue s3://bucket/catalogues/shop.lance --part 1/4    (then 2/4, 3/4, 4/4)
    """
    from deeprank.models.embedding_table import embed_shard, embedding_table_uri
    from deeprank.registry.releases import open_release

    of = re.fullmatch(r"(\d+)/(\d+)", part)
    if of is None:
        raise ConfigError(f"--part {part}: expected N/OF, e.g. 1/4")
    bundle, found = open_release(model).bundle, _catalogue(catalogue)
    count = embed_shard(bundle, found, int(of[1]), int(of[2]), f"embedding, part {part}")
    facts = {"embedded": count, "part": part, "images": len(found.frame), "table": embedding_table_uri(bundle, found)}
    _say(facts, as_json, f"{count:,} images embedded of part {part} of {len(found.frame):,}: {facts['table']}")


def _catalogue(reference: str) -> "Catalogue":
    """Return the catalogue of URI or URI@VERSION."""
    from deeprank.data.catalogue import Catalogue, versions

    uri, at, number = reference.rpartition("@")
    if not at or not number.isdecimal():
        uri, number = reference, ""
    there = versions(uri)
    if not there:
        raise DataError(
            f"--catalogue {uri}: there is no such table; `deeprank run` makes one, and the tag catalogue.uri of a release names it"
        )
    version = int(number or max(there))
    if version not in there:
        raise DataError(f"--catalogue {uri}: version {version} is none of its {len(there)} versions, {min(there)} to {max(there)}")
    return Catalogue(uri, version)


@app.command()
def distance(
    model: ModelOption,
    image1: Annotated[Path, typer.Option("--image1", help="An image (also -i1).")],
    image2: Annotated[Path, typer.Option("--image2", help="Another (also -i2).")],
    as_json: JsonOption = False,
) -> None:
    """Print the distance of two images: 0 for the same, 2 at most; comparable within one model only."""
    from deeprank.registry.releases import open_release
    from deeprank.registry.searcher import Searcher

    value = Searcher(open_release(model)).distance(_read(image1), _read(image2))
    _say({"distance": value}, as_json, f"{value:.6f}")


@app.command()
def search(
    model: ModelOption,
    images: Annotated[list[Path] | None, typer.Argument(help="The image to find the like of; several of one thing are one query.")] = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Ask with an image of the catalogue by its id; repeatable.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many neighbors.")] = 10,
    label_prefix: Annotated[str, typer.Option(help="Only this class, or classes below it, e.g. Fruit/Apple.")] = "",
    max_distance: Annotated[float | None, typer.Option(min=0, help="Only up to this distance.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the images of the catalogue that are most like this one, or like several of one thing together."""
    from deeprank.registry.releases import open_release
    from deeprank.registry.searcher import Searcher, together

    images, ids = images or [], ids or []
    if not images and not ids:
        raise ConfigError("nothing to search with: name an image, or one of the catalogue by --id")
    searcher = Searcher(open_release(model))
    parts = ([searcher.embed([_read(image) for image in images])] if images else []) + ([searcher.embeddings_of(ids)] if ids else [])
    query = together(np.concatenate(parts))
    found = searcher.index.search(query, k, label_prefix=label_prefix.strip("/"), max_distance=max_distance)[0][
        ["path", "label", "distance", "cluster", "id"]
    ]
    if as_json:
        asked = [str(image) for image in images] + ids
        print(json.dumps({"query": asked[0] if len(asked) == 1 else asked, "neighbors": found.to_dict("records")}))
        return
    if found.empty:
        console.print("No image fits." + (f" Under {label_prefix} there may be none." if label_prefix else ""))
        return
    _table(found[["distance", "label", "path", "cluster"]].to_dict("records"))


def _stored(file: Path) -> bytes:
    """Return an image in the form in which the project stores it."""
    from deeprank.data.images import stored_jpeg

    data = _read(file)
    try:
        return stored_jpeg(data)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


@app.command()
def explain(
    image1: Annotated[Path, typer.Argument(help="An image.")],
    image2: Annotated[Path, typer.Argument(help="Another.")],
    model: ModelOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG file to write.")] = Path("explain.png"),
    as_json: JsonOption = False,
) -> None:
    """Draw on two images which regions make them alike, and print their distance."""
    from deeprank.evaluation.explain import explanation_figure, similarity_maps
    from deeprank.registry.releases import open_release

    first, second = _stored(image1), _stored(image2)
    found = similarity_maps(*open_release(model).bundle.load(), first, second)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        explanation_figure(found, first, second, (image1.name, image2.name)).savefig(output, format="png", dpi=110, bbox_inches="tight")
    except OSError as error:
        raise DataError(f"--output {output}: cannot be written: {error.strerror}; name a PNG file") from None
    facts = {"distance": found.distance, "similarity": found.similarity, "picture": str(output)}
    _say(facts, as_json, f"distance {found.distance:.6f}, why: {output}")


@app.command()
def serve(
    model: ModelOption = "models:/deeprank@champion",
    host: Annotated[str, typer.Option(help="Where to listen; elsewhere than on this machine wants a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen.")] = 8000,
    token_file: Annotated[Path | None, typer.Option(help="File with the token clients must show; else DEEPRANK_TOKEN.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen elsewhere, or answer to other names, without a token: anybody may ask.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="YAML of limits, batching and follow.")] = None,
) -> None:
    """Answer over HTTP: the page at /, the API under /v1, described at /openapi.json.

    An alias is followed: when it moves, the new release is loaded, checked and taken without a failed request; /readyz says if
    not. A version or a folder stays. Try: curl -F image=@photo.jpg http://127.0.0.1:8000/v1/search
    """
    from pydantic import ValidationError

    from deeprank.serving.server import read_token
    from deeprank.serving.server import serve as run_server
    from deeprank.serving.service import ServeSettings

    try:
        settings = ServeSettings.model_validate(read_yaml(config) if config else {})
    except ValidationError as error:
        raise ConfigError(f"{config}: {error}") from None
    run_server(model, host, port, settings, read_token(token_file), insecure)


@app.command()
def evaluate(
    model: ModelOption,
    queries: Annotated[Path, typer.Option(help="Folder of <class>/<image> that asks.")],
    gallery: Annotated[Path, typer.Option(help="Folder of <class>/<image> that is searched.")],
    as_json: JsonOption = False,
) -> None:
    """Measure a model on folders: recall@k and mAP@R of fine and coarse classes, nDCG@10, triplet accuracy, with 95 % intervals."""
    from deeprank.data.ingest import ingest_folder
    from deeprank.evaluation.folders import evaluate_folders
    from deeprank.registry.releases import open_release

    bundle = open_release(model).bundle
    with tempfile.TemporaryDirectory() as scratch:
        asked = ingest_folder(queries, f"{scratch}/queries", say=_warn)
        searched = ingest_folder(gallery, f"{scratch}/gallery", say=_warn)
        result = evaluate_folders(bundle, asked, searched)
    if as_json:
        print(json.dumps(result.nested()))
        return
    rows = [{"metric": name, "value": m.value, "95 % interval": f"{m.low:.4f} – {m.high:.4f}"} for name, m in result.metrics.items()]
    _table(rows)


NameOption = Annotated[str, typer.Option("--name", help="Name in the registry.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the champion's history.")]


@app.command()
def models(
    name: NameOption = "deeprank",
    history: Annotated[bool, typer.Option("--history", help="Who was champion when, why, and by which run, oldest first.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the releases in the registry, newest first: aliases, figures, and why each is the champion or not."""
    from deeprank.registry.champion import history as moves
    from deeprank.registry.releases import versions

    found = [vars(move) for move in moves(name)] if history else versions(name)
    if as_json:
        print(json.dumps(found))
    elif found:
        _table(found)
    elif history:
        console.print(f"{name} has had no champion yet; `deeprank models --name {name}` says why.")
    else:
        console.print(f"No release of {name} yet: `deeprank run configs/demo.yaml` makes one.")


@app.command()
def promote(
    version: Annotated[int, typer.Argument(min=1, help="As in `deeprank models`.")],
    reason: ReasonOption = "by hand",
    name: NameOption = "deeprank",
    anyway: Annotated[bool, typer.Option("--anyway", help="Although the gate held it.")] = False,
) -> None:
    """Make a release the champion by hand; a release that the gate held wants --anyway."""
    from deeprank.registry.champion import promote as promote_version

    move = promote_version(name, version, reason, anyway)
    console.print(f"{name}: version {move.version} is the champion now, before it {_version(move.before)}")


@app.command()
def rollback(reason: ReasonOption = "by hand", name: NameOption = "deeprank") -> None:
    """Give the title back to the champion before the present one; twice goes back two."""
    from deeprank.registry.champion import rollback as roll_back

    move = roll_back(name, reason)
    console.print(f"{name}: version {move.version} is the champion again, before it {_version(move.before)}")


def _version(number: int | None) -> str:
    return f"version {number}" if number else "none"


@app.command()
def render(
    folder: Annotated[Path, typer.Argument(help="Where to.")],
    classes: Annotated[int, typer.Option(min=2, help="Products.")] = 36,
    images: Annotated[int, typer.Option(min=2, help="Images of each.")] = 40,
    seed: Annotated[int, typer.Option(help="Same seed, same images.")] = 0,
) -> None:
    """Draw images of products, to try things out without any of your own."""
    from deeprank.data.synthetic import write_synthetic

    console.print(f"{write_synthetic(folder, classes, images, seed, progress=True):,} images: {folder}")


@app.command()
def summary(name: Annotated[str, typer.Option(help="Name in the registry.")] = "deeprank") -> None:
    """Print what the newest release reached, and how to look further."""
    from deeprank.registry.releases import latest_release

    release = latest_release(name)
    shown = ["triplet_accuracy", "fine.recall_at_1", "baseline.fine.recall_at_1", "fine.map_at_r", "coarse.recall_at_1"]
    rows = [
        {"metric": key, "value": f"{m.value:.4f}", "95 % interval": f"{m.low:.4f} – {m.high:.4f}"}
        for key in shown
        for m in [release.metrics[key]]
        if not isnan(m.value)
    ]
    _table(rows)
    console.print(f"{name} version {release.version}, alias {release.aliases or 'none'}: {release.reason}\n", highlight=False)
    folder = Path(release.source).expanduser().resolve()
    image, other = (shlex.quote(str(folder / path)) for path in (release.example, release.other))
    commands = [
        f"mlflow ui --backend-store-uri {shlex.quote(os.environ['MLFLOW_TRACKING_URI'])} --port 5000",
        f"deeprank search --model models:/{name}/{release.version} {image} -k 5",
        f"deeprank distance --model models:/{name}/{release.version} --image1 {image} --image2 {other}",
        "deeprank models",
    ]
    console.print("Look further (after `. .venv/bin/activate`):", *commands, sep="\n  ", highlight=False, markup=False, soft_wrap=True)
    console.print(f"Everything made lies in {home()}.", highlight=False, soft_wrap=True)


def _warn(message: str) -> None:
    print(message, file=sys.stderr)


def _say(facts: dict[str, Any], as_json: bool, text: str) -> None:
    print(json.dumps(facts) if as_json else text)


def _table(rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in rows[0]:
        table.add_column(str(column), overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()))
    console.print(table, highlight=False)
