"""`deeprank synthetic` and `deeprank triplets`: images and triplet files without the pipeline."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from deeprank.cli.options import JsonOption
from deeprank.cli.output import console, print_result, print_warning
from deeprank.errors import DataError


def synthetic(
    folder: Annotated[Path, typer.Argument(help="Output folder; images go to <category>/<kind>/<variant>/.")],
    classes: Annotated[int, typer.Option(min=2, help="Number of products; each is a class.")] = 36,
    images: Annotated[int, typer.Option(min=2, help="Number of images per product.")] = 40,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same images.")] = 0,
) -> None:
    """Draw synthetic images of products, to try everything without images of your own."""
    from deeprank.data.synthetic import write_synthetic

    console.print(f"{write_synthetic(folder, classes, images, seed, progress=True):,} images: {folder}")


def triplets(
    input_directory: Annotated[Path, typer.Option("--input_directory", help="Folder of <class>/<image>; classes may be nested.")],
    output_directory: Annotated[Path, typer.Option("--output_directory", help="Folder for triplets.txt; created if missing.")],
    num_pos_images: Annotated[int, typer.Option("--num_pos_images", min=1, help="Positives per query, from the query's class.")],
    num_neg_images: Annotated[int, typer.Option("--num_neg_images", min=1, help="Negatives per positive, from other classes.")],
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same triplets.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Sample triplets from a folder and write them as text, one `query,positive,negative` per line."""
    from deeprank.data.ingest import ingest_folder
    from deeprank.triplets.sampling import SampleSettings, rows_without_positive, sample_triplets
    from deeprank.triplets.textfile import write_triplet_file

    with tempfile.TemporaryDirectory() as catalogues:
        images = ingest_folder(input_directory, catalogues, log=print_warning).frame
    settings = SampleSettings(positives=num_pos_images, negatives=num_neg_images, seed=seed)
    sampled = sample_triplets(images, settings).frame
    num_without_positive = len(rows_without_positive(images, settings))
    if num_without_positive:
        print_warning(f"{num_without_positive:,} of {len(images):,} images have no positive: they are the only image of their class")
    try:
        output_directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--output_directory {output_directory}: cannot be created: {error.strerror}; name a folder") from None
    file, num_classes = output_directory / "triplets.txt", int(images["label"].nunique())
    write_triplet_file(file, sampled, images["path"].tolist(), str(input_directory))
    result = {
        "file": str(file),
        "triplets": len(sampled),
        "images": len(images),
        "classes": num_classes,
        "queries_without_positive": num_without_positive,
    }
    print_result(result, as_json, f"{len(sampled):,} triplets of {len(images):,} images in {num_classes} classes: {file}")
