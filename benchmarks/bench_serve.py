"""The service under load from another process, against the bare net embedding the same images in batches on the same cores.

The net is the default one before training, the index holds the images (grocery, else synthetic ones), and so many connections
ask, each its next question when it has its answer. `ratio`: requests a second, each answered with ten neighbors, over images a
second of the bare net, whose input is decoded beforehand; both before and after the load. With --swaps the alias moves meanwhile
between two releases in a registry of the benchmark's own; each answer must be one release's.
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
from deeprank.models.inference import BATCH, embed_catalogue
from deeprank.models.preprocessing import Preprocessing
from deeprank.registry.canary import FILE, write_canary
from deeprank.registry.register import RegisterSettings, register
from deeprank.registry.releases import Release
from deeprank.registry.searcher import Searcher
from deeprank.search.clusters import ClusterSettings, cluster
from deeprank.search.index import Index
from deeprank.triplets.sampling import SampleSettings, sample_triplets

NAME = "bench"
BOUNDARY = b"----bench"
SERVE = """
import sys
from deeprank.serving.server import serve
from deeprank.serving.service import FollowSettings, ServeSettings
serve(sys.argv[1], port=int(sys.argv[2]), settings=ServeSettings(follow=FollowSettings(every=0.5)))
"""


def make_release(folder: Path, catalogue: Catalogue, seed: int, size: int) -> Path:
    """Write the release of the default net with an untrained head of a seed, searching at so many pixels."""
    torch.manual_seed(seed)
    model_settings = ModelSettings()
    bundle = Bundle.save(folder / "bundle", create_model(model_settings), model_settings, Preprocessing(size=size), {"catalogue": "none"})
    net, preprocessing = bundle.load()
    embeddings = embed_catalogue(net, preprocessing, catalogue, np.arange(len(catalogue.frame)))
    Index.build(folder / "index", bundle, catalogue, embeddings, cluster(embeddings, ClusterSettings()))
    triplets = sample_triplets(catalogue.frame, SampleSettings(), catalogue.fingerprint)
    embed_and_evaluate(catalogue, triplets, bundle, "net").save(folder / "evaluation")
    write_canary(Release(folder), folder / FILE)
    return folder


def bare(folder: Path, files: list[bytes], seconds: float) -> float:
    """Return how many images a second the net embeds, in batches that are ready in memory, in this process."""
    searcher = Searcher(Release(folder))
    images = torch.stack([searcher.prepare(file) for file in files[:BATCH]])
    searcher.forward(images)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        searcher.forward(images)
        done += len(images)
    return done / (time.perf_counter() - start)


def alone(folder: Path, files: list[bytes], seconds: float) -> float:
    """Return `bare` of a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(bare, folder, files, seconds).result()


def question(file: bytes) -> bytes:
    """Return the whole request of one upload."""
    head = b'--%s\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n' % BOUNDARY
    body = head + file + b"\r\n--%s--\r\n" % BOUNDARY
    lines = (b"POST /v1/search HTTP/1.1", b"Host: localhost", b"Content-Type: multipart/form-data; boundary=" + BOUNDARY)
    return b"\r\n".join((*lines, b"Content-Length: %d" % len(body), b"", body))


