"""Speed of a training in images/s, relative to its bare step, to a pytorch-metric-learning loop and to the original Keras scripts.

All contenders train on the same images at the same size, with the same batch size and model, alternately, each in its own process
(see peers.py).

deeprank        the training of the config at one image size, with decoding in the first epoch and cached images afterwards,
                augmentation, weight averaging and logging; median of the reported epochs after the first. Initialization and
                validation are not included (bench_quality.py includes them).
bare step       forward, backward and optimizer step of the same model, trainable stages, precision, losses and batch, on tensors in
                memory.
pml             image files, Pillow, DataLoader, MPerClassSampler, SupConLoss; all stages are trained. Then the same with the memory
                setting of deeprank, and with its frozen stages too: the remaining difference is the loop.
Keras scripts   batches of 8 random triplets of their file, three forward passes each, each image decoded each time, SGD. Better
                than the original: the backbone of deeprank instead of VGG16, a hinge per triplet, two loader processes.

Triplets/s of deeprank are counted in three ways: triplets of the file (P = N = 2: 4 per image; an epoch forwards as many images as
are in the file), which the ratio uses; all (query, positive, negative) in the P x K batches, which the losses use; and images/s
divided by three, as if no two triplets shared an image.
"""

import json
import tempfile
from statistics import median

import torch
from peers import (
    ImageFiles,
    PeerModel,
    Spec,
    create_parser,
    fit_deeprank,
    fit_pml,
    open_files,
    page,
    prepare,
    repeat_forever,
    run_in_process,
    run_steps,
    screen,
    spread,
    train_section,
    update,
)
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from deeprank.data.catalogue import Catalogue
from deeprank.memory import keep_freed_memory
from deeprank.models.embedding_model import EmbeddingModel
from deeprank.models.inference import device
from deeprank.training.losses import WeightedLosses
from deeprank.training.precision import TrainingModel, select_precision
from deeprank.training.settings import TrainSettings
from deeprank.triplets.sampling import SampleSettings, sample_triplets

KERAS = "triplets: Keras scripts"
COMPARED = ("bare step", "pml", "pml + memory", "pml + memory, frozen stages", KERAS)
MIN_RATIO = {"bare step": 0.9, "pml": 1.3, KERAS: 3.0}
# The figure of deeprank that is compared, where it is not images/s.
COMPARED_WITH = {KERAS: "triplets: deeprank, of the file"}
EPOCHS = 3


