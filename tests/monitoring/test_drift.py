"""Drift: new images are tested within shared classes, and metrics, names and figures of them are reported."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import false_discovery_control, kstest

from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import IngestSettings, SplitShares, ingest
from deeprank.errors import ModelError
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import create_model
from deeprank.models.inference import embed_catalogue
from deeprank.models.preprocessing import Preprocessing
from deeprank.monitoring.drift import FULL_EMBEDDING, PRETRAINED_FEATURES, Drift, compute_drift, measure_drift
from deeprank.reporting import Record
from deeprank.search.clustering import ClusterSettings, cluster_embeddings
from deeprank.search.index import Index
from deeprank.search.index_build import write_index
from deeprank.search.search_params import EXACT_SEARCH, SearchParams
from tests.conftest import SIZE, TINY, save_untrained
from tests.monitoring.points import normal_points


class FigureRecord(Record):
    """A record that holds the figures themselves: writing them to files would take longest in these tests."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.figure_objects: dict[str, Figure] = {}

    def figure(self, name: str, figure: Figure) -> None:
        self.figure_objects[name] = figure


def test_each_class_is_tested_and_p_adjusted_over_all_classes() -> None:
    rng = np.random.default_rng(6)
    reference = np.concatenate(
        [normal_points(rng, 30), normal_points(rng, 30, 9.0), normal_points(rng, 30, -9.0), normal_points(rng, 7), normal_points(rng, 20)]
    )
    reference_labels = ["still"] * 30 + ["moved"] * 30 + ["gone"] * 30 + ["rare"] * 7 + ["few new"] * 20
    new = np.concatenate(
        [normal_points(rng, 20), normal_points(rng, 10, 11.0), normal_points(rng, 20), normal_points(rng, 7), normal_points(rng, 12)]
    )
    new_labels = ["still"] * 20 + ["moved"] * 10 + ["rare"] * 20 + ["few new"] * 7 + ["unseen"] * 12
    drift = compute_drift(reference, reference_labels, new, new_labels, {*reference_labels, "test only"}, [*new_labels, "test only"])
    table = drift.per_class
    assert table[["label", "new", "reference"]].to_numpy().tolist() == [["moved", 10, 30], ["still", 20, 30]]
    assert table["statistic"].is_monotonic_decreasing
    assert table["p_adjusted"].tolist() == pytest.approx(false_discovery_control(table["p_value"]).tolist())
    assert (table["p_adjusted"] < 0.05).tolist() == [True, False]
    assert drift.num_drifted_classes == 1
    assert (drift.new_classes, drift.vanished_classes) == (["unseen"], ["gone"])
    assert drift.p_value < 0.05