async def ask(port: int, asked: list[bytes], first: int, until: float, answers: list[tuple[float, int, int, bytes]]) -> None:
    """Ask over one connection until the time is over; each answer is its seconds, the place of its question, status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    place = first
    while time.perf_counter() < until:
        place = (place + 1) % len(asked)
        start = time.perf_counter()
        writer.write(asked[place])
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        answers.append((time.perf_counter() - start, place, int(head[9:12]), body))
        if answers[-1][2] == 429:
            await asyncio.sleep(0.1)
    writer.close()


async def load(port: int, asked: list[bytes], connections: int, seconds: float, swaps: int) -> list[tuple[float, int, int, bytes]]:
    """Return all answers of some connections for some time, or until the alias has moved so many times."""
    answers: list[tuple[float, int, int, bytes]] = []
    until = time.perf_counter() + seconds
    asking = [ask(port, asked, n * 7, until, answers) for n in range(connections)]
    if swaps:
        asking.append(asyncio.to_thread(move, port, swaps, seconds / (swaps + 1)))
    await asyncio.gather(*asking)
    return answers


def move(port: int, swaps: int, pause: float) -> None:
    """Move the alias back and forth, each time waiting until the service has taken the release."""
    for number in range(swaps):
        version = 2 - number % 2
        start = time.perf_counter()
        MlflowClient().set_registered_model_alias(NAME, "champion", str(version))
        while httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=60).json()["version"] != version:
            time.sleep(0.05)
        time.sleep(max(0.0, pause - (time.perf_counter() - start)))


def served(model: str, port: int) -> subprocess.Popen[bytes]:
    """Start the service and wait until it is ready."""
    process = subprocess.Popen([sys.executable, "-c", SERVE, model, str(port)])
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/readyz").raise_for_status()
            return process
        except httpx.HTTPError:
            if process.poll() is not None:
                raise SystemExit("the service did not start") from None
            time.sleep(0.2)


def mixed_up(answers: list[tuple[float, int, int, bytes]]) -> int:
    """Return how many answers to the same question by the same version differ: answers of more than one release would."""
    known: dict[tuple[int, int], list[float]] = {}
    wrong = 0
    for _, place, status, body in answers:
        if status == 200:
            answer = json.loads(body)
            found = [neighbor["distance"] for neighbor in answer["neighbors"]]
            wrong += not np.allclose(known.setdefault((place, answer["version"]), found), found, atol=1e-4)
    return wrong


def main() -> None:
    """Build, measure the net, ask, measure the net again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--size", type=int, default=256, help="pixels that the net searches at (default: 256, as configs/grocery.yaml)")
    parser.add_argument("--swaps", type=int, default=0, help="move the alias so many times meanwhile")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, socket.socket() as free:
        # Before MLflow is asked for anything: a registry and a state folder of the benchmark's own.
        os.environ |= {"DEEPRANK_HOME": f"{scratch}/home", "MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/mlflow.db"}
        result = measure(Path(scratch), options, free)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:>28}  {value}")


def measure(scratch: Path, options: argparse.Namespace, free: socket.socket) -> dict[str, Any]:
    """Return what the benchmark prints."""
    data = prepare(str(scratch / "data"))
    catalogue = Catalogue(data["uri"], data["version"])
    folders = [make_release(scratch / f"release-{seed}", catalogue, seed, options.size) for seed in range(2 if options.swaps else 1)]
    model = str(folders[0])
    if options.swaps:
        experiment = mlflow.create_experiment("bench", (scratch / "artifacts").as_uri())
        for number, folder in enumerate(folders):
            with mlflow.start_run(experiment_id=experiment):
                register(folder, RegisterSettings(name=NAME), Decision("no-champion", number == 0, "benchmark"), catalogue, "card")
        model = f"models:/{NAME}@champion"
    rows = np.random.default_rng(0).choice(catalogue.rows("test"), 200)
    files = [Path(data["source"], path).read_bytes() for path in catalogue.frame["path"].iloc[rows]]
    before = alone(folders[0], files, 5 + options.seconds / 6)
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    process = served(model, port)
    try:
        asked = [question(file) for file in files]
        asyncio.run(load(port, asked, options.connections, 3, 0))
        start = time.perf_counter()
        answers = asyncio.run(load(port, asked, options.connections, options.seconds, options.swaps))
        took = time.perf_counter() - start
    finally:
        process.terminate()
        process.wait(60)
    after = alone(folders[0], files, 5 + options.seconds / 6)
    statuses = Counter(status for _, _, status, _ in answers)
    milliseconds = np.array([seconds for seconds, _, status, _ in answers if status == 200]) * 1000
    rate, net = statuses[200] / took, (before + after) / 2
    versions = Counter(json.loads(body)["version"] for _, _, status, body in answers if status == 200)
    return {
        "images": len(catalogue.frame),
        "pixels": options.size,
        "connections": options.connections,
        "seconds": round(took, 1),
        "requests": len(answers),
        "statuses": dict(statuses),
        "failed": sum(count for status, count in statuses.items() if status not in (200, 429)),
        "requests_per_second": round(rate, 1),
        "p50_ms": round(float(np.quantile(milliseconds, 0.5)), 1),
        "p95_ms": round(float(np.quantile(milliseconds, 0.95)), 1),
        "bare_net_before": round(before, 1),
        "bare_net_after": round(after, 1),
        "ratio": round(rate / net, 3),
        "swaps": options.swaps,
        "versions": {str(version): count for version, count in versions.items()},
        "mixed_up": mixed_up(answers),
    }


if __name__ == "__main__":
    main()
