"""Any tree of files gives counts that add up, or a DataError."""

import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deeprank.errors import DataError
from tests.data.conftest import ODD_FILES, odd_file, run_ingest
from tests.drawing import encoded, pattern

FIXED_NAMES = ["x", "y", "train", "Test", "val", ".hidden", "Thumbs.db", "@eaDir", "a\u0308", "\u00e4", "X ", "[b]", "a\nb", "%s", "\udce9"]
NAMES = st.one_of(
    st.sampled_from(FIXED_NAMES), st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
)
CONTENTS = [encoded(pattern(i)) for i in range(4)] + [odd_file(name) for name in ODD_FILES[:2]]
CONTENTS += [
    encoded(pattern(1).convert("RGBA")),
    b"",
    b"text",
    b"\xff\xd8\xff\xe0",
    b"GIF89a",
    b"\0\0\0\x18ftypheic",
    b"\x89PNG\r\n\x1a\n",
    b"BM" + b"\xff" * 60,
]
KINDS = ["file"] * 6 + ["link", "folder", "pipe"]
ENTRIES = st.tuples(st.lists(NAMES, min_size=1, max_size=4), st.sampled_from(KINDS), st.integers(0, len(CONTENTS) - 1))


def build(folder: Path, entries: list[tuple[list[str], str, int]]) -> None:
    """Write the entries that the file system accepts."""
    paths = [folder]
    for names, kind, number in entries:
        path = folder.joinpath(*(name if name not in (".", "..") else "dots" for name in names))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() or path.is_symlink():
                continue
            if kind == "file":
                path.write_bytes(CONTENTS[number])
            elif kind == "link":
                path.symlink_to([*paths, folder / "nowhere", folder.parent][number % (len(paths) + 2)])
            elif kind == "folder":
                path.mkdir()
            else:
                os.mkfifo(path)
        except OSError:
            continue
        paths.append(path)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ENTRIES, min_size=1, max_size=14), st.lists(st.sampled_from(["x", "*b*", "[", "train/*"]), max_size=1))
def test_counts_add_up_for_any_tree(entries: list[tuple[list[str], str, int]], exclude: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        folder.mkdir()
        build(folder, entries)
        try:
            catalogue, report = run_ingest(folder, exclude=tuple(exclude))
        except DataError as error:
            assert str(error)
            return
        metrics = report.metrics()
        assert (
            metrics["files.ok"] + metrics["files.duplicate"] + metrics["files.rejected"] == metrics["files.total"] == len(catalogue.state)
        )
        assert metrics["files.skipped"] == len(report.details[report.details["status"] == "skipped"])
        assert all(message.isprintable() for message in report.messages)
        assert len(catalogue.read_jpegs(range(len(catalogue.frame)))) == metrics["files.ok"]
        _, again = run_ingest(folder, exclude=tuple(exclude))
        assert (again.num_read, again.num_removed, again.status_counts) == (0, 0, report.status_counts)