def _mixture(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return points of six classes and their labels, and new points of two of these classes and their labels."""
    rng = np.random.default_rng(seed)
    centers = 4 * normal_points(rng, 6)
    reference_labels, new_labels = np.repeat(list("abcdef"), 20), np.repeat(list("ab"), [7, 3])
    reference, new = (
        normal_points(rng, len(labels)) + centers[["abcdef".index(label) for label in labels]] for labels in (reference_labels, new_labels)
    )
    return reference, reference_labels, new, new_labels


def test_another_mix_of_classes_is_no_drift() -> None:
    p_values = []
    for seed in range(100):
        reference, reference_labels, new, new_labels = _mixture(seed)
        p_values.append(compute_drift(reference, reference_labels, new, new_labels, reference_labels, reference_labels).p_value)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.1
    assert kstest(p_values, "uniform").pvalue > 0.01


def test_shifted_classes_drift_and_unknown_ones_are_not_tested() -> None:
    reference, reference_labels, new, new_labels = _mixture(0)
    shifted = compute_drift(reference, reference_labels, new + 1, new_labels, reference_labels, reference_labels)
    unknown = compute_drift(reference, reference_labels, new, ["new"] * len(new), reference_labels, reference_labels)
    assert shifted.p_value < 0.01
    assert np.isnan(unknown.p_value)


@pytest.mark.parametrize("direction", [1, -1])
def test_class_that_moves_towards_a_rare_one_has_drifted(direction: int) -> None:
    rng = np.random.default_rng(0)
    centers = {"a": np.zeros(8), "b": np.array([6.0, *[0.0] * 7])}
    reference_labels, new_labels = ["a"] * 20 + ["b"] * 40, ["a"] * 20 + ["b"]
    reference, new = (
        (normal_points(rng, len(labels)) + [centers[label] for label in labels]).astype(np.float32)
        for labels in (reference_labels, new_labels)
    )
    new[:20, 0] += 2 * direction
    assert compute_drift(reference, reference_labels, new, new_labels, reference_labels, reference_labels).p_value < 0.01


def test_one_drifted_class_of_many_is_significant() -> None:
    rng = np.random.default_rng(7)
    labels = np.repeat([f"class {i:02}" for i in range(60)], 8)
    reference, new = normal_points(rng, 480), normal_points(rng, 480)
    new[labels == "class 17"] += 5
    table = compute_drift(reference, labels, new, labels, labels, labels).per_class
    assert len(table) == 60
    assert table["label"][table["p_adjusted"] < 0.05].tolist() == ["class 17"]


def test_nearest_reference_image_is_that_of_comparing_with_all() -> None:
    rng = np.random.default_rng(8)
    reference, new = normal_points(rng, 50), normal_points(rng, 20)
    drift = compute_drift(reference, ["a"] * 50, new, ["a"] * 20, ["a"], ["a"])
    distances = np.linalg.norm(new[:, None].astype(np.float64) - reference, axis=2)
    assert drift.nearest.tolist() == distances.argmin(axis=1).tolist()
    assert drift.distances == pytest.approx(distances.min(axis=1))


@pytest.mark.parametrize("count", [0, 1, 7])
def test_fewer_than_8_new_images_are_not_tested(count: int) -> None:
    rng = np.random.default_rng(9)
    drift = compute_drift(normal_points(rng, 50), ["a"] * 50, normal_points(rng, count), ["a"] * count, ["a"], ["a"])
    assert drift.new_images == len(drift.nearest) == len(drift.distances) == count
    assert np.isnan([drift.statistic, drift.p_value]).all()
    assert (len(drift.per_class), drift.num_drifted_classes) == (0, 0)


def _index(folder: Path, catalogue: Catalogue, bundle: Bundle, search_params: SearchParams = EXACT_SEARCH) -> Index:
    embeddings = embed_catalogue(*bundle.load(), catalogue, np.arange(len(catalogue.frame)))
    clusters = cluster_embeddings(embeddings, ClusterSettings(n_clusters=4))
    return write_index(folder, bundle, catalogue, embeddings, clusters, search_params)


@dataclasses.dataclass(frozen=True)
class Versions:
    """A folder's catalogue before and after one class was removed, one added, and others got new images."""

    before: Catalogue
    current: Catalogue


@pytest.fixture(scope="module")
def versions(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    folder = tmp_path_factory.mktemp("versions") / "images"
    shutil.copytree(synthetic_folder, folder)
    classes = sorted({file.parent for file in folder.rglob("*.*")})
    aside = folder.parent / "aside"
    added_class = shutil.move(classes[0], aside / "class")
    added_images = {aside / label.name: label for label in (classes[1], *classes[3:])}
    for target, label in added_images.items():
        target.mkdir()
        for file in sorted(label.iterdir())[:3]:
            shutil.move(file, target)
    settings = IngestSettings(shares=SplitShares(train=0.7, val=0.15, test=0.15))
    before, _ = ingest(folder, settings, str(folder.parent / "catalogues"), progress=False)
    shutil.rmtree(classes[2])
    shutil.move(added_class, classes[0])
    for target, label in added_images.items():
        for file in target.iterdir():
            shutil.move(file, label)
    current, _ = ingest(folder, settings, str(folder.parent / "catalogues"), progress=False)
    return Versions(before, current)


@dataclasses.dataclass(frozen=True)
class Measured:
    """Drift between two versions, its record, and what it must be: the new rows, and their distances to the train images."""

    drift: Drift
    record: FigureRecord
    is_new: np.ndarray
    distances: np.ndarray


@pytest.fixture(scope="module", params=[EXACT_SEARCH, SearchParams(kind="ivf_flat", nprobe=2)], ids=str)
def measured(versions: Versions, bundle: Bundle, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("measured")
    record = FigureRecord(folder)
    drift = measure_drift(versions.current, bundle, _index(folder / "i", versions.before, bundle, request.param), record)
    is_new = ~versions.current.frame["id"].isin(versions.before.frame["id"]).to_numpy()
    new = embed_catalogue(*bundle.load(), versions.current, np.flatnonzero(is_new))
    train = embed_catalogue(*bundle.load(), versions.before, versions.before.rows("train"))
    distances = np.linalg.norm(new[:, None].astype(np.float64) - train, axis=2).min(axis=1)
    return Measured(drift, record, is_new, distances)


def test_metrics_and_names_of_new_images_are_reported(versions: Versions, measured: Measured) -> None:
    drift, record = measured.drift, measured.record
    assert drift.distances == pytest.approx(measured.distances, abs=1e-5)
    before, current = set(versions.before.frame["label"]), set(versions.current.frame["label"])
    assert len(current - before) == len(before - current) == 1
    assert {point.name: point.value for point in record.points} == {
        "drift.new_images": measured.is_new.sum(),
        "drift.new_classes": 1,
        "drift.vanished_classes": 1,
        "drift.mmd": drift.statistic,
        "drift.p_value": drift.p_value,
        "drift.classes_drifted": 0,
    }
    assert measured.is_new.sum() >= 10
    assert record.notes == {
        "drift.measured_in": FULL_EMBEDDING,
        "drift.new_classes": "".join(current - before),
        "drift.vanished_classes": "".join(before - current),
    }


def test_farthest_new_images_are_drawn(versions: Versions, measured: Measured) -> None:
    figures, distances = measured.record.figure_objects, measured.distances
    assert set(figures) == {"drift"}
    captions = [axes.get_title() for axes in figures["drift"].axes if axes.images]
    assert 0 < len(captions) <= 24
    labels = versions.current.frame["label"][measured.is_new].to_numpy()
    drawn = [caption.split("\n")[1] for caption in captions if caption.startswith("new")]
    assert {labels[distances.argmax()].rsplit("/", 1)[-1]} == set(drawn[:1])
    assert len(set(drawn)) == len(set(labels))
    drawn_distances = [float(caption.split("\n")[0].split(" ")[-1]) for caption in captions if caption.startswith("nearest")]
    assert set(drawn_distances) <= set(np.round(distances, 2).tolist())
    assert len(drawn_distances) + sum("removed" in caption for caption in captions) == len(drawn)


def test_training_of_the_model_does_not_change_the_drift(versions: Versions, tmp_path: Path) -> None:
    model_settings = TINY.model_copy(update={"pretrained_share": 0.4})
    torch.manual_seed(0)
    model, preprocessing = create_model(model_settings), Preprocessing(size=SIZE)
    drifts, records, indexes = [], [], []
    for name in ("untrained", "trained"):
        bundle = Bundle.save(tmp_path / name, model, model_settings, preprocessing, {"catalogue": "none"})
        records.append(FigureRecord(tmp_path))
        indexes.append(_index(tmp_path / f"{name} index", versions.before, bundle))
        drifts.append(measure_drift(versions.current, bundle, indexes[-1], records[-1]))
        torch.nn.init.normal_(model.finetuned.head.weight)
    assert indexes[0].manifest["weights_hash"] != indexes[1].manifest["weights_hash"]
    assert drifts[1].statistic == pytest.approx(drifts[0].statistic, abs=1e-6)
    assert drifts[1].distances == pytest.approx(drifts[0].distances, abs=1e-5)
    assert records[0].notes["drift.measured_in"] == PRETRAINED_FEATURES


def test_without_new_images_no_figure_is_drawn(catalogue: Catalogue, bundle: Bundle, tmp_path: Path) -> None:
    record = FigureRecord(tmp_path)
    drift = measure_drift(catalogue, bundle, _index(tmp_path / "i", catalogue, bundle), record)
    assert drift.new_images == 0
    names = {"drift.new_images", "drift.new_classes", "drift.vanished_classes"}
    assert {point.name: point.value for point in record.points} == dict.fromkeys(names, 0)
    assert not record.notes
    assert not record.figure_objects


def test_index_of_another_model_is_refused(catalogue: Catalogue, bundle: Bundle, tmp_path: Path) -> None:
    index = _index(tmp_path / "i", catalogue, bundle)
    with pytest.raises(ModelError, match="another model"):
        measure_drift(catalogue, save_untrained(tmp_path / "other", seed=5), index, FigureRecord(tmp_path))
