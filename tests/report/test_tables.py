"""Formatted numbers and metrics."""

import pytest

from deeprank.report.tables import format_metrics, format_number


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("data.files.total", 4185, "4,185"),
        ("fine.recall_at_1", 0.92267, "0.9227"),
        ("gain.fine.recall_at_1", 0.05, "+0.0500"),
        ("gain.fine.recall_at_1", -0.05, "-0.0500"),
        ("train.learning_rate", 0.00003, "3.0e-05"),
        ("train.images_per_second", 1234.56, "1,234.6"),
        ("unseen.recall", float("nan"), "–"),
        ("clusters.count", 0, "0"),
    ],
)
def test_numbers_are_formatted_for_reading(name: str, value: float, expected: str) -> None:
    assert format_number(name, value) == expected


def test_a_proportion_of_1_with_an_interval_keeps_its_decimals() -> None:
    metrics = format_metrics({"r": 1.0, "r.low": 1.0, "r.high": 1.0, "single.low": 3.0})
    assert (metrics["r"].value.text, [end.text for end in metrics["r"].interval or ()]) == ("1.0000", ["1.0000", "1.0000"])
    assert metrics["single.low"].interval is None
