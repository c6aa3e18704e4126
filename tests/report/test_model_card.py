"""The model card."""

from pathlib import Path

from deeprank.report.model_card import model_card
from deeprank.report.tables import format_number
from deeprank.reporting import Record


def test_a_card_has_data_metrics_decision_and_reproduction(records: list[tuple[str, Record]]) -> None:
    parameters = {"train.seed": "5", "train.model.weights": "package", "train.losses": "[a | b]"}
    card = model_card("deeprank", [record for _, record in records], parameters, images=2936, classes=81)
    for expected in (
        "2,936 images",
        "81 classes",
        "| catalogue version | 7 |",
        "f1f2",
        "abc123",
        "0123",
        "Seed: 5",
        "Apache-2.0",
        "**held**",
    ):
        assert expected in card
    reported = {point.name: point.value for _, record in records for point in record.points}
    row = next(line for line in card.splitlines() if line.startswith("| fine.recall_at_1 |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    for cell, name in zip(cells[1:], ("fine.recall_at_1", "baseline.fine.recall_at_1", "gain.fine.recall_at_1"), strict=True):
        value, low, high = (format_number(end, reported[end]) for end in (name, f"{name}.low", f"{name}.high"))
        assert cell == f"{value} [{low}, {high}]"
    assert "| other.fine.recall_at_1 |" in card
    assert "`other.`: of another kind than " in card
    assert r"| train.losses | \[a \| b\] |" in card
    assert "<script>" not in card
    assert "http" not in card


def test_a_card_names_other_weights_and_a_missing_evaluation(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.note("gate.state", "first-champion")
    record.note("gate.reason", "no champion yet: recall@1 reaches the floor")
    card = model_card("m", [record], {"train.model.weights": "file:own.pth"}, 10, 2)
    assert "Apache" not in card
    assert "file:own.pth" in card
    assert "The model was not evaluated." in card
    assert "**first champion**: no champion yet: recall@1 reaches the floor." in card
    record.note("evaluation.reason", "no image of the test split has another image of its class")
    explained = model_card("m", [record], {}, 10, 2)
    assert "The model was not evaluated: no image of the test split has another image of its class." in explained
    assert "There is no promotion decision about this model." in model_card("m", [], {}, 10, 2)
