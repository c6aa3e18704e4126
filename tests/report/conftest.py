"""Records of steps for reports and model cards."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from deeprank.report.html_report import SECTIONS
from deeprank.reporting import Record

HTML_SPECIAL = """<script>alert("1 & 2")</script>'s"""


def report_estimate(record: Record, name: str, value: float) -> None:
    """Report a metric with an interval."""
    record.metric(name, value)
    record.metric(f"{name}.low", value - 0.0125)
    record.metric(f"{name}.high", value + 0.0125)


@pytest.fixture
def records(tmp_path: Path) -> list[tuple[str, Record]]:
    """Records of two epochs, an evaluation beside the baseline, a gate, and names with characters special in HTML."""
    rng = np.random.default_rng(0)
    record_of = {section.step: Record(tmp_path / section.step) for section in SECTIONS} | {
        step: Record(tmp_path / step) for step in ("own_step", "silent_step")
    }
    record_of["ingest"].metric("data.files.total", 4185)
    record_of["ingest"].note("catalogue.source", HTML_SPECIAL)
    record_of["ingest"].note("catalogue.version", "7")
    record_of["ingest"].note("catalogue.fingerprint", "f1f2")
    record_of["ingest"].note("git.commit", "abc123")
    record_of["drift"].note("drift.champion", "none yet")
    for epoch, loss in ((1, 3.5), (2, 1.25)):
        record_of["train"].metric("train.loss", loss, epoch)
    record_of["train"].note("model.weights_hash", "0123")
    for name in (
        "fine.recall_at_1",
        "fine.map_at_r",
        "coarse.recall_at_1",
        "ndcg_at_10",
        "triplet_accuracy",
        "unseen.fine.recall_at_1",
        "other.fine.recall_at_1",
    ):
        for prefix in ("", "baseline."):
            report_estimate(record_of["evaluate"], f"{prefix}{name}", float(rng.uniform(0.2, 0.9)))
    report_estimate(record_of["evaluate"], "gain.fine.recall_at_1", -0.05)
    report_estimate(record_of["evaluate"], "gain.other.fine.recall_at_1", -0.05)
    record_of["evaluate"].note("other.result", f"of another kind than {HTML_SPECIAL}: worse")
    record_of["evaluate"].metric("fine.map_at_r.unmeasured", float("nan"))
    report_estimate(record_of["evaluate"], f"per_class_group/{HTML_SPECIAL}.recall_at_1", 0.75)
    record_of["evaluate"].metric(f"per_class_group/{HTML_SPECIAL}.queries", 12)
    record_of["register"].metric("gate.gain", 0.01)
    record_of["register"].note("gate.state", "held")
    record_of["register"].note("gate.reason", f"the lower end is not above 0 in {HTML_SPECIAL}")
    record_of["own_step"].metric("own.number", 12.5)
    for step, name in (("leakage", "leakage"), ("evaluate", "confusion"), ("register", "gained_and_lost"), ("own_step", "own_figure")):
        figure = Figure(figsize=(1, 1))
        figure.text(0.1, 0.5, name)
        record_of[step].figure(name, figure)
    return list(record_of.items())
