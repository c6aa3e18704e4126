"""The report and the model card say what the records hold, all of it, and nothing else."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from deeprank.report.report import SECTIONS, families, model_card, shown, write_report
from deeprank.reporting import Record

NASTY = """<script>alert("1 & 2")</script>'s"""


class Page(HTMLParser):
    """What a browser would find: numbers by metric, texts of cells, pictures, ids, and whatever would be loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.numbers: list[tuple[str, str]] = []
        self.cells: list[str] = []
        self.pictures: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self._metric: str | None = None
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.ids += [str(given["id"])] if "id" in given else []
        self.links += [str(given["href"])] if "href" in given else []
        self.pictures += [str(given["src"])] if "src" in given else []
        self._metric = given.get("data-metric", self._metric)
        if tag == "td":
            self._cell = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._metric = None if tag == "span" else self._metric
        self._cell = self._cell and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._metric:
            self.numbers.append((self._metric, data))
        elif self._cell:
            self.cells[-1] += data


def _estimate(record: Record, name: str, value: float) -> None:
    record.metric(name, value)
    record.metric(f"{name}.low", value - 0.0125)
    record.metric(f"{name}.high", value + 0.0125)


@pytest.fixture
def records(tmp_path: Path) -> list[tuple[str, Record]]:
    """Two epochs, an evaluation beside the frozen net, a gate by group, and names that would break a page."""
    rng = np.random.default_rng(0)
    told = {step: Record(tmp_path / step) for _, _, step, _ in SECTIONS} | {"own_step": Record(tmp_path / "own")}
    told["ingest"].metric("data.files.found", 4185)
    told["ingest"].note("catalogue.source", NASTY)
    told["ingest"].note("catalogue.version", "7")
    told["ingest"].note("catalogue.fingerprint", "f1f2")
    told["ingest"].note("git.commit", "abc123")
    told["drift"].note("drift.champion", "none yet")
    for epoch, loss in ((1, 3.5), (2, 1.25)):
        told["train"].metric("train.loss", loss, epoch)
    told["train"].note("model.weights", "0123")
    for name in ("fine.recall_at_1", "fine.map_at_r", "coarse.recall_at_1", "ndcg_at_10", "triplet_accuracy", "unseen.fine.recall_at_1"):
        for prefix in ("", "baseline."):
            _estimate(told["evaluate"], f"{prefix}{name}", float(rng.uniform(0.2, 0.9)))
    _estimate(told["evaluate"], "gain.fine.recall_at_1", -0.05)
    told["evaluate"].metric("fine.map_at_r.unmeasured", float("nan"))
    _estimate(told["evaluate"], f"per_group/{NASTY}.recall_at_1", 0.75)
    told["evaluate"].metric(f"per_group/{NASTY}.queries", 12)
    told["register"].metric("gate.gain", 0.01)
    told["register"].note("gate.state", "held")
    told["register"].note("gate.reason", f"the lower end is not above 0 in {NASTY}")
    told["own_step"].metric("own.number", 12.5)
    for step, name in (("leakage", "leaks"), ("evaluate", "confusion"), ("register", "gained_and_lost"), ("own_step", "own_picture")):
        figure = Figure(figsize=(1, 1))
        figure.text(0.1, 0.5, name)
        told[step].figure(name, figure)
    return list(told.items())


@pytest.fixture
def text(records: list[tuple[str, Record]], tmp_path: Path) -> str:
    write_report(tmp_path / "deep" / "report.html", f"model {NASTY}", records)
    return (tmp_path / "deep" / "report.html").read_text(encoding="utf-8")


def test_every_number_is_a_reported_metric_and_every_metric_is_there(text: str, records: list[tuple[str, Record]]) -> None:
    page = Page(text)
    told: dict[str, set[float]] = {}
    bounds = {name for _, record in records for name in families({p.name: p.value for p in record.points})}
    for _, record in records:
        for point in record.points:
            told.setdefault(point.name, set()).add(point.value)
    for name, number in page.numbers:
        # A share of exactly 1 and a count of 1 look different.
        texts = {shown(name, value, interval) for value in told[name] for interval in (False, True)}
        assert number in texts, name
        if number != "–":
            assert any(abs(float(number.replace(",", "")) - value) <= 5.1e-5 for value in told[name]), name
    assert {name for name, _ in page.numbers} == set(told)
    assert bounds < set(told)
    # Both ends of a curve.
    assert [number for name, number in page.numbers if name == "train.loss"] == ["3.5000", "1.2500"]
    # Outside the facts, a cell has no digit that is not a metric.
    facts = len([note for _, record in records for note in record.notes]) * 2
    assert not [cell for cell in page.cells[:-facts] if re.search(r"\d", cell)]


def test_a_value_stands_before_its_interval(text: str) -> None:
    names = [name for name, _ in Page(text).numbers]
    at = names.index("fine.recall_at_1")
    assert names[at : at + 3] == ["fine.recall_at_1", "fine.recall_at_1.low", "fine.recall_at_1.high"]
    assert names[at + 3 : at + 9 : 3] == ["baseline.fine.recall_at_1", "gain.fine.recall_at_1"]


def test_each_picture_is_in_the_page_once_under_its_name(text: str) -> None:
    page = Page(text)
    assert len(page.pictures) == len(set(page.pictures)) == 4
    assert all(picture.startswith("data:image/webp;base64,") for picture in page.pictures)
    for name in ("leaks", "confusion", "gained_and_lost", "own_picture"):
        assert page.ids.count(f"figure-{name}") == 1


def test_why_answers_were_given_stands_behind_the_answers_and_says_how_to_read_it(tmp_path: Path) -> None:
    record = Record(tmp_path / "evaluate")
    for name in ("explained", "per_class", "neighbor_gallery"):
        record.figure(name, Figure(figsize=(1, 1)))
    write_report(tmp_path / "r.html", "t", [("evaluate", record)])
    text = (tmp_path / "r.html").read_text()
    assert [name for name in Page(text).ids if name.startswith("figure-")] == [
        "figure-neighbor_gallery",
        "figure-explained",
        "figure-per_class",
    ]
    assert "the brighter a region glows, the more of the likeness comes from it" in text.partition('id="figure-explained"')[2]


def test_the_page_needs_nothing_but_itself(text: str) -> None:
    page = Page(text)
    assert "http" not in text
    assert "url(" not in text
    assert not page.tags & {"script", "link", "iframe"}
    assert page.links
    for link in page.links:
        assert link.removeprefix("#") in page.ids
    assert len(page.ids) == len(set(page.ids))


def test_labels_paths_and_reasons_are_shown_as_they_are(text: str) -> None:
    assert NASTY not in text
    assert text.count("&lt;script&gt;alert(&#34;1 &amp; 2&#34;)&lt;/script&gt;&#39;s") >= 5


@pytest.mark.parametrize("state", ["promoted", "held"])
def test_the_decision_and_its_reason_stand_on_top(state: str, tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.note("gate.state", state)
    record.note("gate.reason", f"{state}: because of this")
    write_report(tmp_path / "r.html", "t", [("register", record)])
    top = (tmp_path / "r.html").read_text().partition("<nav")[0]
    assert f'class="decision {state}"' in top
    assert state.capitalize() in top
    assert "<p>Because of this.</p>" in top


@pytest.mark.parametrize("steps", [(), ("ingest",), ("train", "evaluate"), ("register",)], ids=lambda steps: "+".join(steps) or "none")
def test_what_a_run_lacks_is_said_in_a_sentence(steps: tuple[str, ...], records: list[tuple[str, Record]], tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", "t", [one for one in records if one[0] in steps])
    text = (tmp_path / "r.html").read_text()
    for _, _, step, sentence in SECTIONS:
        assert (sentence in text) == (step not in steps)


def test_what_a_step_only_noted_is_not_called_missing(text: str) -> None:
    assert "No drift check" not in text
    assert "none yet" in text


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("data.files.found", 4185, "4,185"),
        ("fine.recall_at_1", 0.92267, "0.9227"),
        ("gain.fine.recall_at_1", 0.05, "+0.0500"),
        ("gain.fine.recall_at_1", -0.05, "-0.0500"),
        ("train.learning_rate", 0.00003, "3.0e-05"),
        ("train.images_per_second", 1234.56, "1,234.6"),
        ("unseen.recall", float("nan"), "–"),
        ("clusters.count", 0, "0"),
    ],
)
def test_numbers_are_printed_for_people(name: str, value: float, expected: str) -> None:
    assert shown(name, value) == expected


def test_a_share_of_one_with_an_interval_keeps_its_decimals() -> None:
    found = families({"r": 1.0, "r.low": 1.0, "r.high": 1.0, "lonely.low": 3.0})
    assert (found["r"].value.text, [end.text for end in found["r"].interval or ()]) == ("1.0000", ["1.0000", "1.0000"])
    assert found["lonely.low"].interval is None


def test_a_card_says_what_it_was_made_from_how_good_it_is_and_how_to_make_it_again(records: list[tuple[str, Record]]) -> None:
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
    told = {point.name: point.value for _, record in records for point in record.points}
    line = next(line for line in card.splitlines() if line.startswith("| fine.recall_at_1 |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    for cell, name in zip(cells[1:], ("fine.recall_at_1", "baseline.fine.recall_at_1", "gain.fine.recall_at_1"), strict=True):
        value, low, high = (shown(end, told[end]) for end in (name, f"{name}.low", f"{name}.high"))
        assert cell == f"{value} [{low}, {high}]"
    assert r"| train.losses | \[a \| b\] |" in card
    assert "<script>" not in card
    assert "http" not in card


def test_a_card_of_other_weights_and_of_no_evaluation_says_so(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.note("gate.state", "no-champion")
    record.note("gate.reason", "no champion yet: recall@1 reaches the floor")
    card = model_card("m", [record], {"train.model.weights": "file:own.pth"}, 10, 2)
    assert "Apache" not in card
    assert "file:own.pth" in card
    assert "Not evaluated." in card
    assert "**no champion**: no champion yet: recall@1 reaches the floor." in card
    assert "No gate" in model_card("m", [], {}, 10, 2)
