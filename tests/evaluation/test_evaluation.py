"""An evaluation is the means of its query table, and the same after saving."""

import numpy as np
import pandas as pd
import pytest

from deeprank.evaluation.evaluation import Evaluation, evaluate, same_parent_triplets
from deeprank.evaluation.intervals import estimate, share_interval
from deeprank.evaluation.metrics import query_table, top_score, triplet_correct
from deeprank.triplets.relevance import RelevanceWeights, encode_hierarchy

OF_A_LEVEL = ["recall_at_1", "recall_at_5", "recall_at_10", "map_at_r"]
NAMES = [*(f"{level}.{name}" for level in ("fine", "coarse") for name in OF_A_LEVEL), "ndcg_at_10"]
OF_TRIPLETS = ["triplet_accuracy", "triplet_accuracy_same_parent", "score_at_top_30"]
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
    assert list(evaluation.metrics) == [*NAMES, *OF_TRIPLETS]
    assert evaluation.queries.columns.tolist() == ["row", "label", "coarse", "nearest", "group", *NAMES]
    for name in NAMES:
        assert evaluation.metrics[name] == estimate(evaluation.queries[name].to_numpy(), groups)


def test_queries_are_those_of_the_query_table(evaluation: Evaluation, frame: pd.DataFrame, embeddings: np.ndarray) -> None:
    codes = encode_hierarchy(frame["label"].tolist())
    expected = query_table(embeddings[QUERIES], codes[QUERIES], embeddings[GALLERY], codes[GALLERY], RelevanceWeights())
    assert evaluation.queries[NAMES].equals(expected)


def test_fine_classes_are_labels_and_coarse_ones_their_parents(evaluation: Evaluation, frame: pd.DataFrame, embeddings: np.ndarray) -> None:
    labels = {"fine": frame["label"], "coarse": frame["label"].str.rsplit("/", n=1).str[0]}
    nearest = GALLERY[(embeddings[QUERIES] @ embeddings[GALLERY].T).argmax(axis=1)]
    for level, names in labels.items():
        found = names.to_numpy()[QUERIES] == names.to_numpy()[nearest]
        assert np.array_equal(evaluation.queries[f"{level}.recall_at_1"], found.astype(float))
    for name in OF_A_LEVEL[:3]:
        assert (evaluation.queries[f"coarse.{name}"] >= evaluation.queries[f"fine.{name}"]).all()


def test_triplet_accuracy_is_the_share_of_ordered_triplets(evaluation: Evaluation, embeddings: np.ndarray) -> None:
    found = evaluation.metrics["triplet_accuracy"]
    assert found.value == pytest.approx(triplet_correct(embeddings, TRIPLETS).mean())
    assert found.count == len(TRIPLETS)


def test_the_score_is_of_the_triplets_among_the_queries(evaluation: Evaluation, embeddings: np.ndarray) -> None:
    found = evaluation.metrics["score_at_top_30"]
    assert found.value == pytest.approx(np.nanmean(top_score(embeddings, TRIPLETS, QUERIES)))
    assert found.low <= found.value <= found.high


def test_same_parent_triplets_have_a_negative_of_a_sibling_class(
    evaluation: Evaluation, frame: pd.DataFrame, embeddings: np.ndarray
) -> None:
    triplets = same_parent_triplets(frame, QUERIES)
    label, parent = frame["label"].to_numpy(), frame["label"].str.rsplit("/", n=1).str[0].to_numpy()
    query, positive, negative = triplets.T
    assert (label[query] == label[positive]).all()
    assert (query != positive).all()
    assert (label[query] != label[negative]).all()
    assert (parent[query] == parent[negative]).all()
    assert np.isin(triplets, QUERIES).all()
    can = [
        row
        for row in QUERIES
        if (label[QUERIES] == label[row]).sum() > 1 and ((parent[QUERIES] == parent[row]) & (label[QUERIES] != label[row])).any()
    ]
    assert sorted(query) == sorted([*can, *can])
    assert np.array_equal(triplets, same_parent_triplets(frame, QUERIES))
    found = evaluation.metrics["triplet_accuracy_same_parent"]
    assert (found.value, found.count) == (pytest.approx(triplet_correct(embeddings, triplets).mean()), len(triplets))


@pytest.mark.parametrize("labels", [["a", "b"], ["a/x", "b/y"], ["a", "b/x"], ["top/a", "top/b", "top/c/d"]])
def test_without_sibling_classes_there_is_no_such_metric(labels: list[str], embeddings: np.ndarray) -> None:
    # The last label, where there are three, is in the gallery only: it makes the others coarse classes themselves.
    frame = pd.DataFrame({"label": [labels[i % 2] for i in range(80)] + [labels[-1]] * 20, "group": [f"g{i}" for i in range(100)]})
    found = evaluate(frame, embeddings, QUERIES, GALLERY, TRIPLETS)
    assert list(found.metrics) == [*NAMES, OF_TRIPLETS[0], OF_TRIPLETS[2]]
    assert "triplet_accuracy_same_parent" not in found.nested()


def test_rows_and_labels_say_which_query_it_was(evaluation: Evaluation, frame: pd.DataFrame) -> None:
    assert evaluation.queries["row"].tolist() == QUERIES.tolist()
    for name in ("label", "group"):
        assert evaluation.queries[name].tolist() == frame[name][QUERIES].tolist()
    assert evaluation.queries["coarse"].tolist() == [label.rsplit("/", 1)[0] for label in frame["label"][QUERIES]]


@pytest.mark.parametrize("key", ["label", "coarse"])
def test_tables_of_classes_and_groups_have_the_worst_first(evaluation: Evaluation, key: str) -> None:
    table = evaluation.per_class() if key == "label" else evaluation.per_group()
    assert set(table["label"]) == set(evaluation.queries[key])
    assert table["queries"].sum() == len(QUERIES)
    assert table["fine.recall_at_1"].is_monotonic_increasing
    assert set(NAMES) < set(table.columns)
    for row in table.to_dict("records"):
        mine = evaluation.queries[evaluation.queries[key] == row["label"]]
        assert row["queries"] == len(mine)
        assert row["fine.map_at_r"] == pytest.approx(mine["fine.map_at_r"].mean())
        expected = estimate(mine["fine.recall_at_1"].to_numpy(), np.unique(mine["group"], return_inverse=True)[1])
        assert row["fine.recall_at_1"] == pytest.approx(expected.value)
        # Of so few queries the bootstrap alone is too narrow.
        assert row["fine.recall_at_1.low"] <= expected.low
        assert row["fine.recall_at_1.high"] >= expected.high
        low, high = share_interval(round(mine.groupby("group")["fine.recall_at_1"].mean().sum()), mine["group"].nunique(), 0.025)
        assert row["fine.recall_at_1.low"] <= low < high <= row["fine.recall_at_1.high"]


def test_nested_metrics_have_the_promised_keys(evaluation: Evaluation) -> None:
    nested = evaluation.nested()
    assert nested.keys() == {"fine", "coarse", "ndcg_at_10", *OF_TRIPLETS, "intervals", "queries"}
    assert list(nested["fine"]) == list(nested["coarse"]) == OF_A_LEVEL
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
    assert pd.read_csv(tmp_path / "e" / "per_group.csv")["label"].tolist() == evaluation.per_group()["label"].tolist()
