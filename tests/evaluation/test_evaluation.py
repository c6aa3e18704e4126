"""An evaluation has the means of its query table, and is unchanged by saving and loading."""

import numpy as np
import pandas as pd
import pytest

from deeprank.evaluation.evaluation import Evaluation, evaluate, same_parent_triplets
from deeprank.evaluation.intervals import binomial_interval, estimate
from deeprank.evaluation.metrics import query_table, score_at_top, triplet_correct
from deeprank.triplets.relevance import RelevanceWeights, encode_hierarchy

LEVEL_METRICS = ["recall_at_1", "recall_at_5", "recall_at_10", "map_at_r"]
QUERY_METRICS = [*(f"{level}.{name}" for level in ("fine", "coarse") for name in LEVEL_METRICS), "ndcg_at_10"]
TRIPLET_METRICS = ["triplet_accuracy", "triplet_accuracy_same_parent", "score_at_top_30"]
QUERIES, GALLERY = np.arange(0, 30), np.arange(30, 80)
TRIPLETS = np.random.default_rng(0).integers(0, 30, (40, 3))


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = [f"{top}/{kind}/{kind}-{variant}" for top in "ab" for kind in "xy" for variant in (1, 2)]
    return pd.DataFrame({"label": rng.choice(labels, 100), "duplicate_group": [f"g{number}" for number in rng.integers(0, 60, 100)]})


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    """Unit vectors; the rows that no argument names are NaN."""
    points = np.random.default_rng(1).normal(size=(100, 6)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points[80:] = np.nan
    return points


@pytest.fixture(scope="module")
def evaluation(frame: pd.DataFrame, embeddings: np.ndarray) -> Evaluation:
    return evaluate(frame, embeddings, QUERIES, GALLERY, TRIPLETS)


def test_every_query_metric_is_the_estimate_over_its_column(evaluation: Evaluation, frame: pd.DataFrame) -> None:
    groups = np.unique(frame["duplicate_group"], return_inverse=True)[1][QUERIES]
    assert list(evaluation.metrics) == [*QUERY_METRICS, *TRIPLET_METRICS]
    assert evaluation.queries.columns.tolist() == ["row", "label", "class_group", "nearest", "duplicate_group", *QUERY_METRICS]
    for name in QUERY_METRICS:
        assert evaluation.metrics[name] == estimate(evaluation.queries[name].to_numpy(), groups)


def test_query_metrics_are_those_of_the_query_table(evaluation: Evaluation, frame: pd.DataFrame, embeddings: np.ndarray) -> None:
    codes = encode_hierarchy(frame["label"].tolist())
    expected = query_table(embeddings[QUERIES], codes[QUERIES], embeddings[GALLERY], codes[GALLERY], RelevanceWeights())
    assert evaluation.queries[QUERY_METRICS].equals(expected)


def test_fine_classes_are_labels_and_coarse_their_parents(evaluation: Evaluation, frame: pd.DataFrame, embeddings: np.ndarray) -> None:
    labels = {"fine": frame["label"], "coarse": frame["label"].str.rsplit("/", n=1).str[0]}
    nearest = GALLERY[(embeddings[QUERIES] @ embeddings[GALLERY].T).argmax(axis=1)]
    for level, names in labels.items():
        hits = names.to_numpy()[QUERIES] == names.to_numpy()[nearest]
        assert np.array_equal(evaluation.queries[f"{level}.recall_at_1"], hits.astype(float))
    for name in LEVEL_METRICS[:3]:
        assert (evaluation.queries[f"coarse.{name}"] >= evaluation.queries[f"fine.{name}"]).all()


def test_triplet_accuracy_is_the_share_of_correct_triplets(evaluation: Evaluation, embeddings: np.ndarray) -> None:
    result = evaluation.metrics["triplet_accuracy"]
    assert result.value == pytest.approx(triplet_correct(embeddings, embeddings, TRIPLETS).mean())
    assert result.count == len(TRIPLETS)


def test_the_score_ranks_the_queries_only(evaluation: Evaluation, embeddings: np.ndarray) -> None:
    result = evaluation.metrics["score_at_top_30"]
    assert result.value == pytest.approx(np.nanmean(score_at_top(embeddings, embeddings, TRIPLETS, QUERIES)))
    assert result.low <= result.value <= result.high


def test_same_parent_triplets_have_a_sibling_negative(evaluation: Evaluation, frame: pd.DataFrame, embeddings: np.ndarray) -> None:
    triplets = same_parent_triplets(frame, QUERIES)
    label, parent = frame["label"].to_numpy(), frame["label"].str.rsplit("/", n=1).str[0].to_numpy()
    query, positive, negative = triplets.T
    assert (label[query] == label[positive]).all()
    assert (query != positive).all()
    assert (label[query] != label[negative]).all()
    assert (parent[query] == parent[negative]).all()
    assert np.isin(triplets, QUERIES).all()
    possible = [
        row
        for row in QUERIES
        if (label[QUERIES] == label[row]).sum() > 1 and ((parent[QUERIES] == parent[row]) & (label[QUERIES] != label[row])).any()
    ]
    assert sorted(query) == sorted([*possible, *possible])
    assert np.array_equal(triplets, same_parent_triplets(frame, QUERIES))
    result = evaluation.metrics["triplet_accuracy_same_parent"]
    assert (result.value, result.count) == (pytest.approx(triplet_correct(embeddings, embeddings, triplets).mean()), len(triplets))


@pytest.mark.parametrize("labels", [["a", "b"], ["a/x", "b/y"], ["a", "b/x"], ["top/a", "top/b", "top/c/d"]])
def test_without_siblings_same_parent_accuracy_is_absent(labels: list[str], embeddings: np.ndarray) -> None:
    # A third label is in the gallery only; it is deeper, which makes the other labels coarse classes.
    frame = pd.DataFrame(
        {"label": [labels[i % 2] for i in range(80)] + [labels[-1]] * 20, "duplicate_group": [f"g{i}" for i in range(100)]}
    )
    result = evaluate(frame, embeddings, QUERIES, GALLERY, TRIPLETS)
    assert list(result.metrics) == [*QUERY_METRICS, TRIPLET_METRICS[0], TRIPLET_METRICS[2]]
    assert "triplet_accuracy_same_parent" not in result.nested()


def test_id_columns_identify_the_query(evaluation: Evaluation, frame: pd.DataFrame) -> None:
    assert evaluation.queries["row"].tolist() == QUERIES.tolist()
    for name in ("label", "duplicate_group"):
        assert evaluation.queries[name].tolist() == frame[name][QUERIES].tolist()
    assert evaluation.queries["class_group"].tolist() == [label.rsplit("/", 1)[0] for label in frame["label"][QUERIES]]


@pytest.mark.parametrize("key", ["label", "class_group"])
def test_tables_of_classes_have_the_worst_first(evaluation: Evaluation, key: str) -> None:
    table = evaluation.per_class() if key == "label" else evaluation.per_class_group()
    assert set(table[key]) == set(evaluation.queries[key])
    assert table["queries"].sum() == len(QUERIES)
    assert table["fine.recall_at_1"].is_monotonic_increasing
    assert set(QUERY_METRICS) < set(table.columns)
    for row in table.to_dict("records"):
        queries = evaluation.queries[evaluation.queries[key] == row[key]]
        assert row["queries"] == len(queries)
        assert row["fine.map_at_r"] == pytest.approx(queries["fine.map_at_r"].mean())
        expected = estimate(queries["fine.recall_at_1"].to_numpy(), np.unique(queries["duplicate_group"], return_inverse=True)[1])
        assert row["fine.recall_at_1"] == pytest.approx(expected.value)
        # For a few queries the bootstrap interval alone is too narrow.
        assert row["fine.recall_at_1.low"] <= expected.low
        assert row["fine.recall_at_1.high"] >= expected.high
        low, high = binomial_interval(
            round(queries.groupby("duplicate_group")["fine.recall_at_1"].mean().sum()), queries["duplicate_group"].nunique(), 0.025
        )
        assert row["fine.recall_at_1.low"] <= low < high <= row["fine.recall_at_1.high"]


def test_nested_metrics_have_the_documented_keys(evaluation: Evaluation) -> None:
    nested = evaluation.nested()
    assert nested.keys() == {"fine", "coarse", "ndcg_at_10", *TRIPLET_METRICS, "intervals", "queries"}
    assert list(nested["fine"]) == list(nested["coarse"]) == LEVEL_METRICS
    assert nested["fine"]["map_at_r"] == evaluation.metrics["fine.map_at_r"].value
    assert nested["triplet_accuracy"] == evaluation.metrics["triplet_accuracy"].value
    interval = evaluation.metrics["coarse.recall_at_5"]
    assert nested["intervals"]["coarse.recall_at_5"] == [interval.low, interval.high]
    assert nested["queries"] == len(QUERIES)


def test_an_evaluation_is_unchanged_by_saving_and_loading(evaluation: Evaluation, tmp_path) -> None:
    evaluation.save(tmp_path / "e")
    loaded = Evaluation.load(tmp_path / "e")
    assert loaded.metrics == evaluation.metrics
    assert loaded.queries.equals(evaluation.queries)
    assert pd.read_csv(tmp_path / "e" / "per_class.csv")["label"].tolist() == evaluation.per_class()["label"].tolist()
    assert (
        pd.read_csv(tmp_path / "e" / "per_class_group.csv")["class_group"].tolist() == evaluation.per_class_group()["class_group"].tolist()
    )
