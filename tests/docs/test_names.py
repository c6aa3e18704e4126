"""Names in MLflow, docs/tracking.md, the API, the command line and the configs agree."""

import fnmatch
import re
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import cache
from inspect import signature

import numpy as np
import pandas as pd
import pytest
from typer.main import get_command

from deeprank.cli import app
from deeprank.data.ingest_report import IngestReport
from deeprank.data.splits import SPLITS
from deeprank.evaluation.embedded import NOVEL_QUERIES
from deeprank.evaluation.evaluation import evaluate
from deeprank.evaluation.gate import PromotionSettings, decide
from deeprank.evaluation.intervals import Estimate
from deeprank.home import PROJECT
from deeprank.models.embedding_model import ModelSettings
from deeprank.search.index import Index
from deeprank.serving.schemas import requests, responses
from tests.docs.glossary import patterns, project_files, reported_names, strings

TRACKING = (PROJECT / "docs" / "tracking.md").read_text(encoding="utf-8")
KINDS = {"metric": "metric", "note": "tag", "figure": "figure", "attach": "file"}
# They implement the reporters; the names come from the callers.
REPORTERS = {"deeprank/reporting.py", "steps/tracking.py"}


def documented(header: str) -> set[str]:
    """Return the names in the table of docs/tracking.md whose first column has this header; `*` for each <placeholder>."""
    table = re.search(rf"^\| {header} \|.*\n\|[-|]+\n((?:\|.*\n)+)", TRACKING, re.MULTILINE)
    assert table, f"docs/tracking.md has no table of {header}s"
    return {re.sub(r"<[^>]+>", "*", name) for name in re.findall(r"^\| `([^`]+)` \|", table[1], re.MULTILINE)}


def evaluation_metrics() -> set[str]:
    labels = [f"{parent}/{leaf}" for parent in "ab" for leaf in "cd" for _ in range(4)]
    frame = pd.DataFrame({"label": labels, "duplicate_group": range(len(labels))})
    embeddings = np.eye(len(labels), dtype=np.float32)
    queries, gallery = np.arange(0, len(labels), 2), np.arange(1, len(labels), 2)
    return set(evaluate(frame, embeddings, queries, gallery, np.array([[0, 2, 4]])).metrics)


def ingest_metrics() -> set[str]:
    return {f"data.{name}" for name in IngestReport(0, 0, 0, {}, 0, {}, []).metrics()}


def gate_metrics() -> set[str]:
    queries = pd.DataFrame({"row": range(4), "label": "a", "fine.recall_at_1": [0.0, 1.0, 1.0, 1.0]})
    settings = PromotionSettings(min_queries=1)
    other_kind = pd.concat([queries] * 10).assign(row=range(40))
    decisions = [decide(queries, champion, range(4), settings, other_kind=(other_kind, other_kind)) for champion in (None, queries)]
    return {name for decision in decisions for name in decision.metrics()}


# (file, pattern) → the names that a call with a varying name reports.
VARYING: dict[tuple[str, str], Callable[[], set[str]]] = {
    ("deeprank/evaluation/bundle_evaluation.py", "*"): lambda: evaluation_metrics() | {NOVEL_QUERIES},
    ("deeprank/monitoring/drift.py", "drift.*"): lambda: {"drift.new_classes", "drift.vanished_classes"},
    ("deeprank/registry/gate.py", "*"): gate_metrics,
    ("deeprank/registry/refresh.py", "index.*"): lambda: {f"index.{key}" for key in ("added", "removed", "churn", "centroid_drift")},
    ("deeprank/registry/retraining_due.py", "*"): lambda: constants("deeprank/registry/retraining_due.py", r"retraining_due\.\w+_\w+"),
    ("deeprank/search/autotune.py", "index.*"): lambda: {f"index.{key}" for key in ("recall_at_10", "latency_ms", "queries_per_second")},
    ("deeprank/training/callbacks.py", "*"): lambda: (
        constants("deeprank/training/callbacks.py", r"train\.\w+") | {"val.recall_at_1", "val.triplet_accuracy"}
    ),
    ("steps/ingest.py", "data.*"): ingest_metrics,
    ("steps/sample_triplets.py", "triplets.*"): lambda: {f"triplets.{split}" for split in SPLITS},
}


