"""The seed's fourteen faults, in the order of its list: what is right here, and that an imitation of the seed is not."""

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
from deeprank.data.images import canonical
from deeprank.data.ingest import IngestSettings, SplitShares, ingest, ingest_folder
from deeprank.errors import DataError
from deeprank.evaluation.bundle_evaluation import evaluate_bundle
from deeprank.models import preprocessing as preprocessing_module
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import EmbeddingModel, LowResolutionBranches, ModelSettings, SearchModel, create_model
from deeprank.models.inference import embed_catalogue
from deeprank.models.preprocessing import Preprocessing
from deeprank.reporting import Record
from deeprank.training import fit as fit_module
from deeprank.training.batches import Batch, DecodedImages, TrainingBatches, class_batches, triplet_batches
from deeprank.training.fit import TrainSettings, fit, parameter_groups
from deeprank.training.losses import LossSettings, RankingHinge
from deeprank.triplets.sampling import SampleSettings, Triplets, sample_triplets
from deeprank.triplets.textfile import read_triplet_file, write_triplet_file
from tests.drawing import encoded, pattern, put_all

NAMES = ["query", "positive", "negative"]
Hinge = Callable[[Tensor], Tensor]


def _fails(right: Callable[..., None], *seed: Any) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        right(*seed)


def _at(*degrees: float) -> Tensor:
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angles.cos(), angles.sin()], dim=1).requires_grad_()


def _hinge(points: Tensor, reduction: str = "avg_non_zero") -> Tensor:
    places = torch.arange(len(points)).reshape(-1, 3)
    return RankingHinge(1.0, reduction)(points, torch.zeros(len(points)), tuple(places.T))


def _seed_hinge(points: Tensor) -> Tensor:
    query, positive, negative = points.reshape(-1, 3, points.shape[1]).unbind(1)
    return (1 + (query - positive).square().sum(1).sqrt() - (query - negative).square().sum(1).sqrt()).mean().relu()


def _triplet_options(folder: Path, out: Path, positives: str = "1", negatives: str = "1") -> list[str]:
    numbers = ["--num_pos_images", positives, "--num_neg_images", negatives]
    return ["--input_directory", str(folder), "--output_directory", str(out), *numbers]


def _fit_triplets(catalogue: Catalogue, drawn: np.ndarray, model_settings: ModelSettings, folder: Path, per_batch: int) -> list[float]:
    frame = pd.DataFrame(drawn, columns=NAMES).assign(relevance_positive=1.0, relevance_negative=0.0, split="train")
    batches = {"batch_sampler": "triplets", "triplets_per_batch": per_batch, "losses": (LossSettings(name="RankingHinge"),)}
    sizes = {"train_image_sizes": (64,), "eval_image_size": 64, "epochs": 1, "precision": "fp32", "init_head": "random"}
    record = Record(folder)
    fit(catalogue, Triplets(frame, ""), TrainSettings(model=model_settings, **batches, **sizes), folder, record)
    return [point.value for point in record.points if point.name == "train.loss"]


@pytest.mark.parametrize("reduction", ["avg_non_zero", "mean"])
def test_fault_01_the_hinge_is_taken_per_triplet_not_over_the_batch_sum(reduction: str) -> None:
    def right(hinge: Hinge) -> None:
        points = _at(*[0, 0, 180] * 7, 0, 90, 40)
        (gradient,) = torch.autograd.grad(hinge(points), points)
        assert hinge(points) > 0
        assert (gradient[-3:].abs().sum(1) > 0).all()

    right(lambda points: _hinge(points, reduction))
    _fails(right, _seed_hinge)


def test_fault_02_negative_coordinates_and_their_gradients_are_kept(model_settings: ModelSettings) -> None:
    torch.manual_seed(0)
    nets = [create_model(model_settings), create_model(model_settings.model_copy(update={"pretrained_share": 0.4}))]
    images = torch.randint(0, 256, (9, 3, 64, 64), dtype=torch.uint8)

    def right(hinge: Hinge) -> None:
        for model in nets:
            embeddings = model(images).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(hinge(embeddings), embeddings)
            negative = embeddings < 0
            assert 0.3 < negative.float().mean() < 0.7
            assert (gradient[negative] != 0).all()

    assert [type(model) for model in nets] == [EmbeddingModel, SearchModel]
    right(_hinge)
    _fails(right, lambda embeddings: _hinge(embeddings.clamp(1e-7, 1 - 1e-7)))


