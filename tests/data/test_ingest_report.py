"""Messages of an ingest are grouped by reason, with what matters first."""

from pathlib import Path

from deeprank.data.synthetic import draw_image
from tests.data.conftest import run_ingest
from tests.drawing import encoded, pattern, put, put_all


def test_real_problems_come_first_and_examples_are_limited(folder: Path) -> None:
    put_all(folder, {f"x/{i:02}.txt": b"text" for i in range(25)})
    put_all(folder, {f"y/z{i:02}.jpg": encoded(pattern(i), "JPEG")[:600] for i in range(12)})
    put_all(folder, {"y/zz.jpg": b"", "a.png": 50, "x/.DS_Store": b"x"})
    _, report = run_ingest(folder)
    damaged, empty, outside, text, system = report.messages
    assert damaged.startswith("12 files rejected: ")
    assert damaged.endswith("and 2 more")
    assert empty == "1 file rejected: the file is empty: y/zz.jpg"
    assert outside == "1 file rejected: not in a class folder: a.png"
    assert text.startswith("25 files rejected: not an image in a format that can be read: x/00.txt, x/01.txt")
    assert text.endswith("x/09.txt and 15 more")
    assert system == "1 file of other programs skipped: x/.DS_Store"
    assert report.details["status"].value_counts().to_dict() == {"rejected": 39, "skipped": 1}


def test_a_file_in_two_classes_is_a_conflict(folder: Path) -> None:
    put(folder / "y" / "same.png", (folder / "x" / "0.png").read_bytes())
    put(folder / "y" / "again.png", (folder / "y" / "1.png").read_bytes())
    _, report = run_ingest(folder)
    assert (report.num_label_conflicts, report.metrics()["label_conflicts"]) == (1, 1)
    assert report.messages[0] == "1 image in more than one class; only one class keeps it: x/0.png = y/same.png"


def test_a_resaved_copy_in_another_class_is_a_conflict(folder: Path) -> None:
    image = draw_image(3, 0)
    put_all(folder, {"x/a.jpg": encoded(image, "JPEG", quality=90), "x/b.jpg": encoded(image, "JPEG", quality=85)})
    put(folder / "y" / "resaved.jpg", encoded(image, "JPEG", quality=75))
    put(folder / "y" / "same.png", (folder / "x" / "0.png").read_bytes())
    catalogue, report = run_ingest(folder)
    assert set(catalogue.frame["path"]) >= {"x/a.jpg", "x/b.jpg", "y/resaved.jpg"}
    assert report.metrics()["label_conflicts"] == 2
    assert report.messages[:2] == [
        "1 image in more than one class; only one class keeps it: x/0.png = y/same.png",
        "1 near-duplicate group in more than one class; each class keeps its images: x/a.jpg ~ y/resaved.jpg",
    ]


def test_names_that_differ_in_case_or_spaces_are_reported(tmp_path: Path) -> None:
    names = ("Brot", "brot", "Brot ", "Wurst")
    folder = put_all(tmp_path / "f", {f"{name}/{i}.png": 10 * k + i for k, name in enumerate(names) for i in range(2)})
    catalogue, report = run_ingest(folder)
    assert set(catalogue.frame["label"]) == set(names)
    assert report.messages == ["classes whose names differ only in case or spaces are kept apart: 'Brot' and 'Brot ' and 'brot'"]


def test_many_classes_of_one_image_are_one_line(tmp_path: Path) -> None:
    _, report = run_ingest(put_all(tmp_path / "f", {f"c{i:02}/1.png": i for i in range(12)}))
    assert report.messages[0].startswith("12 classes have one image, which is never a query or a positive: c00, c01, ")
    assert report.messages[0].endswith("c09 and 2 more")


def test_control_characters_do_not_break_a_line(folder: Path) -> None:
    put(folder / "x" / "two\nlines[red].jpg", b"text")
    assert run_ingest(folder)[1].messages == ["1 file rejected: not an image in a format that can be read: x/two\\nlines[red].jpg"]


def test_conversions_are_grouped(folder: Path) -> None:
    put_all(folder, {f"x/c{i}.png": encoded(pattern(30 + i).convert("RGBA")) for i in range(3)})
    assert run_ingest(folder)[1].messages == ["3 images: transparent pixels blended with white: x/c0.png, x/c1.png, x/c2.png"]