def run_bare_steps(data: Spec, settings: Spec, size: int, seconds: float) -> Spec:
    """Make training steps on random pixels, with model, losses, batch and optimizer of deeprank."""
    keep_freed_memory()
    train_settings = TrainSettings.model_validate(settings)
    frame = Catalogue(data["uri"], data["version"]).frame
    num_classes = int(frame["label"][frame["split"] == "train"].nunique())
    model = EmbeddingModel(train_settings.model).to(device(), memory_format=torch.channels_last).train()
    training = TrainingModel(model, select_precision(train_settings.precision, model, size))
    loss = WeightedLosses(train_settings.losses, torch.arange(num_classes)[:, None], model.embedding_dim).to(device())
    parameters = [parameter for parameter in [*model.parameters(), *loss.parameters()] if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    labels = torch.arange(min(train_settings.classes_per_batch, num_classes)).repeat_interleave(train_settings.images_per_class)
    shape = (len(labels), 3, size, size)
    images = [torch.rand(shape).mul_(255).contiguous(memory_format=torch.channels_last) for _ in range(4)]
    batches = repeat_forever([(batch, labels) for batch in images])
    return run_steps(batches, seconds, lambda images, labels: update(optimizer, loss(training(images), labels)))


def fit_as_keras_scripts(data: Spec, seconds: float, size: int, model_settings: Spec, margin: float = 1.0) -> Spec:
    """Train on the triplets of a file as the original Keras scripts do; `speed` is in triplets/s."""
    catalogue, paths, codes = open_files(data)
    triplets = sample_triplets(catalogue.frame, SampleSettings()).in_split("train")[["query", "positive", "negative"]]
    files = ImageFiles(paths, [(tuple(triplet), codes[triplet[0]]) for triplet in triplets.to_numpy().tolist()], size)
    loader = DataLoader(files, batch_size=8, shuffle=True, num_workers=2, persistent_workers=True)
    model = PeerModel(model_settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, nesterov=True)

    def step(images: Tensor, _: Tensor) -> None:
        query, positive, negative = (model(images[:, i]) for i in range(3))
        update(optimizer, (margin + (query - positive).square().sum(1) - (query - negative).square().sum(1)).relu().mean())

    return run_steps(repeat_forever(loader), seconds, step)


def run_turn(data: Spec, settings: Spec, size: int, seconds: float) -> dict[str, float]:
    """Measure every contender once; returns images/s, and triplets/s of the Keras scripts and of deeprank."""
    train_settings, frame = TrainSettings.model_validate(settings), Catalogue(data["uri"], data["version"]).frame
    num_classes = int(frame["label"][frame["split"] == "train"].nunique())
    p, k = min(train_settings.classes_per_batch, num_classes), train_settings.images_per_class
    peer: Spec = {"data": data, "seconds": seconds, "size": size, "model_settings": train_settings.model.model_dump()}
    speeds = {"bare step": run_in_process(run_bare_steps, data=data, settings=settings, size=size, seconds=seconds)["speed"]}
    # The measured epochs take `seconds` at the speed of the bare step.
    per_class = max(k, round(speeds["bare step"] * seconds / (EPOCHS - 1) / num_classes / k) * k)
    own = {"data": data, "settings": settings | {"train_image_sizes": [size], "epochs": EPOCHS}, "subset": (num_classes, per_class)}
    speeds["deeprank"] = median(run_in_process(fit_deeprank, **own, validate=False, measure=False)["speeds"][1:])
    loop = peer | {"batch_size": p * k}
    speeds["pml"] = run_in_process(fit_pml, **loop)["speed"]
    speeds["pml + memory"] = run_in_process(fit_pml, **loop, memory=True)["speed"]
    frozen_stages = train_settings.model.frozen_stages
    speeds["pml + memory, frozen stages"] = run_in_process(fit_pml, **loop, memory=True, frozen_stages=frozen_stages)["speed"]
    speeds[KERAS] = run_in_process(fit_as_keras_scripts, **peer)["speed"]
    sampled = SampleSettings()
    speeds[COMPARED_WITH[KERAS]] = speeds["deeprank"] * sampled.positives * sampled.negatives
    speeds["triplets: deeprank, in the batches"] = speeds["deeprank"] * (k - 1) * (p - 1) * k
    speeds["triplets: deeprank, images/s / 3"] = speeds["deeprank"] / 3
    return speeds


def show(size: str, result: Spec) -> None:
    """Print the speeds at an image size and the ratios to deeprank, whose median and range are those of the turns' ratios."""
    table = Table(title=f"{size} px: images/s (last lines: triplets/s), and deeprank / contender")
    for heading in ("contender", "median", "lowest .. highest", "ratio", "lowest .. highest", "required"):
        table.add_column(heading, justify="left" if heading == "contender" else "right")
    for name, speed in result["speed"].items():
        cells = [name, f"{speed['median']:.1f}", f"{speed['low']:.1f} .. {speed['high']:.1f}"]
        if ratio := result["ratio"].get(name):
            required = f"≥ {MIN_RATIO[name]}" if name in MIN_RATIO else ""
            cells += [f"{ratio['median']:.2f}", f"{ratio['low']:.2f} .. {ratio['high']:.2f}", required]
        table.add_row(*cells)
    page.print(table)


def main() -> None:
    """Measure the contenders alternately; print speeds and ratios."""
    parser = create_parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[160, 224], help="pixels per side of the crop (default: 160 224)")
    parser.add_argument("--repeats", type=int, default=3, help="turns (default: 3)")
    parser.add_argument("--seconds", type=float, default=20, help="of training per contender and turn (default: 20)")
    options = parser.parse_args()
    settings = train_section(options.config)
    results: dict[str, Spec] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(folder, options.data)
        for size in map(str, options.sizes):
            turns = []
            for number in range(options.repeats):
                screen.print(f"{size} px, turn {number + 1} of {options.repeats}")
                turns.append(run_turn(data, settings, int(size), options.seconds))
            speed = {name: spread([turn[name] for turn in turns]) for name in turns[0]}
            ratio = {name: spread([turn[COMPARED_WITH.get(name, "deeprank")] / turn[name] for turn in turns]) for name in COMPARED}
            results[size] = {"speed": speed, "ratio": ratio}
            if not options.json:
                show(size, results[size])
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
