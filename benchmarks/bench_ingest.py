"""Time of a second ingest of an unchanged folder, relative to the first one in the same run."""

import argparse
import json
import tempfile
import time
from pathlib import Path

from deeprank.data.ingest import IngestSettings, ingest
from deeprank.data.synthetic import write_synthetic

IMAGES_PER_CLASS = 50


def main() -> None:
    """Write synthetic images, ingest them twice, and print the ratio of the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, catalogues = Path(temporary, "images"), str(Path(temporary, "catalogues"))
        classes = options.images // IMAGES_PER_CLASS
        write_synthetic(folder, classes=classes, images=IMAGES_PER_CLASS, progress=not options.json)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            catalogue, report = ingest(folder, IngestSettings(), catalogues, progress=not options.json)
            seconds.append(time.perf_counter() - start)
    result = {
        "images": report.num_files,
        "first_seconds": round(seconds[0], 3),
        "second_seconds": round(seconds[1], 3),
        "second_share": round(seconds[1] / seconds[0], 5),
        "files_read_again": report.num_read,
        "catalogue_version": catalogue.version,
    }
    if options.json:
        print(json.dumps(result))
    else:
        share = 100 * result["second_share"]
        print(f"{report.num_files:,} images: first ingest {seconds[0]:.1f} s, second ingest {seconds[1]:.2f} s, {share:.2f} % of the first")


if __name__ == "__main__":
    main()
