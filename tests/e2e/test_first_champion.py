"""The first run ends with a champion, also where nothing can be evaluated; a later release replaces it."""

import json
from pathlib import Path
from typing import Any

from tests.e2e.conftest import ProjectCopy

WITHOUT_TEST_SPLIT = ("register.name=early", "train.epochs=1", "ingest.synthetic={classes: 4, images: 8}")
TRAIN_ONLY = "ingest.shares={train: 1, val: 0, test: 0}"


def _models(project: ProjectCopy) -> list[dict[str, Any]]:
    return json.loads(project.run("deeprank", "models", "--name", "early", "--json").stdout)


def test_a_first_run_without_test_images_has_a_champion(project: ProjectCopy) -> None:
    run = project.pipeline(*WITHOUT_TEST_SPLIT, TRAIN_ONLY)
    assert set(run["steps"].values()) <= {"completed", "cached"}
    (version,) = _models(project)
    assert (version["gate_state"], version["aliases"]) == ("provisional", "challenger, champion")
    assert "no champion yet, and this release cannot be tested (0 test queries" in version["gate_reason"]
    assert "no image of the test split has another image of its class" in run["tags"]["evaluation.reason"]
    summary = project.run("deeprank", "summary", "--name", "early").stdout
    assert "No metrics: no image of the test split" in summary
    assert "alias challenger, champion; provisional: no champion yet" in summary
    report = Path(next(line.strip() for line in summary.splitlines() if line.endswith("report.html"))).read_text()
    assert "<b>First champion, provisional</b><p>No champion yet, and this release cannot be tested" in report
    image = next((project.folder / ".deeprank" / "data").glob("synthetic-4x8-0/**/*.jpg"))
    output = project.run("deeprank", "search", "--model", "models:/early@champion", str(image), "-k", "1", "--json").stdout
    assert len(json.loads(output)["neighbors"]) == 1
