"""Write what has changed in a folder into its catalogue, also while other processes write into the same catalogue."""

import random
import time
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from deeprank.data.catalogue import Catalogue, commit_events, newest_events
from deeprank.data.copies import MIN_COPY_SIMILARITY, confirm_copies
from deeprank.data.splits import assign_groups_and_splits
from deeprank.data.spool import Spool
from deeprank.row_numbers import EventRows

# Upper limit of the first wait after another process was faster; it doubles with each.
WAIT_S, MAX_WAIT_S = 0.05, 2.0


class CatalogueUpdate:
    """Changes of a folder, to be written into its catalogue.

    Attributes:
        uri: of the catalogue's table, which may not exist yet.
        spool: the new files and those whose content changed, with their JPEGs.
        removed: the last events of the paths that are no longer in the folder.
        bits, shares: see `assign_groups_and_splits`.
        is_object_store: whether the files are objects, whose `ctime_ns` is no time.
        progress: whether to show progress bars.

    """

    def __init__(
        self,
        uri: str,
        spool: Spool,
        removed: pd.DataFrame,
        bits: int,
        shares: Mapping[str, float] | None,
        is_object_store: bool,
        progress: bool,
    ) -> None:
        self.uri, self.spool, self.bits, self.shares, self.progress = uri, spool, bits, shares, progress
        self.is_object_store = is_object_store
        self.read, self.removed = spool.rows, removed.assign(status="removed", reason="no longer in the folder")
        self._decided: dict[tuple[str, str], bool] = {}

    def commit(self, version: int, events: pd.DataFrame) -> tuple[int, pd.DataFrame]:
        """Append the changes to a version of the catalogue, or to the newest one if another process has committed in the meantime.

        Duplicate groups and splits are computed anew for that one.

        Args:
            version: of the catalogue's table; 0 where there is none.
            events: all rows of that version.

        Returns:
            The version that holds the changes, and the rows that were appended.

        """
        wait = WAIT_S
        while len(self.read) or len(self.removed):
            changes = pd.concat([self.read, self.removed], ignore_index=True)
            rows = assign_groups_and_splits(events, changes, self.bits, self.shares, self._confirm(version, events))
            if commit_events(self.uri, rows, self.spool.read_jpeg, version):
                return version + 1, rows
            time.sleep(random.uniform(0, wait))
            wait = min(2 * wait, MAX_WAIT_S)
            version, events = newest_events(self.uri)
            self._exclude_written(events)
        return version, events.iloc[:0]

    def _exclude_written(self, events: pd.DataFrame) -> None:
        """Exclude files that another process has read as they are now or later, and removed paths that it has written."""
        last = events.drop_duplicates("path", keep="last").set_index("path")
        present = last[last["status"] != "removed"]
        readable = present[present["id"] != ""]
        # An object store has no other time of a change.
        time = "mtime_ns" if self.is_object_store else "ctime_ns"
        others_time = self.read["path"].map(readable[time]).fillna(-1)
        # Files as this process saw them are the same image even where the other process saw them at another place or time.
        same_image = self.read["path"].map(readable["id"]) == self.read["id"]
        self.read = self.read[~same_image & (others_time < self.read[time])]
        self.removed = self.removed[self.removed["path"].map(present["ctime_ns"]) == self.removed["ctime_ns"]]

    def _confirm(self, version: int, events: pd.DataFrame) -> "_Confirmation":
        stored = events[events["has_image"]].drop_duplicates("id").set_index("id")["image_row"]
        return _Confirmation(Catalogue(self.uri, version), stored, self.spool, self._decided, self.progress)


class _Confirmation:
    """Decides which pairs of image ids are copies, by their pixels; each pair is decided once."""

    def __init__(
        self, catalogue: Catalogue, stored: "pd.Series[int]", spool: Spool, decided: dict[tuple[str, str], bool], progress: bool
    ) -> None:
        self.catalogue, self.stored, self.spool, self.decided, self.progress = catalogue, stored, spool, decided, progress

    def __call__(self, pairs: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
        keys = [(str(first), str(second)) for first, second in pairs]
        new = sorted(set(keys) - self.decided.keys())
        ids, numbers = np.unique(np.array(new, dtype=object).reshape(-1, 2), return_inverse=True)

        def read_jpegs(requested: Sequence[int]) -> list[bytes]:
            return [self._read_jpeg(str(ids[number])) for number in requested]

        text = f"comparing {len(new):,} pairs of similar images" if self.progress else None
        similarities = confirm_copies(numbers.reshape(-1, 2).astype(np.int64), read_jpegs, text)
        self.decided.update(zip(new, (similarities >= MIN_COPY_SIMILARITY).tolist(), strict=True))
        return np.array([self.decided[key] for key in keys], dtype=bool)

    def _read_jpeg(self, image_id: str) -> bytes:
        if image_id in self.spool:
            return self.spool.read_jpeg(image_id)
        return self.catalogue.read_event_jpegs(EventRows(np.array([self.stored[image_id]])))[0]
