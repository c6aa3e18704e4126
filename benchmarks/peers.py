"""What the benchmarks of training compare; each contender runs in its own process, as its user would run it.

`fit_deeprank` is `deeprank.training.fit.fit` on the images of a catalogue.

`fit_pml` is a loop as in the documentation of pytorch-metric-learning, torch and torchvision: image files decoded by Pillow,
torchvision transforms, a DataLoader with two workers, MPerClassSampler (4 images per class), SupConLoss (temperature 0.1) or the
semi-hard triplets of the library's example, AdamW 3e-4, 128 dimensions. It gets from deeprank without searching for it: backbone and
weights, frozen BatchNorm statistics, channels_last, uint8 batches from persistent workers, the ranges of crop and color, and
the time for creating model and optimizer. Options turn on what its user would have to find out: `memory` (the mallopt setting,
which changes a whole process), `frozen_stages`, and `cosine` (a learning rate that falls along a cosine).
"""

import argparse
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from pytorch_metric_learning import distances, losses, miners, reducers, samplers
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import IngestSettings, ingest
from deeprank.data.sources import source_folder
from deeprank.evaluation.evaluation import evaluate
from deeprank.home import PROJECT
from deeprank.memory import keep_freed_memory
from deeprank.models.backbone import create_backbone, split_stages
from deeprank.models.inference import device, embed_catalogue
from deeprank.models.preprocessing import Preprocessing
from deeprank.reporting import Record
from deeprank.row_numbers import CatalogueRows
from deeprank.training.fit import fit
from deeprank.training.settings import TrainSettings
from deeprank.triplets.relevance import encode_hierarchy
from deeprank.triplets.sampling import SampleSettings, sample_triplets

GROCERY_CONFIG = PROJECT / "configs" / "grocery.yaml"
METRICS = {
    "recall@1": "fine.recall_at_1",
    "mAP@R": "fine.map_at_r",
    "coarse recall@1": "coarse.recall_at_1",
    "triplets": "triplet_accuracy",
}
# First steps without measurement: threads start, memory is touched for the first time, loaders have batches prepared.
WARM_UP_STEPS = 6
Spec = dict[str, Any]
screen = Console(stderr=True)
# The same width in a terminal and in a log file.
page = Console(width=140)


def create_parser(description: str | None, config: Path | None = GROCERY_CONFIG) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks of training: --data, --json, and --config if a default is given."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of images (default: the environment variable DEEPRANK_DATA, else synthetic images)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    if config:
        name = config.relative_to(PROJECT)
        parser.add_argument("--config", type=Path, default=config, help=f"config whose train section is used (default: {name})")
    return parser


def train_section(config: Path) -> Spec:
    """Return the train settings of a config, with the train split alone, which every contender trains on."""
    settings: Spec = yaml.safe_load(config.read_text())["parameters"]["train"]
    return settings | {"splits": ["train"]}


def prepare(folder: str, data: str | None = None) -> Spec:
    """Ingest a folder of images (None: the environment variable DEEPRANK_DATA, else synthetic images); returns where they are."""
    settings = IngestSettings(source=data or os.environ.get("DEEPRANK_DATA") or "synthetic")
    source = source_folder(settings, screen.print).resolve()
    start = time.perf_counter()
    catalogue, _ = ingest(source, settings, folder)
    seconds = round(time.perf_counter() - start, 1)
    return {"source": str(source), "uri": catalogue.uri, "version": catalogue.version, "ingest_seconds": seconds}


