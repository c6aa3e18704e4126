"""The service under load from another process, against the bare model on the same images and cores.

The model is the default one before training. The index holds the prepared images. Each connection sends its next search when it
has the response to the last one. `ratio` is searches per second, with ten neighbors each, divided by the images per second of the
bare model, which embeds decoded images in batches, before and after the load. With --swaps the alias moves between two releases
during the load, in a registry of the benchmark's own; each response must come from a single release.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import torch
from mlflow import MlflowClient
from peers import prepare

from deeprank.data.catalogue import Catalogue
from deeprank.evaluation.bundle_evaluation import embed_and_evaluate
from deeprank.evaluation.gate import Decision
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import ModelSettings, create_model
from deeprank.models.inference import BATCH_SIZE, embed_catalogue
from deeprank.models.preprocessing import Preprocessing
from deeprank.registry.canary import CANARY_FILE, write_canary
from deeprank.registry.register import RegisterSettings, register
from deeprank.registry.releases import Release
from deeprank.registry.searcher import Searcher
from deeprank.row_numbers import CatalogueRows
from deeprank.search.clustering import ClusterSettings, cluster_embeddings
from deeprank.search.index_build import write_index
from deeprank.triplets.sampling import SampleSettings, sample_triplets

NAME = "bench"
BOUNDARY = b"----bench"
NUM_QUERIES = 200
WARMUP_S = 3.0
SERVE_SCRIPT = """
import sys
from deeprank.serving.server import serve
from deeprank.serving.service import AliasWatcherSettings, ServeSettings
settings = ServeSettings(alias_watcher=AliasWatcherSettings(poll_interval_s=0.5))
serve(sys.argv[1], port=int(sys.argv[2]), settings=settings)
"""


@dataclass(frozen=True)
class Response:
    """A response of the service: its duration, the number of its query, the HTTP status and the body."""

    seconds: float
    query: int
    status: int
    body: bytes


def make_release(folder: Path, catalogue: Catalogue, seed: int, size: int) -> Path:
    """Write the release of the default model with an untrained head, which searches with images of size x size pixels."""
    torch.manual_seed(seed)
    model_settings = ModelSettings()
    bundle = Bundle.save(folder / "bundle", create_model(model_settings), model_settings, Preprocessing(size=size), {"catalogue": "none"})
    model, preprocessing = bundle.load()
    embeddings = embed_catalogue(model, preprocessing, catalogue, CatalogueRows(np.arange(len(catalogue.frame))))
    write_index(folder / "index", bundle, catalogue, embeddings, cluster_embeddings(embeddings, ClusterSettings()))
    triplets = sample_triplets(catalogue.frame, SampleSettings(), catalogue.fingerprint)
    embed_and_evaluate(catalogue, triplets, bundle, "model").save(folder / "evaluation")
    write_canary(Release(folder), folder / CANARY_FILE)
    return folder


def register_releases(scratch: Path, folders: list[Path], catalogue: Catalogue) -> str:
    """Register releases, the first as champion, and return the URI of the champion."""
    experiment = mlflow.create_experiment("bench", (scratch / "artifacts").as_uri())
    for number, folder in enumerate(folders):
        decision = Decision("held" if number else "first-champion", number == 0, "benchmark")
        with mlflow.start_run(experiment_id=experiment):
            register(folder, RegisterSettings(name=NAME), decision, catalogue, "card")
    return f"models:/{NAME}@champion"


def embed_repeatedly(folder: Path, files: list[bytes], seconds: float) -> float:
    """Return the images per second of the bare model in this process, on batches of decoded images."""
    searcher = Searcher(Release(folder))
    images = torch.stack([searcher.preprocess(file) for file in files[:BATCH_SIZE]])
    searcher.forward(images)
    start, num_images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        searcher.forward(images)
        num_images += len(images)
    return num_images / (time.perf_counter() - start)


def bare_model_rate(folder: Path, files: list[bytes], seconds: float) -> float:
    """Return `embed_repeatedly` of a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(embed_repeatedly, folder, files, seconds).result()


def search_request(file: bytes) -> bytes:
    """Return the HTTP request of a search with an image file."""
    part_header = b'--%s\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n' % BOUNDARY
    body = part_header + file + b"\r\n--%s--\r\n" % BOUNDARY
    lines = (b"POST /v1/search HTTP/1.1", b"Host: localhost", b"Content-Type: multipart/form-data; boundary=" + BOUNDARY)
    return b"\r\n".join((*lines, b"Content-Length: %d" % len(body), b"", body))


