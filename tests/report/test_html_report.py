"""The report shows all numbers, figures and notes of the records, and no other numbers."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from deeprank.home import PROJECT
from deeprank.plotting.style import CAPTIONS
from deeprank.report.html_report import SECTIONS, write_report
from deeprank.report.tables import format_metrics, format_number
from deeprank.reporting import Record
from tests.report.conftest import HTML_SPECIAL


class Page(HTMLParser):
    """A parsed page: numbers by metric, texts of cells, images, ids, links and tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.numbers: list[tuple[str, str]] = []
        self.cells: list[str] = []
        self.images: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self._metric: str | None = None
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.add(tag)
        self.ids += [str(attributes["id"])] if "id" in attributes else []
        self.links += [str(attributes["href"])] if "href" in attributes else []
        self.images += [str(attributes["src"])] if "src" in attributes else []
        self._metric = attributes.get("data-metric", self._metric)
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


@pytest.fixture
def text(records: list[tuple[str, Record]], tmp_path: Path) -> str:
    write_report(tmp_path / "deep" / "report.html", f"model {HTML_SPECIAL}", records)
    return (tmp_path / "deep" / "report.html").read_text(encoding="utf-8")


def test_the_numbers_are_exactly_the_reported_metrics(text: str, records: list[tuple[str, Record]]) -> None:
    page = Page(text)
    reported: dict[str, set[float]] = {}
    names = {name for _, record in records for name in format_metrics({p.name: p.value for p in record.points})}
    for _, record in records:
        for point in record.points:
            reported.setdefault(point.name, set()).add(point.value)
    for name, number in page.numbers:
        # A proportion of 1 and a count of 1 have different decimals.
        texts = {format_number(name, value, has_interval) for value in reported[name] for has_interval in (False, True)}
        assert number in texts, name
        if number != "–":
            assert any(abs(float(number.replace(",", "")) - value) <= 5.1e-5 for value in reported[name]), name
    assert {name for name, _ in page.numbers} == set(reported)
    assert names < set(reported)
    # A curve is shown by its first and its last epoch.
    assert [number for name, number in page.numbers if name == "train.loss"] == ["3.5000", "1.2500"]
    # Outside the notes, every digit in a cell is of a metric.
    note_cells = len([note for _, record in records for note in record.notes]) * 2
    assert not [cell for cell in page.cells[:-note_cells] if re.search(r"\d", cell)]


def test_a_value_precedes_its_interval(text: str) -> None:
    names = [name for name, _ in Page(text).numbers]
    first = names.index("fine.recall_at_1")
    assert names[first : first + 3] == ["fine.recall_at_1", "fine.recall_at_1.low", "fine.recall_at_1.high"]
    assert names[first + 3 : first + 9 : 3] == ["baseline.fine.recall_at_1", "gain.fine.recall_at_1"]


def test_each_figure_is_in_the_page_once(text: str) -> None:
    page = Page(text)
    assert len(page.images) == len(set(page.images)) == 4
    assert all(image.startswith("data:image/webp;base64,") for image in page.images)
    for name in ("leakage", "confusion", "gained_and_lost", "own_figure"):
        assert page.ids.count(f"figure-{name}") == 1


def test_figures_are_in_order_and_have_their_captions(tmp_path: Path) -> None:
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
    assert "A brighter region adds more to the similarity of the two images." in text.partition('id="figure-explained"')[2]


def test_the_page_loads_no_other_file(text: str) -> None:
    page = Page(text)
    assert "http" not in text
    assert "url(" not in text
    assert not page.tags & {"script", "link", "iframe"}
    assert page.links
    for link in page.links:
        assert link.removeprefix("#") in page.ids
    assert len(page.ids) == len(set(page.ids))


def test_labels_paths_and_reasons_are_escaped(text: str) -> None:
    assert HTML_SPECIAL not in text
    assert text.count("&lt;script&gt;alert(&#34;1 &amp; 2&#34;)&lt;/script&gt;&#39;s") >= 5


@pytest.mark.parametrize(
    ("state", "title"),
    [
        ("promoted", "Promoted"),
        ("held", "Held"),
        ("first-champion", "First champion"),
        ("provisional", "First champion, provisional"),
    ],
)
def test_the_decision_and_its_reason_are_at_the_top(state: str, title: str, tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.note("gate.state", state)
    record.note("gate.reason", f"{state}: because of this")
    write_report(tmp_path / "r.html", "t", [("register", record)])
    top = (tmp_path / "r.html").read_text().partition("<nav")[0]
    assert f'class="decision {state}"' in top
    assert f"<b>{title}</b>" in top
    assert "<p>Because of this.</p>" in top


@pytest.mark.parametrize("steps", [(), ("ingest",), ("train", "evaluate"), ("register",)], ids=lambda steps: "+".join(steps) or "none")
def test_a_step_without_a_record_is_named(steps: tuple[str, ...], records: list[tuple[str, Record]], tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", "t", [(step, record) for step, record in records if step in steps])
    text = (tmp_path / "r.html").read_text()
    for section in SECTIONS:
        assert (section.missing_text in text) == (section.step not in steps)


def test_a_step_with_notes_only_is_not_called_missing(text: str) -> None:
    assert "The step drift reported nothing" not in text
    assert "none yet" in text


def test_images_of_another_kind_are_compared_in_words(text: str) -> None:
    before, _, table = text.partition("Images of another kind: same class (fine)</h3>")
    assert before
    assert table.lstrip().startswith("<p>Of another kind than &lt;script&gt;")
    names = [name for name, _ in Page(table.partition("</table>")[0]).numbers]
    assert names[::3] == ["other.fine.recall_at_1", "baseline.other.fine.recall_at_1", "gain.other.fine.recall_at_1"]


def test_a_further_step_without_a_report_has_no_section(text: str) -> None:
    assert "Own step" in text
    assert "Silent step" not in text


def test_every_figure_that_is_reported_has_a_caption(text: str) -> None:
    assert text
    sources = [file.read_text() for folder in ("deeprank", "steps") for file in (PROJECT / folder).rglob("*.py")]
    names = {name for source in sources for name in re.findall(r"""\.figure\(\s*"(\w+)",""", source)}
    assert {"images", "curves", "confusion", "gained_and_lost"} <= names
    assert names <= set(CAPTIONS)


def test_a_missing_evaluation_is_explained(tmp_path: Path) -> None:
    record = Record(tmp_path / "evaluate")
    record.metric("queries", 0)
    record.note("evaluation.reason", "no image of the test split has another image of its class")
    write_report(tmp_path / "report.html", "model", [("evaluate", record)])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "This run has no evaluation: no image of the test split has another image of its class.</p>" in text
