"""What the benchmarks of training compare, each contender in a process of its own, as whoever picked it would run it.

`ours` is `deeprank.training.fit.fit`; its images come from the catalogue.

`pml` is a loop as the documentation of pytorch-metric-learning, torch and torchvision would have it: image files decoded by
Pillow, torchvision transforms, a DataLoader of two workers, MPerClassSampler (4 a class), SupConLoss (temperature 0.1) or the
semi-hard triplets of the library's own example, AdamW 3e-4, 128 dimensions. It gets, for nothing: our ConvNet and weights,
BatchNorm kept as it is, channels_last, uint8 from the workers, which stay, the crop and light ranges that our recipe found, and
the time that making net and optimizer takes. What its user would have to find out are kwargs: `memory` (our mallopt
setting, which changes a whole process), `frozen_stages` (ours), `cosine` (a rate that falls along a cosine).
"""

import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
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
from deeprank.models.backbone import create_backbone, stages
from deeprank.models.inference import device, embed_catalogue
from deeprank.models.memory import keep_freed_memory
from deeprank.models.preprocessing import Preprocessing
from deeprank.reporting import Record
from deeprank.training.fit import TrainSettings, fit
from deeprank.triplets.relevance import encode_hierarchy
from deeprank.triplets.sampling import SampleSettings, sample_triplets

GROCERY = str(PROJECT / "configs" / "grocery.yaml")
METRICS = {
    "recall@1": "fine.recall_at_1",
    "mAP@R": "fine.map_at_r",
    "coarse recall@1": "coarse.recall_at_1",
    "triplets": "triplet_accuracy",
}
# First steps that a speed leaves out: threads start, memory is touched for the first time, loaders have batches in store.
WARM_UP = 6
Spec = dict[str, Any]
screen = Console(stderr=True)
# As wide as the tables, in a log file as well.
page = Console(width=140)


def train_section(config: str) -> Spec:
    """Return the train settings of a config, learning from the train split alone as every contender does."""
    return yaml.safe_load(Path(config).read_text())["parameters"]["train"] | {"splits": ["train"]}


def prepare(folder: str) -> Spec:
    """Ingest the images (`auto`: grocery, else synthetic ones) below `folder`: where files and catalogue are, and how long it took."""
    source = source_folder(IngestSettings(), screen.print).resolve()
    start = time.perf_counter()
    catalogue, _ = ingest(source, IngestSettings(), folder)
    seconds = round(time.perf_counter() - start, 1)
    return {"source": str(source), "uri": catalogue.uri, "version": catalogue.version, "ingest_seconds": seconds}


def alone(contender: Callable[..., Spec], **kwargs: Any) -> Spec:
    """Call a contender in a new process of its own: settings of memory and threads, caches and seeds end with it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(contender, **kwargs).result()


def ours(data: Spec, settings: Spec, subset: tuple[int, int] | None = None, validate: bool = True, measure: bool = True) -> Spec:
    """Fit; `subset`: so many classes, so many images of each at most; without `validate` the val split stands aside."""
    catalogue = Catalogue(data["uri"], data["version"])
    frame = catalogue.frame.copy()
    if subset:
        train = frame[frame["split"] == "train"].sample(frac=1, random_state=0)
        kept = train["label"].isin(train["label"].unique()[: subset[0]]) & (train.groupby("label").cumcount() < subset[1])
        frame.loc[train.index[~kept], "split"] = "aside"
    if not validate:
        frame.loc[frame["split"] == "val", "split"] = "aside"
    triplets = sample_triplets(frame, SampleSettings(), catalogue.fingerprint)
    with tempfile.TemporaryDirectory() as folder:
        record, start = Record(Path(folder)), time.perf_counter()
        bundle = fit(catalogue, triplets, TrainSettings.model_validate(settings), Path(folder, "bundle"), record)
        seconds = time.perf_counter() - start
        model, preprocessing = bundle.load()
    speeds = [point.value for point in record.points if point.name == "train.images_per_second"]
    items = len(speeds) * int((frame["split"] == "train").sum())
    took = {"took": seconds, "items": items, "speeds": speeds, "ingest_seconds": data["ingest_seconds"]}
    return took | (quality(model, preprocessing, catalogue) if measure else {})


def quality(model: Any, preprocessing: Preprocessing, catalogue: Catalogue) -> Spec:
    """Evaluate any net on the test split, gallery train: each metric as [value, low, high]."""
    queries, gallery = catalogue.rows("test"), catalogue.rows("train")
    rows = np.concatenate([queries, gallery])
    embeddings = np.zeros((len(catalogue.frame), model.embedding_dim), dtype=np.float32)
    embeddings[rows] = embed_catalogue(model, preprocessing, catalogue, rows)
    triplets = sample_triplets(catalogue.frame, SampleSettings()).of("test")[["query", "positive", "negative"]].to_numpy()
    found = evaluate(catalogue.frame, embeddings, queries, gallery, triplets).metrics
    return {short: [found[name].value, found[name].low, found[name].high] for short, name in METRICS.items()}


def pml(
    data: Spec,
    seconds: float,
    size: int = 160,
    batch: int = 48,
    model_settings: Spec | None = None,
    miner: bool = False,
    seed: int = 0,
    memory: bool = False,
    cosine: bool = False,
    frozen_stages: int = 0,
    eval_image_size: int = 0,
) -> Spec:
    """Train for so many seconds; with a `eval_image_size`, evaluate at it."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    if memory:
        keep_freed_memory()
    catalogue, paths, codes = open_files(data)
    rows = catalogue.rows("train")
    # Its workers never touch Lance.
    warnings.filterwarnings("ignore", message="lance is not fork-safe")
    files = Files(paths, [((row,), codes[row]) for row in rows.tolist()], size)
    sampler = samplers.MPerClassSampler(codes[rows], m=4, batch_size=min(batch, 4 * len(np.unique(codes[rows]))))
    loader = DataLoader(files, batch_size=sampler.batch_size, sampler=sampler, num_workers=2, persistent_workers=True)
    model = PeerNet(model_settings or {}, frozen_stages)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=3e-4)
    cosines = distances.CosineSimilarity()
    mine = miners.TripletMarginMiner(margin=0.2, distance=cosines, type_of_triplets="semihard") if miner else None
    triplet_loss = losses.TripletMarginLoss(margin=0.2, distance=cosines, reducer=reducers.ThresholdReducer(low=0))
    loss = triplet_loss if miner else losses.SupConLoss(temperature=0.1)
    start = time.perf_counter()

    def step(images: Tensor, labels: Tensor) -> None:
        if cosine:
            done = min(1.0, (time.perf_counter() - start) / seconds)
            optimizer.param_groups[0]["lr"] = 3e-4 * 0.5 * (1 + math.cos(math.pi * done))
        embeddings = model(images[:, 0])
        update(optimizer, loss(embeddings, labels, mine(embeddings, labels)) if mine else loss(embeddings, labels))

    took = repeat(forever(loader), seconds, step)
    return took | (quality(model, Preprocessing(size=eval_image_size), catalogue) if eval_image_size else {})


