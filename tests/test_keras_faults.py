"""The fourteen faults of the original Keras scripts ("Image Similarity using Deep Ranking"), which this project replaces.

For each fault a test checks that the project behaves correctly, and that the same check detects an imitation of the faulty behavior.
"""

import csv
import io
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from typer.testing import CliRunner, Result

from deeprank.cli import app
from deeprank.data.catalogue import Catalogue
from deeprank.data.images import to_stored_image
from deeprank.data.ingest import IngestSettings, SplitShares, ingest, ingest_folder
from deeprank.errors import DataError
from deeprank.evaluation.bundle_evaluation import evaluate_bundle
from deeprank.models import preprocessing as preprocessing_module
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import EmbeddingModel, LowResolutionBranches, ModelSettings, SearchModel, create_model
from deeprank.models.inference import embed_catalogue
from deeprank.models.preprocessing import Preprocessing
from deeprank.reporting import Record
from deeprank.training import data as data_module
from deeprank.training.batches import BatchIndices, pk_batches, triplet_batches
from deeprank.training.data import DecodedImages, TrainingBatches, TrainingImages
from deeprank.training.fit import fit
from deeprank.training.losses import create_loss
from deeprank.training.optimizers import create_optimizer, parameter_groups
from deeprank.training.settings import TrainSettings
from deeprank.triplets.sampling import SampleSettings, Triplets, sample_triplets
from deeprank.triplets.textfile import read_triplet_file, write_triplet_file
from tests.drawing import encoded, pattern, put_all
from tests.training.loss_examples import hinge_settings

NAMES = ["query", "positive", "negative"]
Hinge = Callable[[Tensor], Tensor]


def _assert_detects(check: Callable[..., None], *faulty: Any) -> None:
    """Assert that a check fails with an imitation of the faulty behavior."""
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(*faulty)


def _unit_vectors(*degrees: float) -> Tensor:
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angles.cos(), angles.sin()], dim=1).requires_grad_()


def _hinge(vectors: Tensor, reducer: str = "AvgNonZeroReducer") -> Tensor:
    loss = create_loss(hinge_settings(1.0, reducer), torch.arange(1)[:, None], vectors.shape[1])
    return loss(vectors, torch.zeros(len(vectors)), tuple(torch.arange(len(vectors)).reshape(-1, 3).T))


def _keras_hinge(vectors: Tensor) -> Tensor:
    query, positive, negative = vectors.reshape(-1, 3, vectors.shape[1]).unbind(1)
    return (1 + (query - positive).square().sum(1).sqrt() - (query - negative).square().sum(1).sqrt()).mean().relu()


def _training_images(catalogue: Catalogue) -> TrainingImages:
    """Return all images of a catalogue."""
    classes = np.unique(catalogue.frame["label"], return_inverse=True)[1]
    return TrainingImages(np.arange(len(classes)), classes, np.empty((0, 3), dtype=np.int64), np.arange(int(classes.max()) + 1)[:, None])


def _triplet_options(folder: Path, out: Path, positives: str = "1", negatives: str = "1") -> list[str]:
    numbers = ["--num_pos_images", positives, "--num_neg_images", negatives]
    return ["--input_directory", str(folder), "--output_directory", str(out), *numbers]


def _fit_triplets(catalogue: Catalogue, drawn: np.ndarray, model_settings: ModelSettings, folder: Path, per_batch: int) -> list[float]:
    frame = pd.DataFrame(drawn, columns=NAMES).assign(relevance_positive=1.0, relevance_negative=0.0, split="train")
    batches = {"batch_sampler": "triplets", "triplets_per_batch": per_batch, "losses": (hinge_settings(),)}
    sizes = {"train_image_sizes": (64,), "eval_image_size": 64, "epochs": 1, "precision": "fp32", "init_head": "random"}
    record = Record(folder)
    fit(catalogue, Triplets(frame, ""), TrainSettings(model=model_settings, **batches, **sizes), folder, record)
    return [point.value for point in record.points if point.name == "train.loss"]


@pytest.mark.parametrize("reducer", ["AvgNonZeroReducer", "MeanReducer"])
def test_fault_01_the_hinge_is_per_triplet(reducer: str) -> None:
    def check(hinge: Hinge) -> None:
        vectors = _unit_vectors(*[0, 0, 180] * 7, 0, 90, 40)
        (gradient,) = torch.autograd.grad(hinge(vectors), vectors)
        assert hinge(vectors) > 0
        assert (gradient[-3:].abs().sum(1) > 0).all()

    check(lambda vectors: _hinge(vectors, reducer))
    _assert_detects(check, _keras_hinge)


