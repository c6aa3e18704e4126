"""Speed of the fit, images/s: against its bare step, a pytorch-metric-learning loop, and the seed's way.

All train on the same images, at the same size, batch and net, in turns, each in a process of its own (see peers.py).

ours            the fit as the config has it, at one size: images that were decoded in the first epoch and kept, augmentation,
                averaging, logging; by its own reporter, median of the epochs after the first. Not in it: what comes once
                (bench_quality.py counts that) and validation.
bare step       forward, backward and optimizer step of the same net, trained stages, precision, loss and batch, on tensors ready
                in memory.
pml             image files, PIL, DataLoader, MPerClassSampler, SupConLoss; the whole net is trained. Then the same with our memory
                setting, and with our frozen stages as well: what is left then is the loop.
seed's way      batches of 8 random triplets of its file, three forwards each, every image decoded each time, SGD. Given for
                nothing: our ConvNet instead of VGG16, a hinge per triplet, transforms, two loader processes.

Triplets/s of ours are counted in three ways: triplets of the file (P = N = 2: 4 an image; an epoch forwards as many
images as are in the file), of which the ratio is made; all (query, positive, negative) within the P x K batches, which the
loss sees; and images/s divided by three, as if no two triplets shared an image.
"""

import argparse
import json
import tempfile
from statistics import median

import torch
from peers import (
    GROCERY,
    Files,
    PeerNet,
    Spec,
    alone,
    forever,
    open_files,
    ours,
    page,
    pml,
    prepare,
    repeat,
    screen,
    train_section,
    update,
)
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from deeprank.data.catalogue import Catalogue
from deeprank.models.embedding_model import EmbeddingModel
from deeprank.models.inference import device
from deeprank.models.memory import keep_freed_memory
from deeprank.training.fit import TrainSettings
from deeprank.training.losses import WeightedLosses
from deeprank.training.precision import TrainingModel, choose
from deeprank.triplets.sampling import SampleSettings, sample_triplets

SEED = "triplets: seed's way"
COMPARED = ("bare step", "pml", "pml + memory", "pml + memory, frozen stages", SEED)
WANTED = {"bare step": 0.9, "pml": 1.3, SEED: 3.0}
OURS = {SEED: "triplets: ours, of the file"}
EPOCHS = 3