def test_fault_03_the_distance_is_squared_smooth_at_0_and_weights_decay(model_settings: ModelSettings) -> None:
    def squared(hinge: Hinge) -> None:
        points = _at(0, 60, 90)
        assert hinge(points.roll(1, dims=0)).item() == pytest.approx(1 + 2 - (2 - 3**0.5), abs=1e-12)

    def smooth_at_0(hinge: Hinge) -> None:
        points = _at(20, 20, 50)
        assert torch.autograd.grad(hinge(points), points)[0].isfinite().all()

    def decays(groups: Any) -> None:
        weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
        before = [weight.norm().item() for weight in weights]
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True).step()
        assert all(weight.norm() < norm for weight, norm in zip(weights, before, strict=True))

    model = EmbeddingModel(model_settings)
    paper = TrainSettings(optimizer="SGD", learning_rate=0.1, head_learning_rate=0.1, weight_decay=0.001)
    assert TrainSettings().weight_decay > 0
    decays(parameter_groups(model, RankingHinge(), paper))
    _fails(decays, list(model.parameters()))
    for right in (squared, smooth_at_0):
        right(_hinge)
        _fails(right, _seed_hinge)


@pytest.mark.parametrize("size", [224, 160])
def test_fault_04_low_resolution_sees_every_pixel(size: int) -> None:
    def unseen(branch: nn.Module) -> float:
        pixels = torch.randn(1, 3, size, size, requires_grad=True)
        found = branch(pixels)
        (gradient,) = torch.autograd.grad((found * torch.randn_like(found)).sum(), pixels)
        return (gradient == 0).all(dim=1).float().mean().item()

    torch.manual_seed(0)
    assert unseen(LowResolutionBranches()) == 0
    assert unseen(nn.Sequential(nn.Conv2d(3, 96, 8, stride=16), nn.ReLU())) == pytest.approx(1 - 1 / 4)
    assert unseen(nn.Sequential(nn.Conv2d(3, 96, 8, stride=32), nn.ReLU())) == pytest.approx(1 - 1 / 16)


@pytest.mark.parametrize(("count", "per_batch"), [(1, 1), (10, 4), (7, 8), (23, 5)])
def test_fault_05_any_number_of_triplets_makes_batches_of_any_size(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path, count: int, per_batch: int
) -> None:
    drawn = triplets.of("train")[NAMES].to_numpy()[:count]
    batches = triplet_batches(drawn, per_batch, np.random.default_rng(0))
    assert sorted(row for batch in batches for row in batch.images[batch.triplets].tolist()) == sorted(drawn.tolist())
    assert [len(batch.triplets) for batch in batches[:-1]] == [per_batch] * (len(batches) - 1)
    assert np.isfinite(_fit_triplets(catalogue, triplets.of("train")[NAMES].to_numpy()[-count:], model_settings, tmp_path, per_batch)).all()
    # The seed counts images, of which a batch that holds no whole triplets lacks some.
    images = drawn.ravel()
    parts = [images[start : start + 3 * per_batch + 1] for start in range(0, len(images), 3 * per_batch + 1)]
    with pytest.raises(IndexError):
        [part[[i, i + 1, i + 2]] for part in parts for i in range(0, 3 * per_batch + 1, 3)]