def test_fault_02_negative_values_keep_their_gradients(model_settings: ModelSettings) -> None:
    torch.manual_seed(0)
    models = [create_model(model_settings), create_model(model_settings.model_copy(update={"pretrained_share": 0.4}))]
    images = torch.randint(0, 256, (9, 3, 64, 64), dtype=torch.uint8)

    def check(hinge: Hinge) -> None:
        for model in models:
            embeddings = model(images).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(hinge(embeddings), embeddings)
            negative = embeddings < 0
            assert 0.3 < negative.float().mean() < 0.7
            assert (gradient[negative] != 0).all()

    assert [type(model) for model in models] == [EmbeddingModel, SearchModel]
    check(_hinge)
    _assert_detects(check, lambda embeddings: _hinge(embeddings.clamp(1e-7, 1 - 1e-7)))


def test_fault_03_squared_distance_and_weight_decay(model_settings: ModelSettings) -> None:
    def squared(hinge: Hinge) -> None:
        vectors = _unit_vectors(0, 60, 90)
        assert hinge(vectors.roll(1, dims=0)).item() == pytest.approx(1 + 2 - (2 - 3**0.5), abs=1e-12)

    def smooth_at_0(hinge: Hinge) -> None:
        vectors = _unit_vectors(20, 20, 50)
        assert torch.autograd.grad(hinge(vectors), vectors)[0].isfinite().all()

    def decays(groups: Any) -> None:
        weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
        before = [weight.norm().item() for weight in weights]
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        create_optimizer(paper.optimizer, groups).step()
        assert all(weight.norm() < norm for weight, norm in zip(weights, before, strict=True))

    model = EmbeddingModel(model_settings)
    sgd = {"name": "SGD", "kwargs": {"momentum": 0.9, "nesterov": True}}
    paper = TrainSettings(optimizer=sgd, learning_rate=0.1, head_learning_rate=0.1, weight_decay=0.001)
    assert TrainSettings().weight_decay > 0
    rates = (paper.learning_rate, paper.head_learning_rate)
    decays(parameter_groups(model, create_loss(hinge_settings(), torch.arange(1)[:, None], 16), *rates, paper.weight_decay))
    _assert_detects(decays, [{"params": list(model.parameters()), "lr": 0.1}])
    for check in (squared, smooth_at_0):
        check(_hinge)
        _assert_detects(check, _keras_hinge)


@pytest.mark.parametrize("size", [224, 160])
def test_fault_04_low_resolution_uses_every_pixel(size: int) -> None:
    def unused_share(branch: nn.Module) -> float:
        pixels = torch.randn(1, 3, size, size, requires_grad=True)
        features = branch(pixels)
        (gradient,) = torch.autograd.grad((features * torch.randn_like(features)).sum(), pixels)
        return (gradient == 0).all(dim=1).float().mean().item()

    torch.manual_seed(0)
    assert unused_share(LowResolutionBranches()) == 0
    assert unused_share(nn.Sequential(nn.Conv2d(3, 96, 8, stride=16), nn.ReLU())) == pytest.approx(1 - 1 / 4)
    assert unused_share(nn.Sequential(nn.Conv2d(3, 96, 8, stride=32), nn.ReLU())) == pytest.approx(1 - 1 / 16)


@pytest.mark.parametrize(("count", "per_batch"), [(1, 1), (10, 4), (7, 8), (23, 5)])
def test_fault_05_any_number_of_triplets_fits_any_batch_size(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path, count: int, per_batch: int
) -> None:
    drawn = triplets.in_split("train")[NAMES].to_numpy()[:count]
    batches = triplet_batches(drawn, per_batch, np.random.default_rng(0))
    assert sorted(row for batch in batches for row in batch.images[batch.triplets].tolist()) == sorted(drawn.tolist())
    assert [len(batch.triplets) for batch in batches[:-1]] == [per_batch] * (len(batches) - 1)
    assert np.isfinite(
        _fit_triplets(catalogue, triplets.in_split("train")[NAMES].to_numpy()[-count:], model_settings, tmp_path, per_batch)
    ).all()
    # The Keras scripts count images; a batch whose size is not a multiple of three splits a triplet.
    images = drawn.ravel()
    chunks = [images[start : start + 3 * per_batch + 1] for start in range(0, len(images), 3 * per_batch + 1)]
    with pytest.raises(IndexError):
        [chunk[[i, i + 1, i + 2]] for chunk in chunks for i in range(0, 3 * per_batch + 1, 3)]


