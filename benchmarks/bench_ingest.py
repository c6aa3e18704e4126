"""What a second look at an unchanged folder costs: ingest against ingest again, in one run."""

import argparse
import json
import tempfile
import time
from pathlib import Path

from deeprank.data.ingest import IngestSettings, ingest
from deeprank.data.synthetic import write_synthetic


def main() -> None:
    """Render, ingest twice, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images, catalogues = Path(folder, "images"), str(Path(folder, "catalogues"))
        write_synthetic(images, classes=options.images // 50, images=50, progress=not options.json)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            catalogue, report = ingest(images, IngestSettings(), catalogues, progress=not options.json)
            seconds.append(time.perf_counter() - start)
    result = {
        "images": report.found,
        "first_seconds": round(seconds[0], 3),
        "again_seconds": round(seconds[1], 3),
        "again_share": round(seconds[1] / seconds[0], 5),
        "read_again": report.read,
        "catalogue_version": catalogue.version,
    }
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{report.found:,} images: first {seconds[0]:.1f} s, again {seconds[1]:.2f} s, {100 * result['again_share']:.2f} % of it")


if __name__ == "__main__":
    main()