def test_fault_06_shuffling_moves_whole_triplets(catalogue: Catalogue, triplets: Triplets) -> None:
    drawn = triplets.of("train")[NAMES].to_numpy()[:30]
    preprocessing = Preprocessing(size=64)

    def right(batches: list[Batch]) -> None:
        rows = np.concatenate([batch.images[batch.triplets] for batch in batches])
        assert rows.tolist() != drawn.tolist()
        assert sorted(rows.tolist()) == sorted(drawn.tolist())
        with ThreadPoolExecutor(1) as pool:
            loaded = torch.cat(
                [
                    images[batch.triplets]
                    for images, batch in zip(TrainingBatches(batches, DecodedImages(catalogue, 64, pool)), batches, strict=True)
                ]
            )
        for images, triplet in zip(loaded, rows, strict=True):
            assert torch.equal(images, torch.stack([preprocessing(jpeg) for jpeg in catalogue.images(triplet)]))

    right(triplet_batches(drawn, 8, np.random.default_rng(0)))
    _fails(right, [Batch(np.random.default_rng(0).permutation(drawn.ravel()), np.arange(drawn.size).reshape(-1, 3))])


def test_fault_07_a_rejected_file_shifts_nothing_and_is_named(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "in", {"a/1.jpg": 1, "a/2.jpg": b"broken", "a/3.jpg": 3, "b/1.jpg": 4, "b/2.jpg": 5})
    remarks: list[str] = []
    catalogue = ingest_folder(folder, str(tmp_path / "catalogues"), remarks.append)
    paths = catalogue.frame["path"].tolist()
    assert "a/2.jpg" not in paths
    assert any(remark.startswith("a/2.jpg: rejected") for remark in remarks)
    assert catalogue.images(range(4)) == [canonical((folder / path).read_bytes()).jpeg for path in paths]
    file = tmp_path / "triplets.txt"
    good = ["a/1.jpg,a/3.jpg,b/1.jpg", "b/2.jpg,b/1.jpg,a/3.jpg"]
    file.write_text("\n".join([good[0], "a/1.jpg,a/2.jpg,b/1.jpg", good[1]]))

    for read in (lambda: read_triplet_file(file, paths), lambda: sample_triplets(catalogue.frame, SampleSettings(file=str(file)))):
        with pytest.raises(DataError, match=r"line 2: a/2\.jpg is not among the images"):
            read()
    # The seed says nothing, and its second triplet is none.
    kept = [name for name in re.split(r"[,\n]", file.read_text()) if name in paths]
    assert kept[3:6] == ["a/1.jpg", "b/1.jpg", "b/2.jpg"]
    file.write_text("\n".join(good))
    assert [",".join(paths[row] for row in triplet) for triplet in read_triplet_file(file, paths).to_numpy()] == good


def test_fault_08_the_triplet_file_is_read_once_however_many_classes(
    catalogue: Catalogue, triplets: Triplets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "triplets.txt"
    write_triplet_file(file, triplets.of("train"), catalogue.frame["path"].tolist())
    settings, opened, opens = SampleSettings(file=str(file)), [], Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **b: opened.append(self) or opens(self, *a, **b))

    def right(read: Callable[[], pd.DataFrame]) -> None:
        opened.clear()
        assert read()[NAMES].to_numpy().tolist() == triplets.of("train")[NAMES].to_numpy().tolist()
        assert opened == [file]

    def seed() -> pd.DataFrame:
        paths, classes = catalogue.frame["path"].tolist(), catalogue.frame["label"].nunique()
        return pd.concat([read_triplet_file(file, paths) for _ in range(classes)]).drop_duplicates()

    right(lambda: sample_triplets(catalogue.frame, settings).of("train"))
    _fails(right, seed)
    assert len(opened) == 6


def test_fault_09_a_file_is_a_image_by_its_content_not_its_name(tmp_path: Path) -> None:
    names = {"img-3.jpg", "a b.jpg", "v1.2.jpg", "IMG4.JPG"}
    images = {f"a/{name}": number for number, name in enumerate(sorted(names))}
    folder = put_all(tmp_path / "in", images | {"a/x.jpgx": b"text", "b/1.png": 8, "b/2.png": 9})

    result = CliRunner().invoke(app, ["triplets", *_triplet_options(folder, tmp_path / "out")])
    rows = csv.reader((tmp_path / "out/triplets.txt").read_text().splitlines())
    assert {Path(query).name for query, _, _ in rows if Path(query).parent.name == "a"} == names
    assert "a/x.jpgx: rejected: not an image" in result.stderr
    # The seed's pattern takes none of these, and the text.
    assert {name for name in {*names, "x.jpgx"} if re.match(r"([\w]+\.(?:jpg|jpeg|bmp|png|ppm))", name)} == {"x.jpgx"}


