"""An evaluation is the means of its query table, and the same after saving."""

import numpy as np
import pandas as pd
import pytest

from deeprank.evaluation.evaluate import Evaluation, evaluate
from deeprank.evaluation.intervals import estimate
from deeprank.evaluation.metrics import query_table, triplet_correct

NAMES = ["recall_at_1", "recall_at_5", "recall_at_10", "map_at_r"]
QUERIES, GALLERY = np.arange(0, 30), np.arange(30, 80)
TRIPLETS = np.random.default_rng(0).integers(0, 30, (40, 3))


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = [f"{top}/{kind}/{kind}-{variant}" for top in "ab" for kind in "xy" for variant in (1, 2)]
    return pd.DataFrame({"label": rng.choice(labels, 100), "group": [f"g{number}" for number in rng.integers(0, 60, 100)]})


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    """Rows that nobody should look at are no numbers."""
    points = np.random.default_rng(1).normal(size=(100, 6)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points[80:] = np.nan
    return points


@pytest.fixture(scope="module")
def evaluation(frame: pd.DataFrame, embeddings: np.ndarray) -> Evaluation:
    return evaluate(frame, embeddings, QUERIES, GALLERY, TRIPLETS)


def test_every_metric_is_the_estimate_over_its_column(evaluation: Evaluation, frame: pd.DataFrame) -> None:
    groups = np.unique(frame["group"], return_inverse=True)[1][QUERIES]
    names = [f"{level}.{name}" for level in ("fine", "coarse") for name in NAMES]
    assert list(evaluation.metrics) == [*names, "triplet_accuracy"]
    assert evaluation.queries.columns.tolist() == ["row", "label", *names]
    for name in names:
        assert evaluation.metrics[name] == estimate(evaluation.queries[name].to_numpy(), groups)


def test_fine_classes_are_labels_and_coarse_ones_their_parents(evaluation: Evaluation, frame: pd.DataFrame, embeddings: np.ndarray) -> None:
    labels = {"fine": frame["label"], "coarse": frame["label"].str.rsplit("/", n=1).str[0]}
    for level, names in labels.items():
        codes = names.astype("category").cat.codes.to_numpy().astype(np.int64)
        expected = query_table(embeddings[QUERIES], codes[QUERIES], embeddings[GALLERY], codes[GALLERY])
        for name in NAMES:
            assert np.array_equal(evaluation.queries[f"{level}.{name}"], expected[name])
    for name in NAMES[:3]:
        assert (evaluation.queries[f"coarse.{name}"] >= evaluation.queries[f"fine.{name}"]).all()


def test_triplet_accuracy_is_the_share_of_ordered_triplets(evaluation: Evaluation, embeddings: np.ndarray) -> None:
    found = evaluation.metrics["triplet_accuracy"]
    assert found.value == pytest.approx(triplet_correct(embeddings, TRIPLETS).mean())
    assert found.count == len(TRIPLETS)


def test_rows_and_labels_say_which_query_it_was(evaluation: Evaluation, frame: pd.DataFrame) -> None:
    assert evaluation.queries["row"].tolist() == QUERIES.tolist()
    assert evaluation.queries["label"].tolist() == frame["label"][QUERIES].tolist()


def test_the_class_table_has_the_worst_class_first(evaluation: Evaluation) -> None:
    table = evaluation.per_class()
    assert table["queries"].sum() == len(QUERIES)
    assert table["fine.recall_at_1"].is_monotonic_increasing
    for row in table.to_dict("records"):
        mine = evaluation.queries[evaluation.queries["label"] == row["label"]]
        assert row["queries"] == len(mine)
        assert row["fine.map_at_r"] == pytest.approx(mine["fine.map_at_r"].mean())


def test_nested_metrics_have_the_promised_keys(evaluation: Evaluation) -> None:
    nested = evaluation.nested()
    assert nested.keys() == {"fine", "coarse", "triplet_accuracy", "intervals", "queries"}
    assert list(nested["fine"]) == list(nested["coarse"]) == NAMES
    assert nested["fine"]["map_at_r"] == evaluation.metrics["fine.map_at_r"].value
    assert nested["triplet_accuracy"] == evaluation.metrics["triplet_accuracy"].value
    interval = evaluation.metrics["coarse.recall_at_5"]
    assert nested["intervals"]["coarse.recall_at_5"] == [interval.low, interval.high]
    assert nested["queries"] == len(QUERIES)


def test_a_saved_evaluation_is_the_same_when_loaded(evaluation: Evaluation, tmp_path) -> None:
    evaluation.save(tmp_path / "e")
    loaded = Evaluation.load(tmp_path / "e")
    assert loaded.metrics == evaluation.metrics
    assert loaded.queries.equals(evaluation.queries)
    assert pd.read_csv(tmp_path / "e" / "per_class.csv")["label"].tolist() == evaluation.per_class()["label"].tolist()