def test_fault_06_shuffling_moves_whole_triplets(catalogue: Catalogue, triplets: Triplets) -> None:
    drawn = triplets.in_split("train")[NAMES].to_numpy()[:30]
    preprocessing = Preprocessing(size=64)

    def check(batches: list[BatchIndices]) -> None:
        rows = np.concatenate([batch.images[batch.triplets] for batch in batches])
        assert rows.tolist() != drawn.tolist()
        assert sorted(rows.tolist()) == sorted(drawn.tolist())
        with ThreadPoolExecutor(1) as pool:
            loader = TrainingBatches(batches, _training_images(catalogue), DecodedImages(catalogue, 64, pool), 64)
            loaded = torch.cat([batch.images[torch.stack(batch.triplets, dim=1)] for batch in loader])
        for images, triplet in zip(loaded, rows, strict=True):
            assert torch.equal(images, torch.stack([preprocessing(jpeg) for jpeg in catalogue.read_jpegs(triplet)]))

    check(triplet_batches(drawn, 8, np.random.default_rng(0)))
    _assert_detects(check, [BatchIndices(np.random.default_rng(0).permutation(drawn.ravel()), np.arange(drawn.size).reshape(-1, 3))])


def test_fault_07_a_rejected_file_shifts_no_triplet(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "in", {"a/1.jpg": 1, "a/2.jpg": b"broken", "a/3.jpg": 3, "b/1.jpg": 4, "b/2.jpg": 5})
    remarks: list[str] = []
    catalogue = ingest_folder(folder, str(tmp_path / "catalogues"), remarks.append)
    paths = catalogue.frame["path"].tolist()
    assert "a/2.jpg" not in paths
    assert any(remark.startswith("1 file rejected: ") and remark.endswith("a/2.jpg") for remark in remarks)
    assert catalogue.read_jpegs(range(4)) == [to_stored_image((folder / path).read_bytes()).jpeg for path in paths]
    file = tmp_path / "triplets.txt"
    good = ["a/1.jpg,a/3.jpg,b/1.jpg", "b/2.jpg,b/1.jpg,a/3.jpg"]
    file.write_text("\n".join([good[0], "a/1.jpg,a/2.jpg,b/1.jpg", good[1]]))

    for read in (lambda: read_triplet_file(file, paths), lambda: sample_triplets(catalogue.frame, SampleSettings(file=str(file)))):
        with pytest.raises(DataError, match=r"line 2: a/2\.jpg is not among the images"):
            read()
    # The Keras scripts skip the name silently, and the next triplet is made of names of two triplets.
    names = [name for name in re.split(r"[,\n]", file.read_text()) if name in paths]
    assert names[3:6] == ["a/1.jpg", "b/1.jpg", "b/2.jpg"]
    file.write_text("\n".join(good))
    assert [",".join(paths[row] for row in triplet) for triplet in read_triplet_file(file, paths).to_numpy()] == good


def test_fault_08_the_triplet_file_is_read_once(
    catalogue: Catalogue, triplets: Triplets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "triplets.txt"
    write_triplet_file(file, triplets.in_split("train"), catalogue.frame["path"].tolist())
    settings, opened, opens = SampleSettings(file=str(file)), [], Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **b: opened.append(self) or opens(self, *a, **b))

    def check(read: Callable[[], pd.DataFrame]) -> None:
        opened.clear()
        assert read()[NAMES].to_numpy().tolist() == triplets.in_split("train")[NAMES].to_numpy().tolist()
        assert opened == [file]

    def read_per_class() -> pd.DataFrame:
        paths, classes = catalogue.frame["path"].tolist(), catalogue.frame["label"].nunique()
        return pd.concat([read_triplet_file(file, paths) for _ in range(classes)]).drop_duplicates()

    check(lambda: sample_triplets(catalogue.frame, settings).in_split("train"))
    _assert_detects(check, read_per_class)
    assert len(opened) == 6


def test_fault_09_content_and_not_name_makes_an_image(tmp_path: Path) -> None:
    names = {"img-3.jpg", "a b.jpg", "v1.2.jpg", "IMG4.JPG"}
    images = {f"a/{name}": number for number, name in enumerate(sorted(names))}
    folder = put_all(tmp_path / "in", images | {"a/x.jpgx": b"text", "b/1.png": 8, "b/2.png": 9})

    result = CliRunner().invoke(app, ["triplets", *_triplet_options(folder, tmp_path / "out")])
    rows = csv.reader((tmp_path / "out/triplets.txt").read_text().splitlines())
    assert {Path(query).name for query, _, _ in rows if Path(query).parent.name == "a"} == names
    assert "1 file rejected: not an image in a format that can be read: a/x.jpgx" in result.stderr
    # The pattern of the Keras scripts matches none of these names, but that of the text file.
    assert {name for name in {*names, "x.jpgx"} if re.match(r"([\w]+\.(?:jpg|jpeg|bmp|png|ppm))", name)} == {"x.jpgx"}