def run_in_process(contender: Callable[..., Spec], **kwargs: Any) -> Spec:
    """Call a contender in a new process, so that its memory and thread settings, caches and seeds end with it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(contender, **kwargs).result()


def fit_deeprank(data: Spec, settings: Spec, subset: tuple[int, int] | None = None, validate: bool = True, measure: bool = True) -> Spec:
    """Train with deeprank.

    Args:
        data: as returned by `prepare`.
        settings: of the training.
        subset: maximum number of classes, and of images per class; None: all.
        validate: False: without validation on the val split.
        measure: False: without evaluation.

    Returns:
        wall_time in seconds, number of images, speeds of the epochs in images/s, ingest_seconds, and the metrics.

    """
    catalogue = Catalogue(data["uri"], data["version"])
    frame = catalogue.frame.copy()
    if subset:
        train = frame[frame["split"] == "train"].sample(frac=1, random_state=0)
        selected = train["label"].isin(train["label"].unique()[: subset[0]]) & (train.groupby("label").cumcount() < subset[1])
        frame.loc[train.index[~selected], "split"] = "aside"
    if not validate:
        frame.loc[frame["split"] == "val", "split"] = "aside"
    triplets = sample_triplets(frame, SampleSettings(), catalogue.fingerprint)
    with tempfile.TemporaryDirectory() as folder:
        record, start = Record(Path(folder)), time.perf_counter()
        bundle = fit(catalogue, triplets, TrainSettings.model_validate(settings), Path(folder, "bundle"), record)
        seconds = time.perf_counter() - start
        model, preprocessing = bundle.load()
    speeds = [point.value for point in record.points if point.name == "train.images_per_second"]
    num_images = len(speeds) * int((frame["split"] == "train").sum())
    result = {"wall_time": seconds, "images": num_images, "speeds": speeds, "ingest_seconds": data["ingest_seconds"]}
    return result | (evaluate_model(model, preprocessing, catalogue) if measure else {})


def evaluate_model(model: Any, preprocessing: Preprocessing, catalogue: Catalogue) -> Spec:
    """Return each metric as [value, low, high]; queries are the test split, the gallery is the train split."""
    queries, gallery = catalogue.rows("test"), catalogue.rows("train")
    rows = CatalogueRows(np.concatenate([queries, gallery]))
    embeddings = np.zeros((len(catalogue.frame), model.embedding_dim), dtype=np.float32)
    embeddings[rows] = embed_catalogue(model, preprocessing, catalogue, rows)
    triplets = sample_triplets(catalogue.frame, SampleSettings()).in_split("test")[["query", "positive", "negative"]].to_numpy()
    metrics = evaluate(catalogue.frame, embeddings, queries, gallery, triplets).metrics
    return {short: [metrics[name].value, metrics[name].low, metrics[name].high] for short, name in METRICS.items()}


def fit_pml(
    data: Spec,
    seconds: float,
    size: int = 160,
    batch_size: int = 48,
    model_settings: Spec | None = None,
    miner: bool = False,
    seed: int = 0,
    memory: bool = False,
    cosine: bool = False,
    frozen_stages: int = 0,
    eval_image_size: int = 0,
) -> Spec:
    """Train with a pytorch-metric-learning loop for some seconds; evaluate if `eval_image_size` is set."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    if memory:
        keep_freed_memory()
    catalogue, paths, codes = open_files(data)
    rows = catalogue.rows("train")
    # The workers of the loader do not use Lance.
    warnings.filterwarnings("ignore", message="lance is not fork-safe")
    files = ImageFiles(paths, [((row,), codes[row]) for row in rows.tolist()], size)
    sampler = samplers.MPerClassSampler(codes[rows], m=4, batch_size=min(batch_size, 4 * len(np.unique(codes[rows]))))
    loader = DataLoader(files, batch_size=sampler.batch_size, sampler=sampler, num_workers=2, persistent_workers=True)
    model = PeerModel(model_settings or {}, frozen_stages)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=3e-4)
    similarity = distances.CosineSimilarity()
    mine = miners.TripletMarginMiner(margin=0.2, distance=similarity, type_of_triplets="semihard") if miner else None
    triplet_loss = losses.TripletMarginLoss(margin=0.2, distance=similarity, reducer=reducers.ThresholdReducer(low=0))
    loss = triplet_loss if miner else losses.SupConLoss(temperature=0.1)
    start = time.perf_counter()

    def step(images: Tensor, labels: Tensor) -> None:
        if cosine:
            done = min(1.0, (time.perf_counter() - start) / seconds)
            optimizer.param_groups[0]["lr"] = 3e-4 * 0.5 * (1 + math.cos(math.pi * done))
        embeddings = model(images[:, 0])
        update(optimizer, loss(embeddings, labels, mine(embeddings, labels)) if mine else loss(embeddings, labels))

    result = run_steps(repeat_forever(loader), seconds, step)
    return result | (evaluate_model(model, Preprocessing(size=eval_image_size), catalogue) if eval_image_size else {})