@pytest.mark.parametrize(("option", "number"), [("positives", "0"), ("negatives", "-1")])
def test_fault_10_a_number_below_1_ends_it_and_a_missing_folder_is_made_or_named(
    synthetic_folder: Path, tmp_path: Path, option: str, number: str
) -> None:
    def run(command: typer.Typer, folder: Path, out: Path, **numbers: str) -> Result:
        return CliRunner().invoke(command, [*["triplets"] * (command is app), *_triplet_options(folder, out, **numbers)])

    def ends(command: typer.Typer) -> None:
        result = run(command, synthetic_folder, tmp_path, **{option: number})
        assert result.exit_code != 0
        assert {"positives": "num_pos_images", "negatives": "num_neg_images"}[option] in result.stderr
        assert not (tmp_path / "triplets.txt").exists()

    def makes(command: typer.Typer) -> None:
        new = tmp_path / ("ours" if command is app else "seed")
        assert run(command, synthetic_folder, new).exit_code == 0
        assert (new / "triplets.txt").exists()

    seed = typer.Typer()

    @seed.command()
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

    for right in (ends, makes):
        right(app)
        _fails(right, seed)
    assert f"{tmp_path / 'no'} does not exist" in str(run(app, tmp_path / "no", tmp_path).exception)


def test_fault_11_classes_of_one_image_are_told(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "in", {"a/1.png": 1, "a/2.png": 2, "b/1.png": 3, "b/2.png": 4, "alone/1.png": 5})
    result = CliRunner().invoke(app, ["triplets", *_triplet_options(folder, tmp_path / "out", negatives="9"), "--json"])
    assert "1 of 5 images are alone in their class" in result.stderr
    assert "class alone has one image" in result.stderr
    assert json.loads(result.stdout)["queries_without_positive"] == 1
    rows = [line.split(",") for line in (tmp_path / "out/triplets.txt").read_text().splitlines()]
    assert {Path(query).parent.name for query, _, _ in rows} == {"a", "b"}
    assert "alone" in {Path(negative).parent.name for _, _, negative in rows}


def test_fault_12_training_and_distance_see_a_image_in_one_way(bundle: Bundle, tmp_path: Path) -> None:
    folder = put_all(tmp_path / "in", {f"{label}/{n}.png": pattern(7 * n, (300, 200 + n)) for n, label in enumerate("aabb")})
    catalogue = ingest_folder(folder, str(tmp_path / "catalogues"), print)
    rows, (model, preprocessing) = np.arange(4), bundle.load()
    embeddings = embed_catalogue(model, preprocessing, catalogue, rows)
    with ThreadPoolExecutor(1) as pool:
        (trained_on,) = TrainingBatches([Batch(rows)], DecodedImages(catalogue, preprocessing.size, pool))

    def seen(see: Callable[[bytes], Tensor]) -> Tensor:
        return torch.stack([see(jpeg) for jpeg in catalogue.images(rows)])

    def agrees(distance: float) -> None:
        assert distance == pytest.approx(float(np.linalg.norm(embeddings[0] - embeddings[3])), abs=1e-5)

    def seed(jpeg: bytes) -> Tensor:
        squeezed = Image.open(io.BytesIO(jpeg)).resize((preprocessing.size,) * 2, Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(squeezed)).permute(2, 0, 1)

    files = [str(folder / catalogue.frame["path"][row]) for row in (0, 3)]
    words = ["distance", "--model", str(bundle.folder), "--image1", files[0], "--image2", files[1], "--json"]
    assert torch.equal(seen(preprocessing), trained_on)
    assert not torch.equal(seen(seed), trained_on)
    agrees(json.loads(CliRunner().invoke(app, words).stdout)["distance"])
    with torch.inference_mode():
        squeezed = model(seen(seed))
    _fails(agrees, float((squeezed[0] - squeezed[3]).norm()))