def constants(file: str, pattern: str) -> set[str]:
    """Return the string constants of a file that match a regular expression."""
    return {text.text for text in strings(PROJECT / file) if re.fullmatch(pattern, text.text)}


@cache
def reported(kind: str) -> frozenset[str]:
    """Return the names that the code reports as metric, tag, figure or file; `*` for a part that is different in each run."""
    names: set[str] = set()
    for file in project_files("deeprank", "steps", suffixes=[".py"]):
        for method, name in reported_names(file):
            if KINDS[method] == kind and name.file not in REPORTERS:
                varying = VARYING.get((name.file, name.text))
                assert varying or name.text != "*", (
                    f"{name.file}:{name.line}: add the names of this call to VARYING in tests/docs/test_names.py"
                )
                names |= varying() if varying else {name.text}
    return frozenset(names)


def is_in(name: str, names: Iterable[str]) -> bool:
    """Whether a name is one of these, or matches one of these with `*`."""
    return any(name == known or ("*" in known and fnmatch.fnmatchcase(name, known)) for known in names)


@pytest.mark.parametrize("kind", ["metric", "tag", "figure"])
def test_every_name_in_the_code_is_documented(kind: str) -> None:
    missing = sorted(name for name in reported(kind) if not is_in(name, documented(kind)))
    assert not missing, f"docs/tracking.md has no {kind} {', '.join(missing)}"


@pytest.mark.parametrize("kind", ["metric", "tag", "figure"])
def test_every_documented_name_is_in_the_code(kind: str) -> None:
    evaluation = PROJECT / "deeprank" / "evaluation" / "bundle_evaluation.py"
    # Prefixes of the metrics of the evaluation.
    varying = patterns(evaluation) | {f"{text.text}*" for text in strings(evaluation) if text.text.endswith(".")}
    missing = sorted(documented(kind) - reported(kind) - varying)
    assert not missing, f"no code reports the {kind} {', '.join(missing)} of docs/tracking.md"


def test_every_file_of_a_run_is_documented() -> None:
    report = {text.text for text in strings(PROJECT / "steps" / "report.py") if re.fullmatch(r"\w+\.html", text.text)}
    assert documented("file") == reported("file") | report


def test_tags_of_a_version_are_documented() -> None:
    tags = constants("deeprank/registry/register.py", r"(catalogue|gate|fine|model)\.\w+")
    assert documented("version tag") == tags


def test_every_varying_name_is_reported_where_it_says() -> None:
    calls = {(name.file, name.text) for file in project_files("deeprank", "steps", suffixes=[".py"]) for _, name in reported_names(file)}
    assert set(VARYING) <= calls


def test_search_has_the_same_words_in_api_command_and_index() -> None:
    command = {parameter.name for parameter in get_command(app).commands["search"].params} - {"as_json", "model", "images", "ids"}
    api = set(requests.SearchRequest.model_fields) - {"image", "images", "id", "ids"}
    assert command == api == {"k", "label_prefix", "max_distance"}
    assert api <= set(signature(Index.search).parameters)


def test_results_have_the_same_words_in_api_and_command() -> None:
    assert {"path", "label", "distance", "cluster", "id"} <= set(responses.Neighbor.model_fields)
    assert {"distance", "similarity"} <= set(responses.ExplainResponse.model_fields)


def test_the_api_names_a_release_as_its_tags_do() -> None:
    names = set(responses.ModelResponse.model_fields)
    tags = {tag.replace(".", "_") for tag in documented("version tag")}
    assert {"gate_state", "gate_reason", "catalogue_version"} <= names & tags
    assert "embedding_dim" in names & set(ModelSettings.model_fields)


def test_metrics_have_the_same_parts_in_api_and_files() -> None:
    assert set(responses.MetricEstimate.model_fields) == {field.name for field in fields(Estimate)}