def bare(data: Spec, settings: Spec, size: int, seconds: float) -> Spec:
    """Step on random pixels with net, loss, batch and optimizer of ours."""
    keep_freed_memory()
    wanted = TrainSettings.model_validate(settings)
    frame = Catalogue(data["uri"], data["version"]).frame
    classes = int(frame["label"][frame["split"] == "train"].nunique())
    model = EmbeddingModel(wanted.model).to(device(), memory_format=torch.channels_last).train()
    training = TrainingModel(model, choose(wanted.precision, model, size))
    loss = WeightedLosses(wanted.losses, torch.eye(classes), model.embedding_dim).to(device())
    parameters = [one for one in [*model.parameters(), *loss.parameters()] if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    labels = torch.arange(min(wanted.classes_per_batch, classes)).repeat_interleave(wanted.images_per_class)
    ready = [torch.rand(len(labels), 3, size, size).mul_(255).contiguous(memory_format=torch.channels_last) for _ in range(4)]
    batches = forever([(images, labels) for images in ready])
    return repeat(batches, seconds, lambda images, labels: update(optimizer, loss(training(images), labels)))


def seed_way(data: Spec, seconds: float, size: int, model_settings: Spec, margin: float = 1.0) -> Spec:
    """Train on the triplets of the file; `speed` is in triplets/s."""
    catalogue, paths, codes = open_files(data)
    triplets = sample_triplets(catalogue.frame, SampleSettings()).of("train")[["query", "positive", "negative"]]
    files = Files(paths, [(tuple(one), codes[one[0]]) for one in triplets.to_numpy().tolist()], size)
    loader = DataLoader(files, batch_size=8, shuffle=True, num_workers=2, persistent_workers=True)
    model = PeerNet(model_settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, nesterov=True)

    def step(images: Tensor, _: Tensor) -> None:
        query, positive, negative = (model(images[:, i]) for i in range(3))
        update(optimizer, (margin + (query - positive).square().sum(1) - (query - negative).square().sum(1)).relu().mean())

    return repeat(forever(loader), seconds, step)


def turn(data: Spec, settings: Spec, size: int, seconds: float) -> dict[str, float]:
    """Measure every contender once: images/s, and of the seed's way and ours triplets/s."""
    wanted, frame = TrainSettings.model_validate(settings), Catalogue(data["uri"], data["version"]).frame
    classes = int(frame["label"][frame["split"] == "train"].nunique())
    p, k = min(wanted.classes_per_batch, classes), wanted.images_per_class
    peer: Spec = {"data": data, "seconds": seconds, "size": size, "model": wanted.model.model_dump()}
    speeds = {"bare step": alone(bare, data=data, settings=settings, size=size, seconds=seconds)["speed"]}
    # The epochs that count shall take `seconds` at the bare step's speed.
    per_class = max(k, round(speeds["bare step"] * seconds / (EPOCHS - 1) / classes / k) * k)
    own = settings | {"train_image_sizes": [size], "epochs": EPOCHS}
    speeds["ours"] = median(alone(ours, data=data, settings=own, subset=(classes, per_class), validate=False, measure=False)["speeds"][1:])
    loop = peer | {"batch": p * k}
    speeds["pml"] = alone(pml, **loop)["speed"]
    speeds["pml + memory"] = alone(pml, **loop, memory=True)["speed"]
    speeds["pml + memory, frozen stages"] = alone(pml, **loop, memory=True, frozen_stages=wanted.model.frozen_stages)["speed"]
    speeds[SEED] = alone(seed_way, **peer)["speed"]
    sampled = SampleSettings()
    speeds[OURS[SEED]] = speeds["ours"] * sampled.positives * sampled.negatives
    speeds["triplets: ours, in the batches"] = speeds["ours"] * (k - 1) * (p - 1) * k
    speeds["triplets: ours, images/s / 3"] = speeds["ours"] / 3
    return speeds


def spread(values: list[float]) -> dict[str, float]:
    """Return median, lowest and highest."""
    return {"median": round(median(values), 3), "low": round(min(values), 3), "high": round(max(values), 3)}


def show(size: str, found: Spec) -> None:
    """Print a size's speeds, and ours / theirs, whose median and range are those of each turn's ratio."""
    table = Table(title=f"{size} px: images/s (the last lines: triplets/s), and ours / theirs")
    for heading in ("contender", "median", "lowest .. highest", "ours / theirs", "lowest .. highest", "wanted"):
        table.add_column(heading, justify="left" if heading == "contender" else "right")
    for name, speed in found["speed"].items():
        cells = [name, f"{speed['median']:.1f}", f"{speed['low']:.1f} .. {speed['high']:.1f}"]
        if ratio := found["ratio"].get(name):
            wanted = f"≥ {WANTED[name]}" if name in WANTED else ""
            cells += [f"{ratio['median']:.2f}", f"{ratio['low']:.2f} .. {ratio['high']:.2f}", wanted]
        table.add_row(*cells)
    page.print(table)


def main() -> None:
    """Take turns, print speeds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=GROCERY, help="whose train section is measured (default: configs/grocery.yaml)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[160, 224], help="pixels of the square crop (default: 160 224)")
    parser.add_argument("--repeats", type=int, default=3, help="turns (default: 3)")
    parser.add_argument("--seconds", type=float, default=20, help="of training a contender and turn (default: 20)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    settings = train_section(options.config)
    result: dict[str, Spec] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(folder)
        for size in map(str, options.sizes):
            turns = []
            for number in range(options.repeats):
                screen.print(f"{size} px, turn {number + 1} of {options.repeats}")
                turns.append(turn(data, settings, int(size), options.seconds))
            speed = {name: spread([one[name] for one in turns]) for name in turns[0]}
            ratio = {name: spread([one[OURS.get(name, "ours")] / one[name] for one in turns]) for name in COMPARED}
            result[size] = {"speed": speed, "ratio": ratio}
            if not options.json:
                show(size, result[size])
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
