"""The catalogue as a table of events: present state, versions, stored images."""

from pathlib import Path

import lance
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from deeprank.data.catalogue import COLUMNS, SCHEMA, Catalogue, exclude, latest, read_events
from deeprank.errors import DataError
from tests.drawing import encoded, pattern


def _event(path: str, status: str = "ok", identity: str = "", image_row: int = -1, image: bytes | None = None) -> dict[str, object]:
    blank = {"size": 1, "mtime_ns": 1, "label": "x", "width": 64, "height": 64, "phash": 0, "group": "g", "split": "train", "reason": ""}
    return blank | {"path": path, "id": identity or path, "status": status, "image_row": image_row, "image": image}


def _table(uri: Path, *commits: list[dict[str, object]]) -> list[Catalogue]:
    """Append events, a commit a list; return the catalogue after each."""
    found = []
    for number, events in enumerate(commits):
        table = pa.Table.from_pylist(events, SCHEMA)
        written = lance.write_dataset(table, str(uri), mode="append" if number else "create")
        found.append(Catalogue(str(uri), written.version))
    return found


def test_the_last_event_of_a_path_is_its_state_in_order_of_path() -> None:
    events = pd.DataFrame({"path": ["b", "a", "b", "c"], "status": ["ok", "ok", "removed", "rejected"]})
    assert latest(events).to_dict("list") == {"path": ["a", "b", "c"], "status": ["ok", "removed", "rejected"]}


def test_state_holds_what_is_there_and_frame_what_can_be_used(tmp_path: Path) -> None:
    (catalogue,) = _table(tmp_path / "t.lance", [_event(f"{status}.jpg", status) for status in ("removed", "rejected", "ok", "duplicate")])
    assert catalogue.state["path"].tolist() == ["duplicate.jpg", "ok.jpg", "rejected.jpg"]
    assert catalogue.frame["path"].tolist() == ["ok.jpg"]


def test_an_old_version_shows_what_it_showed(tmp_path: Path) -> None:
    first, second = _table(tmp_path / "t.lance", [_event("a"), _event("b")], [_event("a", "removed"), _event("c")])
    assert first.frame["path"].tolist() == ["a", "b"]
    assert second.frame["path"].tolist() == ["b", "c"]


@pytest.mark.parametrize("column", ["path", "id", "label", "group", "split"])
def test_the_fingerprint_hangs_on_path_identity_label_group_and_split(tmp_path: Path, column: str) -> None:
    one = [_event("a"), _event("b")]
    other = [_event("a"), _event("b") | {column: "val"}]
    (before,), (after,) = _table(tmp_path / "1.lance", one), _table(tmp_path / "2.lance", other)
    assert before.fingerprint != after.fingerprint


def test_the_fingerprint_hangs_on_nothing_else(tmp_path: Path) -> None:
    plain = [_event("a"), _event("b")]
    other = [_event("c", "rejected"), _event("b") | {"mtime_ns": 7, "size": 9, "reason": "CMYK"}, _event("a"), _event("d", "duplicate")]
    (before,), (after,) = _table(tmp_path / "1.lance", plain), _table(tmp_path / "2.lance", other)
    assert before.fingerprint == after.fingerprint


def test_rows_of_a_split_are_indices_into_the_frame(catalogue: Catalogue) -> None:
    rows = {split: catalogue.rows(split) for split in ("train", "val", "test")}
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(len(catalogue.frame)))
    for split, found in rows.items():
        assert set(catalogue.frame["split"].iloc[found]) == {split}


def test_images_come_in_the_order_asked_for_and_as_often(catalogue: Catalogue) -> None:
    all_of_them = catalogue.images(range(len(catalogue.frame)))
    asked = [5, 0, 5, 47, 3]
    assert catalogue.images(asked) == [all_of_them[row] for row in asked]
    assert catalogue.images(np.array([], dtype=np.int64)) == []
    assert len(set(all_of_them)) == len(catalogue.frame)


def test_a_lost_image_is_reported_with_table_and_version(tmp_path: Path) -> None:
    image = encoded(pattern(1), "JPEG")
    (catalogue,) = _table(tmp_path / "t.lance", [_event("a", image_row=0, image=image), _event("b", image_row=1)])
    assert catalogue.images([0]) == [image]
    with pytest.raises(DataError, match=r"t\.lance version 1 has lost images; ingest"):
        catalogue.images([0, 1])


def test_events_are_read_without_the_images(catalogue: Catalogue) -> None:
    assert read_events(catalogue.uri).columns.tolist() == COLUMNS
    assert "image" not in COLUMNS


def test_images_are_left_out_of_the_newest_version_only(tmp_path: Path) -> None:
    one, other = (
        [_event("a", image_row=0, image=encoded(pattern(1), "JPEG"))],
        [_event("b", image_row=1, image=encoded(pattern(2), "JPEG"))],
    )
    old, new = _table(tmp_path / "t.lance", one, other)
    assert exclude(old, [], []) is old
    with pytest.raises(DataError, match="newest version, 2, not of the old version 1"):
        exclude(old, [0], ["for the test"])
    assert exclude(new, [0], ["for the test"]).frame["path"].tolist() == ["b"]
