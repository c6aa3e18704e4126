"""Drift: the test rejects as often as it says, sees a shift, and what is reported is what came in."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
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
from deeprank.monitoring.drift import class_bars, drift, measure_drift, two_sample_test
from deeprank.reporting import Record
from deeprank.search.clusters import ClusterSettings, cluster
from deeprank.search.faiss_index import SearchParams
from deeprank.search.index import EXACT_SEARCH, Index
from tests.conftest import SIZE, TINY, save_untrained

FEW = 99


class Kept(Record):
    """Keeps the figures themselves; drawing them to files takes longer than all else here."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.drawn: dict[str, Figure] = {}

    def figure(self, name: str, figure: Figure) -> None:
        self.drawn[name] = figure


def _normal(rng: np.random.Generator, count: int, shift: float = 0.0, d: int = 8) -> np.ndarray:
    return (rng.normal(size=(count, d)) + shift).astype(np.float32)


def _mmd_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    both = np.concatenate([x, y]).astype(np.float64)
    squared = [((a - b) ** 2).sum() for i, a in enumerate(both) for b in both[:i]]

    def mean(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> float:
        return float(np.mean([np.exp(-((a - b) ** 2).sum() / (2 * np.median(squared))) for a, b in pairs]))

    within = [mean((a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j) for s in (x.astype(float), y.astype(float))]
    return sum(within) - 2 * mean((a, b) for a in x.astype(float) for b in y.astype(float))


def test_the_statistic_is_the_unbiased_estimate_by_counting_pairs() -> None:
    rng = np.random.default_rng(0)
    x, y = _normal(rng, 12), _normal(rng, 9, 0.4)
    assert two_sample_test(x, y)[0] == pytest.approx(_mmd_by_loops(x, y), abs=1e-9)
    assert two_sample_test(y, x)[0] == pytest.approx(_mmd_by_loops(x, y), abs=1e-9)


def test_under_the_null_p_is_uniform_and_false_alarms_are_as_rare_as_said() -> None:
    rng = np.random.default_rng(1)
    found = [two_sample_test(_normal(rng, 30), _normal(rng, 15), seed, FEW)[1] for seed in range(400)]
    assert np.mean(np.array(found) <= 0.05) <= 0.07
    assert 0.1 <= np.mean(np.array(found) <= 0.2) <= 0.3
    assert kstest(found, "uniform").pvalue > 0.01


def test_a_shift_is_seen_and_more_so_the_larger_it_is() -> None:
    rng = np.random.default_rng(2)
    known = _normal(rng, 60)
    found = [two_sample_test(known, _normal(rng, 40, shift), 0, FEW) for shift in (0.5, 1.0, 2.0)]
    assert [p for _, p in found] == [1 / (1 + FEW)] * 3
    assert found[0][0] < found[1][0] < found[2][0]


def test_a_change_of_spread_alone_is_seen() -> None:
    rng = np.random.default_rng(3)
    assert two_sample_test(_normal(rng, 60), 2 * _normal(rng, 60), 0, FEW)[1] == 1 / (1 + FEW)


def test_what_is_all_the_same_has_not_drifted() -> None:
    assert two_sample_test(np.ones((9, 3)), np.ones((8, 3)), 0, FEW) == (pytest.approx(0, abs=1e-12), 1.0)


def test_more_permutations_than_a_block_and_more_images_than_the_sample() -> None:
    rng = np.random.default_rng(4)
    assert two_sample_test(_normal(rng, 20), _normal(rng, 20, 3.0), 0, 1234)[1] == pytest.approx(1 / 1235)
    assert two_sample_test(_normal(rng, 1500), _normal(rng, 20, 3.0), 0, FEW)[1] == 1 / (1 + FEW)


def test_the_same_seed_gives_the_same_p() -> None:
    rng = np.random.default_rng(5)
    x, y = _normal(rng, 30), _normal(rng, 30, 0.2)
    assert two_sample_test(x, y, 1) == two_sample_test(x, y, 1)
    assert len({two_sample_test(x, y, seed)[1] for seed in range(5)}) > 1


def test_each_class_is_tested_alone_and_p_adjusted_over_all_of_them() -> None:
    rng = np.random.default_rng(6)
    known = np.concatenate([_normal(rng, 30), _normal(rng, 30, 9.0), _normal(rng, 30, -9.0), _normal(rng, 7), _normal(rng, 20)])
    known_labels = ["still"] * 30 + ["moved"] * 30 + ["gone"] * 30 + ["rare"] * 7 + ["few new"] * 20
    new = np.concatenate([_normal(rng, 20), _normal(rng, 10, 11.0), _normal(rng, 20), _normal(rng, 7), _normal(rng, 12)])
    new_labels = ["still"] * 20 + ["moved"] * 10 + ["rare"] * 20 + ["few new"] * 7 + ["unseen"] * 12
    found = drift(known, known_labels, new, new_labels, {*known_labels, "test only"}, [*new_labels, "test only"])
    table = found.per_class
    assert table[["label", "new", "known"]].to_numpy().tolist() == [["moved", 10, 30], ["still", 20, 30]]
    assert table["statistic"].is_monotonic_decreasing
    assert table["p_adjusted"].tolist() == pytest.approx(false_discovery_control(table["p"]).tolist())
    assert (table["p_adjusted"] < 0.05).tolist() == [True, False]
    assert found.classes_drifted == 1
    assert (found.new_classes, found.vanished_classes) == (["unseen"], ["gone"])
    assert found.p_value < 0.05


def test_another_mix_of_classes_is_no_drift() -> None:
    found = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        middles = 4 * _normal(rng, 6)
        known_labels = np.repeat(list("abcdef"), 20)
        new_labels = np.repeat(list("ab"), [7, 3])
        known, new = (_normal(rng, len(of)) + middles[["abcdef".index(label) for label in of]] for of in (known_labels, new_labels))
        found.append(drift(known, known_labels, new, new_labels, known_labels, known_labels).p_value)
        if not seed:
            moved = drift(known, known_labels, new + 1, new_labels, known_labels, known_labels)
            unknown = drift(known, known_labels, new, ["new"] * len(new), known_labels, known_labels)
    assert np.mean(np.array(found) <= 0.05) <= 0.1
    assert kstest(found, "uniform").pvalue > 0.01
    assert moved.p_value < 0.01
    assert np.isnan(unknown.p_value)


@pytest.mark.parametrize("towards", [1, -1])
def test_a_class_that_moves_towards_another_that_hardly_came_has_drifted(towards: int) -> None:
    rng = np.random.default_rng(0)
    middle = {"a": np.zeros(8), "b": np.array([6.0, *[0.0] * 7])}
    known_labels, new_labels = ["a"] * 20 + ["b"] * 40, ["a"] * 20 + ["b"]
    known, new = ((_normal(rng, len(of)) + [middle[label] for label in of]).astype(np.float32) for of in (known_labels, new_labels))
    new[:20, 0] += 2 * towards
    assert drift(known, known_labels, new, new_labels, known_labels, known_labels).p_value < 0.01


def test_one_class_of_many_can_still_be_found_to_drift() -> None:
    rng = np.random.default_rng(7)
    labels = np.repeat([f"class {i:02}" for i in range(60)], 8)
    known, new = _normal(rng, 480), _normal(rng, 480)
    new[labels == "class 17"] += 5
    table = drift(known, labels, new, labels, labels, labels).per_class
    assert len(table) == 60
    assert table["label"][table["p_adjusted"] < 0.05].tolist() == ["class 17"]


def test_the_nearest_known_image_is_that_of_comparing_with_all() -> None:
    rng = np.random.default_rng(8)
    known, new = _normal(rng, 50), _normal(rng, 20)
    found = drift(known, ["a"] * 50, new, ["a"] * 20, ["a"], ["a"])
    distance = np.linalg.norm(new[:, None].astype(np.float64) - known, axis=2)
    assert found.nearest.tolist() == distance.argmin(axis=1).tolist()
    assert found.distance == pytest.approx(distance.min(axis=1))


@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_few_new_images_are_not_tested(count: int) -> None:
    rng = np.random.default_rng(9)
    found = drift(_normal(rng, 50), ["a"] * 50, _normal(rng, count), ["a"] * count, ["a"], ["a"])
    assert found.new_images == len(found.nearest) == len(found.distance) == count
    assert np.isnan([found.statistic, found.p_value]).all()
    assert (len(found.per_class), found.classes_drifted) == (0, 0)


def test_bars_of_classes_that_drifted_are_colored() -> None:
    table = pd.DataFrame(
        {"label": ["x/far", "x/near"], "new": [9, 8], "known": [20, 30], "statistic": [0.4, 0.01], "p_adjusted": [0.01, 0.6]}
    )
    axes = class_bars(table).axes[0]
    assert sorted((bar.get_width(), bar.get_y() > 0) for bar in axes.patches) == [(0.01, False), (0.4, True)]
    assert len({bar.get_facecolor() for bar in axes.patches}) == 2
    assert [label.get_text() for label in axes.get_yticklabels()] == ["near (8 new, 30)", "far (9 new, 20)"]


def _index(folder: Path, catalogue: Catalogue, bundle: Bundle, point: SearchParams = EXACT_SEARCH) -> Index:
    embeddings = embed_catalogue(*bundle.load(), catalogue, np.arange(len(catalogue.frame)))
    return Index.build(folder, bundle, catalogue, embeddings, cluster(embeddings, ClusterSettings(clusters=4)), point)


@dataclasses.dataclass(frozen=True)
class Grown:
    """A folder as the champion saw it and, after one class left, one came and the others grew, as it is today."""

    before: Catalogue
    today: Catalogue


@pytest.fixture(scope="module")
def grown(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Grown:
    folder = tmp_path_factory.mktemp("grown") / "images"
    shutil.copytree(synthetic_folder, folder)
    classes = sorted({file.parent for file in folder.rglob("*.*")})
    aside = folder.parent / "aside"
    coming = shutil.move(classes[0], aside / "class")
    growing = {aside / label.name: label for label in (classes[1], *classes[3:])}
    for away, label in growing.items():
        away.mkdir()
        for file in sorted(label.iterdir())[:3]:
            shutil.move(file, away)
    settings = IngestSettings(shares=SplitShares(train=0.7, val=0.15, test=0.15))
    before, _ = ingest(folder, settings, str(folder.parent / "catalogues"), progress=False)
    shutil.rmtree(classes[2])
    shutil.move(coming, classes[0])
    for away, label in growing.items():
        for file in away.iterdir():
            shutil.move(file, label)
    today, _ = ingest(folder, settings, str(folder.parent / "catalogues"), progress=False)
    return Grown(before, today)


@pytest.mark.parametrize("point", [EXACT_SEARCH, SearchParams(kind="ivf_flat", nprobe=2)], ids=str)
def test_what_came_in_is_measured_named_and_drawn(grown: Grown, bundle: Bundle, tmp_path: Path, point: SearchParams) -> None:
    index = _index(tmp_path / "i", grown.before, bundle, point)
    record = Kept(tmp_path)
    found = measure_drift(grown.today, bundle, index, record)
    came = ~grown.today.frame["id"].isin(grown.before.frame["id"]).to_numpy()
    new = embed_catalogue(*bundle.load(), grown.today, np.flatnonzero(came))
    everything = embed_catalogue(*bundle.load(), grown.before, grown.before.rows("train"))
    distance = np.linalg.norm(new[:, None].astype(np.float64) - everything, axis=2).min(axis=1)
    assert found.distance == pytest.approx(distance, abs=1e-5)
    before, today = set(grown.before.frame["label"]), set(grown.today.frame["label"])
    assert len(today - before) == len(before - today) == 1
    assert {point.name: point.value for point in record.points} == {
        "drift.new_images": came.sum(),
        "drift.new_classes": 1,
        "drift.vanished_classes": 1,
        "drift.mmd": found.statistic,
        "drift.p_value": found.p_value,
        "drift.classes_drifted": 0,
    }
    assert came.sum() >= 10
    assert record.notes.pop("drift.measured_in").startswith("whole embedding")
    assert record.notes == {"drift.new_classes": "".join(today - before), "drift.vanished_classes": "".join(before - today)}
    assert set(record.drawn) == {"drift"}
    captions = [axes.get_title() for axes in record.drawn["drift"].axes if axes.images]
    assert 0 < len(captions) <= 24
    labels = grown.today.frame["label"][came].to_numpy()
    shown = [caption.split("\n")[1] for caption in captions if caption.startswith("new")]
    assert {labels[distance.argmax()].rsplit("/", 1)[-1]} == set(shown[:1])
    assert len(set(shown)) == len(set(labels))
    at = [float(caption.split("\n")[0].split(" ")[-1]) for caption in captions if caption.startswith("nearest")]
    assert set(at) <= set(np.round(distance, 2).tolist())
    assert len(at) + sum("gone" in caption for caption in captions) == len(shown)


def test_what_the_champion_learned_does_not_look_like_drift(grown: Grown, tmp_path: Path) -> None:
    model_settings = TINY.model_copy(update={"pretrained_share": 0.4})
    torch.manual_seed(0)
    model, preprocessing = create_model(model_settings), Preprocessing(size=SIZE)
    measured = []
    for name in ("untrained", "trained"):
        bundle = Bundle.save(tmp_path / name, model, model_settings, preprocessing, {"catalogue": "none"})
        record = Kept(tmp_path)
        index = _index(tmp_path / f"{name} index", grown.before, bundle)
        measured.append((measure_drift(grown.today, bundle, index, record), record, index))
        torch.nn.init.normal_(model.tuned.head.weight)
    (found, record, index), (again, _, other) = measured
    assert index.facts["model"] != other.facts["model"]
    assert again.statistic == pytest.approx(found.statistic, abs=1e-6)
    assert again.distance == pytest.approx(found.distance, abs=1e-5)
    assert record.notes["drift.measured_in"] == "features before training"


def test_where_nothing_is_new_there_is_nothing_to_see(catalogue: Catalogue, bundle: Bundle, tmp_path: Path) -> None:
    record = Kept(tmp_path)
    found = measure_drift(catalogue, bundle, _index(tmp_path / "i", catalogue, bundle), record)
    assert found.new_images == 0
    names = {"drift.new_images", "drift.new_classes", "drift.vanished_classes"}
    assert {point.name: point.value for point in record.points} == dict.fromkeys(names, 0)
    assert not record.notes
    assert not record.drawn


def test_another_models_index_is_refused(catalogue: Catalogue, bundle: Bundle, tmp_path: Path) -> None:
    index = _index(tmp_path / "i", catalogue, bundle)
    with pytest.raises(ModelError, match="another model"):
        measure_drift(catalogue, save_untrained(tmp_path / "other", seed=5), index, Kept(tmp_path))