def test_fault_13_test_triplets_are_of_other_images_and_are_what_is_evaluated(
    catalogue: Catalogue, triplets: Triplets, bundle: Bundle, tmp_path: Path
) -> None:
    pictures = {f"{label}/{n}.{kind}": encoded(pattern(n), kind) for n in range(24) for label in "ab"[n % 2] for kind in ("png", "jpeg")}
    halves = IngestSettings(shares=SplitShares(train=0.5, val=0, test=0.5))
    twins, _ = ingest(put_all(tmp_path / "in", pictures), halves, str(tmp_path / "catalogues"), progress=False)
    assert (twins.frame["group"].value_counts() == 2).all()

    def apart(frame: pd.DataFrame, drawn: Triplets) -> None:
        for column in ("id", "group"):
            train, test = (set(frame[column].iloc[drawn.of(split)[NAMES].to_numpy().ravel()]) for split in ("train", "test"))
            assert train
            assert test
            assert not train & test

    def seed(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(split=np.where(np.arange(len(frame)) % 2, "test", "train"))

    same = [triplets.of("train").assign(split=split) for split in ("train", "test")]
    apart(catalogue.frame, triplets)
    apart(twins.frame, sample_triplets(twins.frame, SampleSettings()))
    _fails(apart, catalogue.frame, Triplets(pd.concat(same), ""))
    _fails(apart, seed(twins.frame), sample_triplets(seed(twins.frame), SampleSettings()))

    result = evaluate_bundle(catalogue, triplets, bundle, Record(tmp_path / "record"))
    embeddings = embed_catalogue(*bundle.load(), catalogue, np.arange(len(catalogue.frame)))
    query, positive, negative = (embeddings[triplets.of("test")[name]] for name in NAMES)
    ordered = np.linalg.norm(query - positive, axis=1) < np.linalg.norm(query - negative, axis=1)
    assert result.metrics["triplet_accuracy"].value == pytest.approx(ordered.mean())
    assert result.queries["row"].tolist() == catalogue.rows("test").tolist()
    assert all(0 <= result.metrics[name].value <= 1 for name in ("fine.recall_at_1", "fine.map_at_r", "baseline.triplet_accuracy"))


def test_fault_14_a_image_of_a_batch_is_decoded_augmented_and_forwarded_once(
    catalogue: Catalogue, triplets: Triplets, model_settings: ModelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, rows = catalogue.frame["label"].to_numpy(), catalogue.rows("train")
    own, other = (rows[same][:3] for same in (labels[rows] == labels[rows[0]], labels[rows] != labels[rows[0]]))
    drawn = np.array([(query, positive, negative) for query in own for positive in own if positive != query for negative in other])
    decode, decoded, forwarded = preprocessing_module.decode, [], []
    monkeypatch.setattr(preprocessing_module, "decode", lambda jpeg: decoded.append(jpeg) or decode(jpeg))

    def see(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        # The ConvNet's stem or the whole of the branches beside it, in training only.
        stem = isinstance(module, nn.Conv2d) and inputs[0].shape[1:] == (3, 64, 64)
        if module.training and (stem or isinstance(module, LowResolutionBranches)):
            forwarded.append(inputs[0].detach().clone())

    def right(folder: Path) -> None:
        decoded.clear()
        forwarded.clear()
        with register_module_forward_pre_hook(see):
            _fit_triplets(catalogue, drawn, model_settings.model_copy(update={"multiscale": True}), folder, len(drawn))
        assert len(decoded) == 6
        convnet, low_resolution = forwarded
        assert len(convnet) == 6
        assert torch.equal(convnet, low_resolution)

    def seed(places: np.ndarray, *_: object) -> list[Batch]:
        return [Batch(places.ravel(), np.arange(places.size).reshape(-1, 3))]

    codes = np.unique(labels[rows], return_inverse=True)[1]
    assert all(len({*batch.images}) == 6 for batch in class_batches(codes, 3, 2, np.random.default_rng(0)))
    assert len(drawn) == 18
    right(tmp_path / "ours")
    monkeypatch.setattr(fit_module, "triplet_batches", seed)
    _fails(right, tmp_path / "seed")
    assert [len(batch) for batch in forwarded] == [54, 54]
