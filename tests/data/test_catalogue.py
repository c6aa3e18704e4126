"""The catalogue as a table of events: present state, versions, stored images, exclusion."""

from dataclasses import replace
from pathlib import Path

import lance
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from deeprank.data.catalogue import COLUMNS, EXCLUDED, SCHEMA, Catalogue, latest_events, read_events
from deeprank.errors import DataError
from tests.drawing import encoded, pattern


def _event(path: str, status: str = "ok", has_image: bool = False, image: bytes | None = None) -> dict[str, object]:
    fixed = {"size": 1, "mtime_ns": 1, "ctime_ns": 1, "label": "x", "width": 64, "height": 64, "phash": 0, "split": "train", "reason": ""}
    return fixed | {"path": path, "id": path, "duplicate_group": "g", "status": status, "has_image": has_image, "image": image}


def _table(uri: Path, *commits: list[dict[str, object]]) -> list[Catalogue]:
    """Append each list of events in one commit; return the catalogue after each commit."""
    catalogues = []
    for number, events in enumerate(commits):
        table = pa.Table.from_pylist(events, SCHEMA)
        dataset = lance.write_dataset(table, str(uri), mode="append" if number else "create")
        catalogues.append(Catalogue(str(uri), dataset.version))
    return catalogues


def test_the_last_event_of_each_path_is_its_state() -> None:
    events = pd.DataFrame({"path": ["b", "a", "b", "c"], "status": ["ok", "ok", "removed", "rejected"]})
    assert latest_events(events).to_dict("list") == {"path": ["a", "b", "c"], "status": ["ok", "removed", "rejected"]}


def test_state_has_existing_files_and_frame_usable_images(tmp_path: Path) -> None:
    (catalogue,) = _table(tmp_path / "t.lance", [_event(f"{status}.jpg", status) for status in ("removed", "rejected", "ok", "duplicate")])
    assert catalogue.state["path"].tolist() == ["duplicate.jpg", "ok.jpg", "rejected.jpg"]
    assert catalogue.frame["path"].tolist() == ["ok.jpg"]


def test_an_old_version_does_not_change(tmp_path: Path) -> None:
    first, second = _table(tmp_path / "t.lance", [_event("a"), _event("b")], [_event("a", "removed"), _event("c")])
    assert first.frame["path"].tolist() == ["a", "b"]
    assert second.frame["path"].tolist() == ["b", "c"]


@pytest.mark.parametrize("column", ["path", "id", "label", "duplicate_group", "split"])
def test_the_fingerprint_depends_on_these_columns(tmp_path: Path, column: str) -> None:
    events = [_event("a"), _event("b")]
    changed = [_event("a"), _event("b") | {column: "val"}]
    (before,), (after,) = _table(tmp_path / "1.lance", events), _table(tmp_path / "2.lance", changed)
    assert before.fingerprint != after.fingerprint


def test_the_fingerprint_depends_on_nothing_else(tmp_path: Path) -> None:
    events = [_event("a"), _event("b")]
    changed = [
        _event("c", "rejected"),
        _event("b") | {"mtime_ns": 7, "ctime_ns": 8, "size": 9, "reason": "CMYK"},
        _event("a"),
        _event("d", "duplicate"),
    ]
    (before,), (after,) = _table(tmp_path / "1.lance", events), _table(tmp_path / "2.lance", changed)
    assert before.fingerprint == after.fingerprint


def test_rows_of_a_split_are_indices_into_the_frame(catalogue: Catalogue) -> None:
    rows_by_split = {split: catalogue.rows(split) for split in ("train", "val", "test")}
    assert sorted(np.concatenate(list(rows_by_split.values())).tolist()) == list(range(len(catalogue.frame)))
    for split, rows in rows_by_split.items():
        assert set(catalogue.frame["split"].iloc[rows]) == {split}


def test_jpegs_are_returned_in_the_order_of_the_rows(catalogue: Catalogue) -> None:
    jpegs = catalogue.read_jpegs(range(len(catalogue.frame)))
    rows = [5, 0, 5, 47, 3]
    assert catalogue.read_jpegs(rows) == [jpegs[row] for row in rows]
    assert catalogue.read_jpegs(np.array([], dtype=np.int64)) == []
    assert len(set(jpegs)) == len(catalogue.frame)


def test_a_lost_image_is_an_error_with_table_and_version(tmp_path: Path) -> None:
    image = encoded(pattern(1), "JPEG")
    (catalogue,) = _table(tmp_path / "t.lance", [_event("a", has_image=True, image=image), _event("b", has_image=True)])
    assert catalogue.read_jpegs([0]) == [image]
    with pytest.raises(DataError, match=r"t\.lance version 1 has lost images; ingest"):
        catalogue.read_jpegs([0, 1])


def test_events_are_read_without_the_images(catalogue: Catalogue) -> None:
    assert read_events(catalogue.uri).columns.tolist() == [*COLUMNS, "image_row"]
    assert "image" not in COLUMNS


def test_excluded_images_are_in_no_split_and_stay_in_the_frame(catalogue: Catalogue) -> None:
    ids = frozenset(catalogue.frame["id"].iloc[catalogue.rows("test")[:2]])
    checked = replace(catalogue, excluded=ids)
    assert set(checked.frame["id"][checked.frame["split"] == EXCLUDED]) == ids
    assert checked.rows("test").tolist() == catalogue.rows("test")[2:].tolist()
    assert checked.frame.drop(columns="split").equals(catalogue.frame.drop(columns="split"))
    assert checked.fingerprint != catalogue.fingerprint


def test_a_table_of_an_older_version_is_refused(tmp_path: Path) -> None:
    columns = ["group" if name == "duplicate_group" else name for name in SCHEMA.names]
    table = pa.Table.from_pylist([_event("a", has_image=True, image=b"x")], SCHEMA).rename_columns(columns)
    catalogue = Catalogue(str(tmp_path / "t.lance"), lance.write_dataset(table, str(tmp_path / "t.lance")).version)
    message = r"t\.lance: an older version of deeprank wrote .* Remove this table, or set DEEPRANK_HOME to another state folder"
    for access in (lambda: catalogue.frame, lambda: catalogue.read_event_jpegs(np.array([0])), lambda: catalogue.pin("tag")):
        with pytest.raises(DataError, match=message):
            access()
