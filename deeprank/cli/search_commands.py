"""Commands that embed images with a model: search, distance, explain, evaluate, embed."""

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeprank.cli.options import JsonOption, ModelOption
from deeprank.cli.output import console, print_result, print_table, print_warning, read_bytes
from deeprank.errors import ConfigError, DataError

NOVEL = "The query is unlike anything that the model was trained on: the search relies on pretrained features."

if TYPE_CHECKING:
    from deeprank.data.catalogue import Catalogue


def search(
    model: ModelOption,
    images: Annotated[list[Path] | None, typer.Argument(help="The query image; several images of one object are one query.")] = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Id of an image of the catalogue, as query; repeatable.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of neighbors.")] = 10,
    label_prefix: Annotated[str, typer.Option(help="Only images of this class or of classes below it, e.g. Fruit/Apple.")] = "",
    max_distance: Annotated[float | None, typer.Option(min=0, help="Only images up to this distance, 0 to 2.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the nearest images of the catalogue; several query images are combined into one query."""
    import numpy as np

    from deeprank.registry.releases import open_release
    from deeprank.registry.searcher import Searcher

    images, ids = images or [], ids or []
    if not images and not ids:
        raise ConfigError("no query: name an image file, or an image of the catalogue with --id")
    searcher = Searcher(open_release(model))
    embeddings = [searcher.embed([read_bytes(image) for image in images], [str(image) for image in images])] if images else []
    embeddings += [searcher.stored_embeddings(ids)] if ids else []
    query = searcher.query(np.concatenate(embeddings))
    neighbors = searcher.index.search(query.vector, k, label_prefix=label_prefix, max_distance=max_distance)[0]
    if as_json:
        names = [str(image) for image in images] + ids
        rows = neighbors[["path", "label", "distance", "cluster", "id"]].to_dict("records")
        facts = {"familiarity": query.familiarity, "novel": query.novel}
        print(json.dumps({"query": names[0] if len(names) == 1 else names, **facts, "neighbors": rows}))
        return
    if query.novel:
        print_warning(NOVEL)
    if neighbors.empty:
        console.print("No neighbors" + ("." if max_distance is None else f" up to the distance {max_distance:g}."))
    else:
        print_table(neighbors[["distance", "label", "path", "cluster"]].to_dict("records"))


def distance(
    model: ModelOption,
    image1: Annotated[Path, typer.Option("--image1", help="First image (also -i1).")],
    image2: Annotated[Path, typer.Option("--image2", help="Second image (also -i2).")],
    as_json: JsonOption = False,
) -> None:
    """Print the distance of two images, as a search with the first one returns it: 0 for equal images, at most 2.

    Distances of different models are not comparable.
    """
    from deeprank.registry.releases import open_release
    from deeprank.registry.searcher import Searcher

    searcher = Searcher(open_release(model))
    value = searcher.distance(searcher.embed([read_bytes(image1), read_bytes(image2)], [str(image1), str(image2)]))
    print_result({"distance": value}, as_json, f"{value:.6f}")


def explain(
    image1: Annotated[Path, typer.Argument(help="First image.")],
    image2: Annotated[Path, typer.Argument(help="Second image.")],
    model: ModelOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file to write.")] = Path("explain.png"),
    as_json: JsonOption = False,
) -> None:
    """Draw a heat map on two images, of the regions that contribute to their similarity, and print their distance."""
    from deeprank.evaluation.explain import similarity_maps
    from deeprank.plotting.explanation import explanation_figure
    from deeprank.registry.releases import open_release

    first, second = _stored_jpeg(image1), _stored_jpeg(image2)
    explanation = similarity_maps(*open_release(model).bundle.load(), first, second)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        maps = (explanation.first, explanation.second)
        figure = explanation_figure((first, second), maps, explanation.distance, (image1.name, image2.name))
        figure.savefig(output, format="png", dpi=110, bbox_inches="tight")
    except OSError as error:
        raise DataError(f"--output {output}: cannot be written: {error.strerror}; name a PNG file") from None
    result = {"distance": explanation.distance, "similarity": explanation.similarity, "figure": str(output)}
    print_result(result, as_json, f"distance {explanation.distance:.6f}, heat maps: {output}")


def _stored_jpeg(file: Path) -> bytes:
    """Return an image as the catalogue stores it."""
    from deeprank.data.images import to_stored_jpeg

    data = read_bytes(file)
    try:
        return to_stored_jpeg(data)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def evaluate(
    model: ModelOption,
    queries: Annotated[Path, typer.Option(help="Folder of <class>/<image>: the queries.")],
    gallery: Annotated[Path, typer.Option(help="Folder of <class>/<image>: the images that are searched.")],
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model on two folders: recall@k and mAP@R of fine and coarse classes, nDCG@10, triplet accuracy.

    Every metric has a 95 % interval.
    """
    from deeprank.data.ingest import ingest_folder
    from deeprank.evaluation.folders import evaluate_folders
    from deeprank.registry.releases import open_release

    bundle = open_release(model).bundle
    with tempfile.TemporaryDirectory() as catalogues:
        query_catalogue = ingest_folder(queries, f"{catalogues}/queries", log=print_warning)
        gallery_catalogue = ingest_folder(gallery, f"{catalogues}/gallery", log=print_warning)
        result = evaluate_folders(bundle, query_catalogue, gallery_catalogue, print_warning)
    if as_json:
        print(json.dumps(result.nested()))
        return
    print_table(
        [
            {"metric": name, "value": metric.value, "95 % interval": f"{metric.low:.4f} – {metric.high:.4f}"}
            for name, metric in result.metrics.items()
        ]
    )


def embed(
    model: ModelOption,
    catalogue: Annotated[
        str,
        typer.Option(
            "--catalogue", help="URI of its table, e.g. .deeprank/catalogues/shop-1a2b3c4d5e.lance; @VERSION for another than the newest."
        ),
    ],
    shard: Annotated[
        str, typer.Option("--shard", help="N/OF: the Nth of OF shares of the images, to divide them among processes.")
    ] = "1/1",
    as_json: JsonOption = False,
) -> None:
    """Embed a catalogue's images ahead of time; images that the model has embedded before are skipped.

    The embeddings are kept in a table beside the catalogue, which evaluation, clustering, index and drift read. A command that was
    interrupted can be repeated. To divide the work, start one command for each shard, in any order, on any machine:

        deeprank embed --model models:/deeprank@champion --catalogue s3://bucket/catalogues/shop.lance --shard 1/4    (then 2/4, 3/4, 4/4)
    """
    from deeprank.models.embedding_table import embed_missing
    from deeprank.registry.releases import open_release

    numbers = re.fullmatch(r"(\d+)/(\d+)", shard)
    if numbers is None:
        raise ConfigError(f"--shard {shard}: expected N/OF, e.g. 1/4")
    bundle, images = open_release(model).bundle, open_catalogue(catalogue)
    uri, count = embed_missing(bundle, images, f"embedding, shard {shard}", int(numbers[1]), int(numbers[2]))
    result = {"embedded": count, "shard": shard, "images": len(images.frame), "table": uri}
    print_result(result, as_json, f"{count:,} images embedded of shard {shard} of {len(images.frame):,}: {uri}")


def open_catalogue(reference: str) -> "Catalogue":
    """Return the catalogue of URI or URI@VERSION.

    Raises:
        DataError: there is no such table or version.

    """
    from deeprank.data.catalogue import Catalogue
    from deeprank.data.store import table_versions

    uri, at, number = reference.rpartition("@")
    if not at or not number.isdecimal():
        uri, number = reference, ""
    versions = table_versions(uri)
    if not versions:
        raise DataError(f"--catalogue {uri}: no such table; `deeprank run` creates one, and the tag catalogue.uri of a release names it")
    version = int(number or max(versions))
    if version not in versions:
        raise DataError(
            f"--catalogue {uri}: no version {version}; there are {len(versions)} versions from {min(versions)} to {max(versions)}"
        )
    return Catalogue(uri, version)
