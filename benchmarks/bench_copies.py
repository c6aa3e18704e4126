"""Share of planted copies that the leak check detects, and the similarity of random pairs of one class, which are no copies."""

import argparse
import io
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from color_profile import ADOBE_RGB, DISPLAY_P3, Space, icc_profile
from PIL import Image, ImageCms, ImageEnhance, ImageOps
from rich.console import Console
from rich.table import Table
from same_layout import write_same_layout

from deeprank.data.catalogue import Catalogue
from deeprank.data.copies import MIN_COPY_SIMILARITY, confirm_copies
from deeprank.data.ingest import IngestSettings, ingest
from deeprank.data.synthetic import write_synthetic
from deeprank.evaluation.leakage import LeakageSettings, find_leaks

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
MAX_CROP = 0.1
NUM_SHOWN = 10


def jpeg(image: Image.Image, quality: int = 90, profile: bytes | None = None) -> bytes:
    """Return an image as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, icc_profile=profile)
    return buffer.getvalue()


def resized(image: Image.Image, scale: float) -> Image.Image:
    """Return an image in another size."""
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return an image without MAX_CROP of its width and height, at a random place."""
    left, top = (rng.uniform(0, MAX_CROP, 2) * image.size).round().astype(int).tolist()
    return image.crop((left, top, left + round((1 - MAX_CROP) * image.width), top + round((1 - MAX_CROP) * image.height)))