@pytest.mark.parametrize(("option", "number"), [("positives", "0"), ("negatives", "-1")])
def test_fault_10_wrong_options_are_refused(synthetic_folder: Path, tmp_path: Path, option: str, number: str) -> None:
    def run(command: typer.Typer, folder: Path, out: Path, **numbers: str) -> Result:
        return CliRunner().invoke(command, [*["triplets"] * (command is app), *_triplet_options(folder, out, **numbers)])

    def ends(command: typer.Typer) -> None:
        result = run(command, synthetic_folder, tmp_path, **{option: number})
        assert result.exit_code != 0
        assert {"positives": "num_pos_images", "negatives": "num_neg_images"}[option] in result.stderr
        assert not (tmp_path / "triplets.txt").exists()

    def makes(command: typer.Typer) -> None:
        new = tmp_path / ("deeprank" if command is app else "keras")
        assert run(command, synthetic_folder, new).exit_code == 0
        assert (new / "triplets.txt").exists()

    keras_sampler = typer.Typer()

    @keras_sampler.command()
    def sampler(
        source: Annotated[Path, typer.Option("--input_directory")],
        out: Annotated[Path, typer.Option("--output_directory")],
        positives: Annotated[int, typer.Option("--num_pos_images")],
        negatives: Annotated[int, typer.Option("--num_neg_images")],
    ) -> None:
        if min(positives, negatives) < 1:
            print("Number of images cannot be less than 1")
        if not out.exists():
            return print(f"{source} path does not exist!")
        return (out / "triplets.txt").touch()

    for check in (ends, makes):
        check(app)
        _assert_detects(check, keras_sampler)
    assert f"{tmp_path / 'no'} does not exist" in str(run(app, tmp_path / "no", tmp_path).exception)


def test_fault_11_singleton_classes_are_reported(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "in", {"a/1.png": 1, "a/2.png": 2, "b/1.png": 3, "b/2.png": 4, "single/1.png": 5})
    result = CliRunner().invoke(app, ["triplets", *_triplet_options(folder, tmp_path / "out", negatives="9"), "--json"])
    assert "1 of 5 images have no positive: they are the only image of their class" in result.stderr
    assert "class single has one image" in result.stderr
    assert json.loads(result.stdout)["queries_without_positive"] == 1
    rows = [line.split(",") for line in (tmp_path / "out/triplets.txt").read_text().splitlines()]
    assert {Path(query).parent.name for query, _, _ in rows} == {"a", "b"}
    assert "single" in {Path(negative).parent.name for _, _, negative in rows}


def test_fault_12_training_and_distance_preprocess_equally(bundle: Bundle, tmp_path: Path) -> None:
    folder = put_all(tmp_path / "in", {f"{label}/{n}.png": pattern(7 * n, (300, 200 + n)) for n, label in enumerate("aabb")})
    catalogue = ingest_folder(folder, str(tmp_path / "catalogues"), print)
    rows, (model, preprocessing) = np.arange(4), bundle.load()
    embeddings = embed_catalogue(model, preprocessing, catalogue, rows)
    with ThreadPoolExecutor(1) as pool:
        decoded = DecodedImages(catalogue, preprocessing.size, pool)
        (batch,) = TrainingBatches([BatchIndices(rows)], _training_images(catalogue), decoded, preprocessing.size)

    def preprocess_all(preprocess: Callable[[bytes], Tensor]) -> Tensor:
        return torch.stack([preprocess(jpeg) for jpeg in catalogue.read_jpegs(rows)])

    def agrees(distance: float) -> None:
        assert distance == pytest.approx(float(np.linalg.norm(embeddings[0] - embeddings[3])), abs=1e-5)

    def keras_preprocessing(jpeg: bytes) -> Tensor:
        squeezed = Image.open(io.BytesIO(jpeg)).resize((preprocessing.size,) * 2, Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(squeezed)).permute(2, 0, 1)

    files = [str(folder / catalogue.frame["path"][row]) for row in (0, 3)]
    command = ["distance", "--model", str(bundle.folder), "--image1", files[0], "--image2", files[1], "--json"]
    assert torch.equal(preprocess_all(preprocessing), batch.images)
    assert not torch.equal(preprocess_all(keras_preprocessing), batch.images)
    agrees(json.loads(CliRunner().invoke(app, command).stdout)["distance"])
    with torch.inference_mode():
        squeezed = model(preprocess_all(keras_preprocessing))
    _assert_detects(agrees, float((squeezed[0] - squeezed[3]).norm()))