async def send_searches(port: int, requests: list[bytes], first: int, deadline: float, responses: list[Response]) -> None:
    """Send requests over one connection, one after another, until the deadline; add the responses to a list."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    query = first
    while time.perf_counter() < deadline:
        query = (query + 1) % len(requests)
        start = time.perf_counter()
        writer.write(requests[query])
        header = await reader.readuntil(b"\r\n\r\n")
        length = int(header.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        responses.append(Response(time.perf_counter() - start, query, int(header[9:12]), body))
        if responses[-1].status == 429:
            await asyncio.sleep(0.1)
    writer.close()


async def apply_load(port: int, requests: list[bytes], num_connections: int, seconds: float, num_swaps: int) -> list[Response]:
    """Return all responses of concurrent connections; the alias moves `num_swaps` times meanwhile."""
    responses: list[Response] = []
    deadline = time.perf_counter() + seconds
    tasks = [send_searches(port, requests, n * 7, deadline, responses) for n in range(num_connections)]
    if num_swaps:
        tasks.append(asyncio.to_thread(move_alias, port, num_swaps, seconds / (num_swaps + 1)))
    await asyncio.gather(*tasks)
    return responses


def move_alias(port: int, num_swaps: int, interval_s: float) -> None:
    """Move the alias back and forth; after each move wait until the service has loaded the release."""
    for number in range(num_swaps):
        version = 2 - number % 2
        start = time.perf_counter()
        MlflowClient().set_registered_model_alias(NAME, "champion", str(version))
        while httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=60).json()["version"] != version:
            time.sleep(0.05)
        time.sleep(max(0.0, interval_s - (time.perf_counter() - start)))


def start_service(model: str, port: int) -> subprocess.Popen[bytes]:
    """Start the service and wait until it is ready."""
    process = subprocess.Popen([sys.executable, "-c", SERVE_SCRIPT, model, str(port)])
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/readyz").raise_for_status()
            return process
        except httpx.HTTPError:
            if process.poll() is not None:
                raise SystemExit("the service did not start") from None
            time.sleep(0.2)


def count_inconsistent(responses: list[Response]) -> int:
    """Return the number of responses that differ from the first one to the same query by the same version."""
    expected: dict[tuple[int, int], list[float]] = {}
    num_inconsistent = 0
    for response in responses:
        if response.status == 200:
            result = json.loads(response.body)
            distances = [neighbor["distance"] for neighbor in result["neighbors"]]
            first = expected.setdefault((response.query, result["version"]), distances)
            num_inconsistent += not np.allclose(first, distances, atol=1e-4)
    return num_inconsistent


def main() -> None:
    """Parse the options, run the benchmark and print its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--size", type=int, default=256, help="image size of the search, in pixels (default: 256, as configs/grocery.yaml)")
    parser.add_argument("--swaps", type=int, default=0, help="how often the alias moves during the load")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, socket.socket() as free:
        # Set before the first use of MLflow: a registry and a state folder of the benchmark's own.
        os.environ |= {"DEEPRANK_HOME": f"{scratch}/home", "MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/mlflow.db"}
        result = run_benchmark(Path(scratch), options, free)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:>28}  {value}")


def run_benchmark(scratch: Path, options: argparse.Namespace, free: socket.socket) -> dict[str, Any]:
    """Build the releases, measure the model, the service under load, and the model again; return all results by name."""
    data = prepare(str(scratch / "data"))
    catalogue = Catalogue(data["uri"], data["version"])
    folders = [make_release(scratch / f"release-{seed}", catalogue, seed, options.size) for seed in range(2 if options.swaps else 1)]
    model = register_releases(scratch, folders, catalogue) if options.swaps else str(folders[0])
    rows = np.random.default_rng(0).choice(catalogue.rows("test"), NUM_QUERIES)
    files = [Path(data["source"], path).read_bytes() for path in catalogue.frame["path"].iloc[rows]]
    before = bare_model_rate(folders[0], files, 5 + options.seconds / 6)
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    process = start_service(model, port)
    try:
        requests = [search_request(file) for file in files]
        asyncio.run(apply_load(port, requests, options.connections, WARMUP_S, 0))
        start = time.perf_counter()
        responses = asyncio.run(apply_load(port, requests, options.connections, options.seconds, options.swaps))
        seconds = time.perf_counter() - start
    finally:
        process.terminate()
        process.wait(60)
    after = bare_model_rate(folders[0], files, 5 + options.seconds / 6)
    settings = {"images": len(catalogue.frame), "pixels": options.size, "connections": options.connections, "swaps": options.swaps}
    return settings | summarize(responses, seconds, before, after)


def summarize(responses: list[Response], seconds: float, before: float, after: float) -> dict[str, Any]:
    """Return the results by name.

    Args:
        responses: all responses under load.
        seconds: duration of the load.
        before, after: images per second of the bare model before and after the load.

    """
    statuses = Counter(response.status for response in responses)
    successes = [response for response in responses if response.status == 200]
    durations_ms = np.array([response.seconds for response in successes]) * 1000
    rate = statuses[200] / seconds
    versions = Counter(json.loads(response.body)["version"] for response in successes)
    return {
        "seconds": round(seconds, 1),
        "requests": len(responses),
        "statuses": dict(statuses),
        "failed": sum(count for status, count in statuses.items() if status not in (200, 429)),
        "requests_per_second": round(rate, 1),
        "p50_ms": round(float(np.quantile(durations_ms, 0.5)), 1),
        "p95_ms": round(float(np.quantile(durations_ms, 0.95)), 1),
        "bare_model_before": round(before, 1),
        "bare_model_after": round(after, 1),
        "ratio": round(rate / ((before + after) / 2), 3),
        "versions": {str(version): count for version, count in versions.items()},
        "inconsistent": count_inconsistent(responses),
    }


if __name__ == "__main__":
    main()