class PeerModel(nn.Module):
    """The same backbone and weights with a linear head: uint8 (n, 3, s, s) to embeddings of unit length."""

    def __init__(self, model_settings: Spec, frozen_stages: int = 0) -> None:
        super().__init__()
        name, weights = model_settings.get("backbone", "tf_efficientnet_lite0"), model_settings.get("weights", "package")
        self.backbone, mean, std = create_backbone(name, weights)
        self.embedding_dim = model_settings.get("embedding_dim", 128)
        # Measured, because `num_features` of VGG counts layers that `create_backbone` removes.
        num_features = self.backbone.eval()(torch.zeros(1, 3, 96, 96)).shape[1]
        self.head = nn.Linear(num_features, self.embedding_dim)
        self.normalize_pixels = v2.Normalize(mean, std)
        for stage in split_stages(self.backbone)[:frozen_stages]:
            stage.requires_grad_(False)
        train_with_fixed_statistics(self.to(device(), memory_format=torch.channels_last))

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings of a batch."""
        pixels = self.normalize_pixels(images.float() / 255).contiguous(memory_format=torch.channels_last)
        return normalize(self.head(self.backbone(pixels)), dim=1)


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Items of one or three images, decoded from their files at every access, and their class."""

    def __init__(self, paths: list[str], items: list[tuple[tuple[int, ...], int]], size: int) -> None:
        self.paths, self.items = paths, items
        crop = v2.RandomResizedCrop(size, scale=(0.35, 1.0))
        self.transform = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.ColorJitter(0.2, 0.2, 0.15), v2.PILToTensor()])

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        rows, label = self.items[index]
        return torch.stack([self.transform(Image.open(self.paths[row]).convert("RGB")) for row in rows]), label


def open_files(data: Spec) -> tuple[Catalogue, list[str], Any]:
    """Return the catalogue, and the file and the class of each of its images."""
    catalogue = Catalogue(data["uri"], data["version"])
    paths = [str(Path(data["source"], path)) for path in catalogue.frame["path"]]
    return catalogue, paths, encode_hierarchy(catalogue.frame["label"].tolist())[:, -1]


def train_with_fixed_statistics(model: nn.Module) -> None:
    """Put a model in training mode, except BatchNorm, whose statistics stay fixed."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Make one optimizer step."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def repeat_forever(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield batches, again and again."""
    while True:
        yield from batches


def run_steps(batches: Iterator[Any], seconds: float, step: Callable[[Tensor, Tensor], None]) -> Spec:
    """Make steps for some seconds.

    Returns:
        wall_time in seconds, number of images (or triplets), and speed: images (or triplets) per second after the warm-up.

    """
    start, count, warm_up_end, warm_up_count = synchronized_time(), 0, 0.0, 0
    with Progress(TextColumn("{task.description}"), BarColumn(), console=screen, transient=True) as progress:
        bar = progress.add_task("training", total=seconds)
        for number, (images, labels) in enumerate(batches):
            if number == WARM_UP_STEPS:
                warm_up_end, warm_up_count = synchronized_time(), count
            step(images.to(device()), labels.to(device()))
            count += len(labels)
            end = synchronized_time()
            progress.update(bar, completed=end - start)
            if end - start >= seconds and number > WARM_UP_STEPS:
                break
    return {"wall_time": end - start, "images": count, "speed": (count - warm_up_count) / (end - warm_up_end)}


def synchronized_time() -> float:
    """Return the time in seconds after all operations on the device are complete."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


def spread(values: list[float]) -> dict[str, float]:
    """Return median, lowest and highest value."""
    return {"median": round(median(values), 3), "low": round(min(values), 3), "high": round(max(values), 3)}


def mean_and_range(values: list[float], sign: str = "") -> str:
    """Return the text `mean, lowest .. highest`; with the sign "+", of differences."""
    return f"{sum(values) / len(values):{sign}.3f}, {min(values):{sign}.3f} .. {max(values):{sign}.3f}"