def test_fault_13_test_triplets_are_of_other_images(catalogue: Catalogue, triplets: Triplets, bundle: Bundle, tmp_path: Path) -> None:
    files = {f"{label}/{n}.{kind}": encoded(pattern(n), kind) for n in range(24) for label in "ab"[n % 2] for kind in ("png", "jpeg")}
    halves = IngestSettings(shares=SplitShares(train=0.5, val=0, test=0.5))
    twins, _ = ingest(put_all(tmp_path / "in", files), halves, str(tmp_path / "catalogues"), progress=False)
    assert (twins.frame["duplicate_group"].value_counts() == 2).all()

    def apart(frame: pd.DataFrame, drawn: Triplets) -> None:
        for column in ("id", "duplicate_group"):
            train, test = (set(frame[column].iloc[drawn.in_split(split)[NAMES].to_numpy().ravel()]) for split in ("train", "test"))
            assert train
            assert test
            assert not train & test

    def split_by_row(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(split=np.where(np.arange(len(frame)) % 2, "test", "train"))

    same = [triplets.in_split("train").assign(split=split) for split in ("train", "test")]
    apart(catalogue.frame, triplets)
    apart(twins.frame, sample_triplets(twins.frame, SampleSettings()))
    _assert_detects(apart, catalogue.frame, Triplets(pd.concat(same), ""))
    _assert_detects(apart, split_by_row(twins.frame), sample_triplets(split_by_row(twins.frame), SampleSettings()))

    result = evaluate_bundle(catalogue, triplets, bundle, Record(tmp_path / "record"))
    embeddings = embed_catalogue(*bundle.load(), catalogue, np.arange(len(catalogue.frame)))
    query, positive, negative = (embeddings[triplets.in_split("test")[name]] for name in NAMES)
    ordered = np.linalg.norm(query - positive, axis=1) < np.linalg.norm(query - negative, axis=1)
    assert result.metrics["triplet_accuracy"].value == pytest.approx(ordered.mean())
    assert result.queries["row"].tolist() == catalogue.rows("test").tolist()
    assert all(0 <= result.metrics[name].value <= 1 for name in ("fine.recall_at_1", "fine.map_at_r", "baseline.triplet_accuracy"))


def test_fault_14_each_image_of_a_batch_is_forwarded_once(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, rows = catalogue.frame["label"].to_numpy(), catalogue.rows("train")
    own, other = (rows[same][:3] for same in (labels[rows] == labels[rows[0]], labels[rows] != labels[rows[0]]))
    drawn = np.array([(query, positive, negative) for query in own for positive in own if positive != query for negative in other])
    decode, decoded, forwarded = preprocessing_module.decode, [], []
    monkeypatch.setattr(preprocessing_module, "decode", lambda jpeg: decoded.append(jpeg) or decode(jpeg))

    def record_input(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        # The stem of the ConvNet, or the low-resolution branches; in training only.
        stem = isinstance(module, nn.Conv2d) and inputs[0].shape[1:] == (3, 64, 64)
        if module.training and (stem or isinstance(module, LowResolutionBranches)):
            forwarded.append(inputs[0].detach().clone())

    def check(folder: Path) -> None:
        decoded.clear()
        forwarded.clear()
        with register_module_forward_pre_hook(record_input):
            _fit_triplets(catalogue, drawn, model_settings.model_copy(update={"multiscale": True}), folder, len(drawn))
        assert len(decoded) == 6
        convnet, low_resolution = forwarded
        assert len(convnet) == 6
        assert torch.equal(convnet, low_resolution)

    def repeat_images(triplets: np.ndarray, *_: object) -> list[BatchIndices]:
        return [BatchIndices(triplets.ravel(), np.arange(triplets.size).reshape(-1, 3))]

    codes = np.unique(labels[rows], return_inverse=True)[1]
    # Two images of a class with one image are the same.
    codes = codes[np.bincount(codes)[codes] > 1]
    assert all(len({*batch.images}) == 6 for batch in pk_batches(codes, 3, 2, np.random.default_rng(0)))
    assert len(drawn) == 18
    check(tmp_path / "deeprank")
    monkeypatch.setattr(data_module, "triplet_batches", repeat_images)
    _assert_detects(check, tmp_path / "keras")
    assert [len(batch) for batch in forwarded] == [54, 54]
