"""Corners of every room that broke once."""

import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from torch import nn

from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import IngestSettings, ingest, ingest_folder
from deeprank.errors import ConfigError, ModelError
from deeprank.evaluation.bundle_evaluation import evaluate_bundle
from deeprank.evaluation.folders import evaluate_folders
from deeprank.home import PROJECT
from deeprank.models.backbone import create_backbone
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import EmbeddingModel, ModelSettings
from deeprank.plotting import evaluation as figures
from deeprank.registry.register import RegisterSettings, register
from deeprank.registry.releases import latest_release
from deeprank.reporting import Record
from deeprank.search.clusters import ClusterSettings, cluster
from deeprank.search.index import Index
from deeprank.training.batches import class_batches
from deeprank.training.fit import validate
from deeprank.training.losses import LossSettings, create_loss
from deeprank.triplets.sampling import SampleSettings, Triplets, sample_triplets
from steps.caching import reached_sources
from tests.drawing import put_all


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "mobilenetv4_conv_small_035", "lcnet_035", "ghostnet_050"])
@pytest.mark.parametrize("embedding_dim", [0, 8])
def test_any_convnet_can_be_the_backbone(backbone: str, embedding_dim: int) -> None:
    model = EmbeddingModel(ModelSettings(backbone=backbone, weights="none", embedding_dim=embedding_dim)).eval()
    assert model(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, model.embedding_dim)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_damaged_weights_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"half a file")
    with pytest.raises(ConfigError, match=name):
        create_backbone("test_efficientnet", f"file:{tmp_path / name}")


def test_a_damaged_index_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"format": 1,')
    with pytest.raises(ModelError, match=r"index\.json"):
        Index(tmp_path).search(np.zeros((1, 16), dtype=np.float32), 1)


def test_as_many_clusters_as_separate_heaps_are_the_heaps() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(4), 25))
    points = np.eye(8)[labels] + rng.normal(scale=0.05, size=(100, 8))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    for seed in range(5):
        assert cluster(points, ClusterSettings(clusters=4, seed=seed)).purity(labels) == 1


@pytest.mark.parametrize("name", ["RankingHinge", "TripletMarginLoss", "ProxyAnchorLoss", "SubCenterArcFaceLoss"])
def test_a_loss_by_name_alone_has_its_own_defaults(name: str) -> None:
    loss = create_loss(LossSettings(name=name), torch.eye(4), 8)
    points = nn.functional.normalize(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    assert loss(points, torch.arange(8) // 2).isfinite()


@pytest.mark.parametrize(("count", "size", "per_batch"), [(12, 11, 8), (6, 8, 4), (36, 28, 12), (6, 6, 4)])
def test_there_are_as_many_batches_as_the_images_allow(count: int, size: int, per_batch: int) -> None:
    chunks = count * -(-size // 4)
    for seed in range(10):
        batches = class_batches(np.repeat(np.arange(count), size), per_batch, 4, np.random.default_rng(seed))
        assert len(batches) == chunks // per_batch


def test_a_image_alone_in_its_class_does_not_lower_the_recall_of_val(catalogue: Catalogue, bundle: Bundle, triplets: Triplets) -> None:
    val = catalogue.rows("val")
    labels = catalogue.frame["label"].copy()
    labels.iloc[val] = [f"pair/{i // 2}" if i < len(val) - 1 else "alone/x" for i in range(len(val))]
    changed = Catalogue(catalogue.uri, catalogue.version)
    changed.__dict__["frame"] = catalogue.frame.assign(label=labels)
    drawn = sample_triplets(changed.frame, SampleSettings())

    class Perfect(nn.Module):
        embedding_dim = 16

        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.eye(16)[torch.arange(len(images)) // 2]

    found = validate(Perfect(), bundle.load()[1], changed, drawn)
    assert found["recall_at_1"] == 1


def test_one_image_a_class_is_gallery_enough(synthetic_folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    for file in synthetic_folder.rglob("*.jpg"):
        target = tmp_path / ("searched" if file.stem == "000" else "asks") / file.relative_to(synthetic_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    asks, searched = (ingest_folder(tmp_path / name, str(tmp_path / "c"), lambda _: None) for name in ("asks", "searched"))
    nested = evaluate_folders(bundle, asks, searched).nested()
    assert 0 <= nested["fine"]["recall_at_1"] <= 1
    assert "NaN" not in json.dumps(evaluate_folders(bundle, searched, asks).nested())


def test_classes_that_only_test_has_can_be_evaluated(synthetic_folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    for number, label in enumerate(sorted(synthetic_folder.glob("*/*/*"))):
        shutil.copytree(label, tmp_path / "f" / ("train" if number < 3 else "test") / label.relative_to(synthetic_folder))
    catalogue, _ = ingest(tmp_path / "f", IngestSettings(), str(tmp_path / "c"), progress=False)
    found = evaluate_bundle(catalogue, sample_triplets(catalogue.frame, SampleSettings()), bundle, Record(tmp_path / "r"))
    assert 0 <= found.metrics["triplet_accuracy"].value <= 1


@pytest.mark.parametrize("label", ["a$^$", "$_$", "5$_{$"])
def test_a_dollar_in_a_name_is_a_dollar(tmp_path: Path, label: str) -> None:
    folder = put_all(tmp_path / "f", {f"{label}/1.png": 1, f"{label}/2.png": 2, "y/3.png": 3})
    catalogue, _ = ingest(folder, IngestSettings(), str(tmp_path / "c"), progress=False)
    figures.image_grid(catalogue).savefig(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_a_class_of_one_image_does_not_spoil_the_summary(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.serving.conftest import decision, make_release

    monkeypatch.setenv("DEEPRANK_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = mlflow.create_experiment("lonely", (tmp_path / "artifacts").as_uri())
    changed = Catalogue(catalogue.uri, catalogue.version)
    first = catalogue.rows("test")[0]
    labels = catalogue.frame["label"].copy()
    labels.iloc[first] = "aa/only/one"
    changed.__dict__["frame"] = catalogue.frame.assign(label=labels)
    folder = make_release(tmp_path / "release", changed, bundle, embeddings, triplets, 0.6)
    with mlflow.start_run(experiment_id=experiment):
        mlflow.set_tag("catalogue.source", "x")
        register(folder, RegisterSettings(name="lonely"), decision(0.6, None), catalogue, "card")
    assert latest_release("lonely").example != latest_release("lonely").other


def _reached(step: str) -> set[str]:
    return {file.relative_to(PROJECT).as_posix() for file in reached_sources(PROJECT / "steps" / f"{step}.py")}


def test_training_does_not_hang_on_search_or_metrics() -> None:
    assert not [file for file in _reached("train") if file.startswith("deeprank/search/") or file == "deeprank/evaluation/metrics.py"]


def test_sampling_does_not_hang_on_the_model_or_search() -> None:
    assert not [file for file in _reached("sample_triplets") if file.startswith(("deeprank/search/", "deeprank/models/"))]