def in_color_space(image: Image.Image, space: Space) -> Image.Image:
    """Return the pixels of an sRGB image in another color space."""
    target = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile(space)))
    return ImageCms.ImageCmsTransform(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")), target, "RGB", "RGB").apply(image)


KINDS: dict[str, Callable[[Image.Image, np.random.Generator], bytes]] = {
    "JPEG 50": lambda image, _: jpeg(image, 50),
    "JPEG 75": lambda image, _: jpeg(image, 75),
    "JPEG 95": lambda image, _: jpeg(image, 95),
    "size 50 %": lambda image, _: jpeg(resized(image, 0.5)),
    "size 150 %": lambda image, _: jpeg(resized(image, 1.5)),
    "10 % cropped": lambda image, rng: jpeg(cropped(image, rng)),
    "brightness -20 %": lambda image, _: jpeg(ImageEnhance.Brightness(image).enhance(0.8)),
    "brightness +20 %": lambda image, _: jpeg(ImageEnhance.Brightness(image).enhance(1.2)),
    "Adobe RGB": lambda image, _: jpeg(in_color_space(image, ADOBE_RGB), profile=icc_profile(ADOBE_RGB)),
    "Display P3": lambda image, _: jpeg(in_color_space(image, DISPLAY_P3), profile=icc_profile(DISPLAY_P3)),
    "Adobe RGB, profile lost": lambda image, _: jpeg(in_color_space(image, ADOBE_RGB)),
    "Display P3, profile lost": lambda image, _: jpeg(in_color_space(image, DISPLAY_P3)),
}


def plant(folder: Path, split_folder: Path, num_images: int, num_originals: int, rng: np.random.Generator) -> dict[str, str]:
    """Copy random images of a folder into train/, write changed copies of some into test/, and return the source of each copy."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.parent != folder)
    files = [files[i] for i in sorted(rng.permutation(len(files))[:num_images])]
    for file in files:
        target = split_folder / "train" / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    sources = {}
    for number in rng.permutation(len(files))[:num_originals]:
        path = files[number].relative_to(folder)
        image = ImageOps.exif_transpose(Image.open(files[number]).convert("RGB"))
        for kind, change in KINDS.items():
            name = f"test/{path.parent.as_posix()}/{path.stem} {kind}.jpg"
            (split_folder / name).parent.mkdir(parents=True, exist_ok=True)
            (split_folder / name).write_bytes(change(image, rng))
            sources[name] = f"train/{path.as_posix()}"
    return sources


def pairs_of_one_class(labels: npt.NDArray[np.object_]) -> npt.NDArray[np.int64]:
    """Return all pairs (m, 2) of rows with the same label."""
    pairs = np.stack(np.triu_indices(len(labels), 1), axis=1)
    return pairs[labels[pairs[:, 0]] == labels[pairs[:, 1]]]


def compare(pairs: npt.NDArray[np.int64], catalogue: Catalogue, options: argparse.Namespace) -> dict[str, object]:
    """Return how many of the pairs are called copies, the most similar ones, and the time of a pair."""
    start = time.perf_counter()
    similarity = confirm_copies(pairs, catalogue.read_jpegs, None if options.json else f"comparing {len(pairs):,} pairs")
    seconds = time.perf_counter() - start
    paths, highest = catalogue.frame["path"].to_numpy(), np.argsort(-similarity, kind="stable")[:NUM_SHOWN]
    return {
        "pairs": len(pairs),
        "called_copies": int((similarity >= MIN_COPY_SIMILARITY).sum()),
        "most_similar": [(round(float(similarity[i]), 3), *paths[pairs[i]].tolist()) for i in highest],
        "ms_per_pair": round(1000 * seconds / max(len(pairs), 1), 2),
    }


def measure(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Return the detected planted copies by kind, other pairs called copies, and the comparison of random pairs of one class."""
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        images = Path(temporary, "images")
        sources = plant(folder, images, options.images, options.originals, rng)
        settings = IngestSettings(near_duplicate_bits=0)
        catalogue, _ = ingest(images, settings, str(Path(temporary, "catalogues")), progress=not options.json)
        leaks = find_leaks(catalogue, LeakageSettings())
        # A planted copy is in no class, so that it is in no pair.
        labels = catalogue.frame["label"].where(catalogue.frame["split"] == "train", catalogue.frame["path"])
        pairs = pairs_of_one_class(labels.to_numpy())
        random = compare(pairs[np.sort(rng.permutation(len(pairs))[: options.pairs])], catalogue, options)
    detected = set(zip(leaks["path"], leaks["other_path"], strict=True))
    by_kind = {kind: sum(pair in detected for pair in sources.items() if pair[0].endswith(f" {kind}.jpg")) for kind in KINDS}
    others = sorted(pair for pair in detected if sources[pair[0]] != pair[1])
    return {"copies_per_kind": len(sources) // len(KINDS), "detected": by_kind, "other_copies": others, "random_pairs": random}


def measure_same_layout(options: argparse.Namespace) -> dict[str, object]:
    """Return the comparison of all pairs of two classes of one layout."""
    with tempfile.TemporaryDirectory() as temporary:
        images = Path(temporary, "images")
        write_same_layout(images)
        catalogue, _ = ingest(images, IngestSettings(near_duplicate_bits=0), str(Path(temporary, "catalogues")), progress=not options.json)
        labels = catalogue.frame["label"]
        pairs = pairs_of_one_class(labels.str.partition("-")[0].to_numpy())
        return compare(pairs[labels.to_numpy()[pairs[:, 0]] != labels.to_numpy()[pairs[:, 1]]], catalogue, options)


def main() -> None:
    """Measure each collection and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders of <class>/<image>, beside synthetic images")
    parser.add_argument("--images", type=int, default=1500, help="images of each collection at most")
    parser.add_argument("--originals", type=int, default=20, help="images of each collection that get a copy of each kind")
    parser.add_argument("--pairs", type=int, default=10_000, help="random pairs of one class of each collection")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as synthetic:
        write_synthetic(Path(synthetic), classes=36, images=40, progress=not options.json)
        folders = {**{folder.name: folder for folder in options.data}, "synthetic": Path(synthetic)}
        results = {name: measure(folder, options) for name, folder in folders.items()}
    same_layout = measure_same_layout(options)
    if options.json:
        print(json.dumps({"threshold": MIN_COPY_SIMILARITY, "collections": results, "same_layout": same_layout}))
        return
    table = Table("", *results, title=f"copies detected of {options.originals} of each kind")
    for kind in KINDS:
        table.add_row(kind, *(f"{result['detected'][kind]}" for result in results.values()))
    for row, key in (("random pairs of one class", "pairs"), ("of these called copies", "called_copies"), ("ms a pair", "ms_per_pair")):
        table.add_row(row, *(f"{result['random_pairs'][key]:,}" for result in results.values()))
    table.add_row("highest similarity of these", *(f"{result['random_pairs']['most_similar'][0][0]:.3f}" for result in results.values()))
    Console().print(table)
    pairs, copies, highest = same_layout["pairs"], same_layout["called_copies"], same_layout["most_similar"][0][0]
    print(f"one layout: {pairs:,} pairs of two classes, {copies} called copies, the highest similarity is {highest:.3f}")


if __name__ == "__main__":
    main()
