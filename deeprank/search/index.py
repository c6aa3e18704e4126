"""The index: what is searched, in a folder that says which model and which images it belongs to."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd

from deeprank.checksums import hash_file, read_manifest, write_manifest
from deeprank.data.catalogue import Catalogue
from deeprank.errors import DataError, ModelError
from deeprank.models.bundle import Bundle
from deeprank.search.clusters import Clusters
from deeprank.search.faiss_index import (
    EXACT_SEARCH,
    Distances,
    Entries,
    SearchParams,
    Structure,
    Vectors,
    add,
    build_structure,
    exact,
    find,
    nearest_of,
    remove,
)
from deeprank.search.lance_index import LanceIndex

FORMAT = 3
ROW_COLUMNS = ["path", "id", "label", "split", "image_row", "cluster"]
ROWS, VECTORS, STRUCTURE, OFFSETS, MANIFEST = "rows.parquet", "vectors.npy", "structure.faiss", "offsets.npy", "index.json"
# Of so many images or fewer that a filter leaves, each is compared: a structure would look past most of what it finds.
EXACT_BELOW = 20_000
# Vectors compared at a time.
COMPARED = 16_384
# From so large a share that came or went, or so much farther from their clusters than those it was built from, build anew.
MOVED, FARTHER = 0.2, 1.25


@dataclass(frozen=True)
class Moved:
    """How far an index is from the images that its clusters were made of.

    Attributes:
        built_from, added, removed: images.
        share: of what it was built from, that came or went since.
        farther: mean distance of the added images to their cluster's center, over that of those it was built from.

    """

    built_from: int
    added: int
    removed: int
    share: float
    farther: float

    @property
    def rebuild(self) -> str:
        """Why to cluster and build anew; empty where there is no need."""
        if self.share >= MOVED:
            return f"{self.share:.0%} of the {self.built_from:,} images that it was built from came or went since"
        if self.farther >= FARTHER:
            return f"what was added lies {self.farther:.2f} times as far from the clusters as what they were made of"
        return ""


@dataclass(frozen=True)
class Index:
    """Embeddings, what finds the nearest among them, and what each of them is.

    The entry of an image is its place in vectors.npy; `rows.index` holds the entries that are still there.
    """

    folder: Path

    @classmethod
    def build(
        cls,
        folder: Path,
        bundle: Bundle,
        catalogue: Catalogue,
        embeddings: Vectors,
        clusters: Clusters,
        point: SearchParams = EXACT_SEARCH,
        structure: Structure = None,
    ) -> "Index":
        """Write the index of a catalogue's embeddings (len(frame), d) of unit length.

        Args:
            folder: where to.
            bundle: what embedded.
            catalogue: what was embedded.
            embeddings: of every row of its frame.
            clusters: of them.
            point: how to search.
            structure: of the point's kind, where it was built already, as Lance's must be.

        """
        folder.mkdir(parents=True, exist_ok=True)
        table = structure if isinstance(structure, LanceIndex) else None
        if table is None:
            if point.kind != "exact":
                faiss.write_index(structure or build_structure(point.kind, embeddings, clusters), str(folder / STRUCTURE))
            np.save(folder / VECTORS, embeddings)
        clusters.save(folder)
        rows = catalogue.frame.assign(cluster=clusters.assigned)[ROW_COLUMNS]
        spread = _spread(embeddings, clusters)
        built = {"built_from": len(rows), "added": 0, "removed": 0, "spread": spread, "added_spread": 0.0}
        facts = {"search": point.model_dump(), "model": bundle.weights_hash, "changes": built}
        return cls._finish(folder, rows, facts, catalogue, table)

    @classmethod
    def _finish(cls, folder: Path, rows: pd.DataFrame, facts: dict[str, Any], catalogue: Catalogue, table: LanceIndex | None) -> "Index":
        rows.to_parquet(folder / ROWS)
        if table is not None:
            np.save(folder / OFFSETS, table.offsets)
            facts["table"] = {"uri": table.uri, "version": table.version, "checksums": table.checksums()}
        files = sorted(file.name for file in folder.iterdir() if file.is_file() and file.name != MANIFEST)
        reference = {"uri": catalogue.uri, "version": catalogue.version, "fingerprint": catalogue.fingerprint}
        checksums = {name: hash_file(folder / name) for name in files}
        write_manifest(folder / MANIFEST, {"format": FORMAT, **facts, "catalogue": reference, "checksums": checksums})
        return cls(folder)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The parsed index.json, after every file was checked against its checksum.

        Raises:
            ModelError: a file is missing or damaged.

        """
        facts = read_manifest(self.folder / MANIFEST, "holds no index", FORMAT, {"search", "model", "changes", "catalogue", "checksums"})
        for name, checksum in facts["checksums"].items():
            if not (self.folder / name).exists() or hash_file(self.folder / name) != checksum:
                raise ModelError(f"{self.folder / name} is missing or damaged: its checksum is not the one in {MANIFEST}")
        for name, checksum in facts.get("table", {}).get("checksums", {}).items():
            file = Path(facts["table"]["uri"]) / name
            if not file.exists() or hash_file(file) != checksum:
                raise ModelError(f"{file} is missing or damaged: its checksum is not the one in {self.folder / MANIFEST}")
        return facts

    @cached_property
    def point(self) -> SearchParams:
        """How it is searched."""
        return SearchParams.model_validate(self.facts["search"])

    @cached_property
    def rows(self) -> pd.DataFrame:
        """What each entry is: path, id, label, split, image_row, cluster."""
        _ = self.facts
        return pd.read_parquet(self.folder / ROWS)

    @cached_property
    def clusters(self) -> Clusters:
        """The clusters that it was built with."""
        _ = self.facts
        return Clusters.load(self.folder)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The catalogue whose images are indexed."""
        return Catalogue(self.facts["catalogue"]["uri"], self.facts["catalogue"]["version"])

    @property
    def moved(self) -> Moved:
        """How far it is from what it was built from."""
        changes = self.facts["changes"]
        farther = changes["added_spread"] / changes["spread"] if changes["added"] and changes["spread"] else 1.0
        share = (changes["added"] + changes["removed"]) / changes["built_from"]
        return Moved(changes["built_from"], changes["added"], changes["removed"], share, farther)

    @cached_property
    def _vectors(self) -> "Vectors | LanceIndex":
        if self._table:
            return self._table
        # Mapped: a release beside another one, and several processes, share the pages.
        vectors: Vectors = np.load(self.folder / VECTORS, mmap_mode="r")
        return vectors

    @cached_property
    def _structure(self) -> Structure:
        return self._table or faiss.read_index(str(self.folder / STRUCTURE))

    @cached_property
    def _table(self) -> LanceIndex | None:
        table = self.facts.get("table")
        return LanceIndex(table["uri"], table["version"], np.load(self.folder / OFFSETS)) if table else None

    def embeddings(self, places: npt.NDArray[np.int64]) -> Vectors:
        """Return (len(places), d) the embeddings of places in `rows`."""
        return self._vectors[self.rows.index.to_numpy()[places]]

    @cached_property
    def _place_of(self) -> pd.Index:
        return pd.Index(self.rows["id"])

    def places_of(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the places in `rows` of images by their ids.

        Raises:
            DataError: one is not indexed.

        """
        places: npt.NDArray[np.int64] = self._place_of.get_indexer(list(ids))
        if (places < 0).any():
            raise DataError(f"no image {ids[int(np.argmin(places))]} in this index")
        return places

    def require(self, bundle: Bundle) -> None:
        """Refuse a model that is not the one whose embeddings are indexed.

        Raises:
            ModelError: it is another one, or a file is damaged.

        """
        if self.facts["model"] != bundle.weights_hash:
            raise ModelError(f"{self.folder} was built with another model than {bundle.folder}: build it anew")

    def nearest(self, queries: Vectors, k: int, label_prefix: str = "") -> tuple[Entries, Distances]:
        """Return the entries of each query's nearest images and their Euclidean distances, both (q, k or fewer), nearest first.

        Args:
            queries: (q, d) of unit length.
            k: neighbors of each.
            label_prefix: only images of this label, or of labels below it; empty: all.

        Returns:
            Where fewer were found, the entry is -1 and the distance infinite.

        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        entries = self._entries(label_prefix)
        k = min(k, len(entries))
        if k == 0:
            return np.empty((len(queries), 0), dtype=np.int64), np.empty((len(queries), 0))
        everything = len(entries) == len(self._vectors)
        if self.point.kind == "exact" or len(entries) <= (EXACT_BELOW if label_prefix else k):
            vectors = self._vectors
            # Only of exact search are entries the places in vectors.npy, in order: what was added to a structure sorts in between.
            if not (everything and self.point.kind == "exact" and isinstance(vectors, np.ndarray)):
                return self._compared(queries, entries, k)
            places, distances = nearest_of(vectors, queries, exact(vectors, queries, k), k)
            return entries[places], distances
        allowed = None
        # What was removed is no longer in lists; a graph keeps it, and passes over it here.
        if label_prefix or (self.point.kind == "hnsw" and not everything):
            allowed = np.zeros(len(self._vectors), dtype=bool)
            allowed[entries] = True
        found, distances = find(self._structure, self.point, self._vectors, queries, k, allowed)
        # Near a query there may be too few of what a filter leaves: there, each of them is compared after all.
        short = found[:, -1] < 0
        if label_prefix and short.any():
            found[short], distances[short] = self._compared(queries[short], entries, k)
        return found, distances

    def _compared(self, queries: Vectors, entries: Entries, k: int) -> tuple[Entries, Distances]:
        """Compare queries with each of some entries; what it returns is as of `nearest`."""
        parts = []
        # In blocks: a filter may leave a million, and what is mapped, or in a table, is to stay there.
        for start in range(0, len(entries), COMPARED):
            block = entries[start : start + COMPARED]
            among, most = self._vectors[block], min(k, len(block))
            places, apart = nearest_of(among, queries, exact(among, queries, most), most)
            parts.append((block[places], apart))
        found, distances = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(found, order, axis=1), np.take_along_axis(distances, order, axis=1)

    def _entries(self, label_prefix: str) -> Entries:
        if not label_prefix:
            return self._all_entries
        label = self.rows["label"]
        return self.rows.index.to_numpy()[((label == label_prefix) | label.str.startswith(f"{label_prefix}/")).to_numpy()]

    @cached_property
    def _all_entries(self) -> Entries:
        return self.rows.index.to_numpy()

    def search(self, queries: Vectors, k: int, *, label_prefix: str = "", max_distance: float | None = None) -> list[pd.DataFrame]:
        """Return for each query (d,) of unit length its k nearest images: path, label, distance, cluster, …, nearest first.

        The distance is Euclidean, 0 to 2.

        Args:
            queries: (q, d).
            k: neighbors of each.
            label_prefix: only images of this label, or of labels below it, e.g. Fruit/Apple; empty: all.
            max_distance: only images up to this distance; None: any.

        """
        found = self.places_near(queries, k, label_prefix=label_prefix, max_distance=max_distance)
        return [self.rows.iloc[places].assign(distance=distances).reset_index(drop=True) for places, distances in found]

    def places_near(
        self, queries: Vectors, k: int, *, label_prefix: str = "", max_distance: float | None = None
    ) -> list[tuple[npt.NDArray[np.int64], Distances]]:
        """Return for each query the places in `rows` of its nearest images and their distances; arguments as of `search`."""
        results = []
        for entries, distances in zip(*self.nearest(queries, k, label_prefix), strict=True):
            known = (entries >= 0) & (distances <= (max_distance if max_distance is not None else np.inf))
            results.append((self.rows.index.get_indexer(entries[known]), distances[known]))
        return results

    def change(self, folder: Path, catalogue: Catalogue, embed: Callable[[npt.NDArray[np.int64]], Vectors]) -> "Index":
        """Write to a folder the index of another version of its catalogue: what is new is added, what is gone is taken out.

        Clusters and operating point stay what they are; `moved` of the result says how far they are from what is indexed.

        Args:
            folder: where to; not this index's own.
            catalogue: the images that are to be indexed.
            embed: returns the embeddings (m, d) of rows of its frame, by this index's model; where they are searched in a table, it
                has put them there.

        Raises:
            ModelError: the table lacks an image, as code or packages that embed have changed since.

        """
        frame = catalogue.frame
        stays = frame["id"].isin(self._place_of).to_numpy()
        came = np.flatnonzero(~stays)
        gone = ~self._place_of.isin(frame["id"])
        added = np.ascontiguousarray(embed(came), dtype=np.float32) if len(came) else np.empty((0, self._vectors.shape[1]), np.float32)
        # What stays takes its path, label and split from today's catalogue, its entry and cluster from here.
        old = self.rows[["cluster"]].reset_index(names="entry").set_index(self._place_of).loc[frame["id"][stays]]
        cluster_of = self._assign(added)
        entry, cluster = np.empty(len(frame), dtype=np.int64), np.empty(len(frame), dtype=np.int64)
        entry[stays], cluster[stays] = old["entry"], old["cluster"]
        entry[came], cluster[came] = len(self._vectors) + np.arange(len(came)), cluster_of
        rows = frame.assign(cluster=cluster)[ROW_COLUMNS].set_index(pd.Index(entry))
        folder.mkdir(parents=True, exist_ok=True)
        table = None
        if self._table:
            table, rows = LanceIndex.build(self._table.uri, frame["id"].tolist(), self.clusters.centroids), rows.reset_index(drop=True)
        elif self.point.kind == "exact":
            np.save(folder / VECTORS, np.concatenate([self._vectors, added])[entry])
            rows = rows.reset_index(drop=True)
        else:
            structure = faiss.read_index(str(self.folder / STRUCTURE))
            remove(structure, self._all_entries[gone])
            add(structure, added, len(self._vectors))
            faiss.write_index(structure, str(folder / STRUCTURE))
            np.save(folder / VECTORS, np.concatenate([self._vectors, added]))
        for name in self.facts["checksums"].keys() - {ROWS, VECTORS, STRUCTURE, OFFSETS}:
            shutil.copy(self.folder / name, folder / name)
        changes = dict(self.facts["changes"])
        if len(came):
            spread = _to_centers(added, self.clusters.centroids, cluster_of).sum() + changes["added_spread"] * changes["added"]
            changes["added_spread"] = float(spread / (changes["added"] + len(came)))
        changes["added"], changes["removed"] = changes["added"] + len(came), changes["removed"] + int(gone.sum())
        facts = {"search": self.facts["search"], "model": self.facts["model"], "changes": changes}
        return self._finish(folder, rows, facts, catalogue, table)

    def _assign(self, vectors: Vectors) -> Entries:
        return exact(self.clusters.centroids, vectors, 1)[:, 0] if len(vectors) else np.empty(0, dtype=np.int64)


def _spread(vectors: Vectors, clusters: Clusters) -> float:
    """Return how far, on average, other vectors like these are to be expected from their cluster's center; 0 where nothing tells."""
    size = np.bincount(clusters.assigned)[clusters.assigned]
    several = size > 1
    # Of s vectors the center is the mean: it lies nearer to them than to others like them, and of a single one it tells nothing.
    nearer = np.sqrt((size[several] - 1) / (size[several] + 1))
    distances = _to_centers(vectors, clusters.centroids, clusters.assigned)[several]
    return float((distances / nearer).mean()) if several.any() else 0.0


def _to_centers(vectors: Vectors, centroids: Vectors, assigned: Entries) -> npt.NDArray[np.float64]:
    """Return the distance of each vector to its cluster's center, (n,)."""
    # In blocks: of a million vectors no second copy is in memory.
    blocks = range(0, len(vectors), 65_536)
    parts = [np.linalg.norm(vectors[i : i + 65_536] - centroids[assigned[i : i + 65_536]], axis=1) for i in blocks]
    return np.concatenate(parts).astype(np.float64)