class PeerNet(nn.Module):
    """uint8 (n, 3, s, s) → unit-length embeddings: our ConvNet with its weights, and a linear head."""

    def __init__(self, model_settings: Spec, frozen_stages: int = 0) -> None:
        super().__init__()
        self.backbone, mean, std = create_backbone(
            model_settings.get("backbone", "tf_efficientnet_lite0"), model_settings.get("weights", "package")
        )
        self.embedding_dim = model_settings.get("embedding_dim", 128)
        # Looked at, not asked for: VGG's own answer counts layers that are left out here.
        width = self.backbone.eval()(torch.zeros(1, 3, 96, 96)).shape[1]
        self.head = nn.Linear(width, self.embedding_dim)
        self.normal = v2.Normalize(mean, std)
        for stage in stages(self.backbone)[:frozen_stages]:
            stage.requires_grad_(False)
        keep_statistics(self.to(device(), memory_format=torch.channels_last))

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        pixels = self.normal(images.float() / 255).contiguous(memory_format=torch.channels_last)
        return normalize(self.head(self.backbone(pixels)), dim=1)


class Files(Dataset[tuple[Tensor, int]]):
    """Items of one or three images, decoded from their files each time they are asked for, and their class."""

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
    """Return the catalogue, the file of each of its images, and the class of each."""
    catalogue = Catalogue(data["uri"], data["version"])
    paths = [str(Path(data["source"], path)) for path in catalogue.frame["path"]]
    return catalogue, paths, encode_hierarchy(catalogue.frame["label"].tolist())[:, -1]


def keep_statistics(model: Any) -> Any:
    """Put a net in training mode but for BatchNorm, which keeps its statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one optimizer step."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def forever(batches: Iterable[Any]) -> Iterator[Any]:
    """Begin again at the end."""
    while True:
        yield from batches


def repeat(batches: Iterator[Any], seconds: float, step: Callable[[Tensor, Tensor], None]) -> Spec:
    """Step for so many seconds; `speed` counts items a second after the warm-up."""
    start, items, warm, before = now(), 0, 0.0, 0
    with Progress(TextColumn("{task.description}"), BarColumn(), console=screen, transient=True) as progress:
        bar = progress.add_task("stepping", total=seconds)
        for number, (images, labels) in enumerate(batches):
            if number == WARM_UP:
                warm, before = now(), items
            step(images.to(device()), labels.to(device()))
            items += len(labels)
            end = now()
            progress.update(bar, completed=end - start)
            if end - start >= seconds and number > WARM_UP:
                break
    return {"took": end - start, "items": items, "speed": (items - before) / (end - warm)}


def now() -> float:
    """Return the time at which all that was asked of the device is done."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()
