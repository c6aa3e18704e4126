"""The index: what is searched, in a folder that says which model and which photographs it belongs to."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd

from deeprank.checksums import hash_file, read_manifest
from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.model.bundle import Bundle
from deeprank.search.cluster import Clusters, ClusterSettings

FORMAT = 1
ROW_COLUMNS = ["path", "id", "label", "split", "image_row", "cluster"]


@dataclass(frozen=True)
class Index:
    """A FAISS index over embeddings, with what each of its entries is."""

    folder: Path

    @classmethod
    def build(
        cls,
        folder: Path,
        bundle: Bundle,
        catalogue: Catalogue,
        embeddings: npt.NDArray[np.float32],
        clusters: Clusters,
        settings: ClusterSettings,
    ) -> "Index":
        """Write the index of a catalogue's embeddings (len(frame), d); the clusters' centroids are its coarse quantizer."""
        folder.mkdir(parents=True, exist_ok=True)
        exact = len(embeddings) <= settings.exact_below
        dimensions = embeddings.shape[1]
        index: faiss.Index = faiss.IndexFlatIP(dimensions)
        if not exact:
            quantizer = faiss.IndexFlatIP(dimensions)
            quantizer.add(clusters.centroids)
            index = faiss.IndexIVFFlat(quantizer, dimensions, len(clusters.centroids), faiss.METRIC_INNER_PRODUCT)
            index.nprobe = min(settings.probes, len(clusters.centroids))
        index.add(embeddings)
        faiss.write_index(index, str(folder / "index.faiss"))
        np.save(folder / "centroids.npy", clusters.centroids)
        catalogue.frame.assign(cluster=clusters.assigned)[ROW_COLUMNS].to_parquet(folder / "rows.parquet", index=False)
        facts = {
            "format": FORMAT,
            "kind": "exact" if exact else f"inverted lists, {len(clusters.centroids)} clusters, {settings.probes} looked into",
            "model": bundle.weights_hash,
            "catalogue": {"uri": catalogue.uri, "version": catalogue.version},
            "checksums": {name: hash_file(folder / name) for name in ("index.faiss", "centroids.npy", "rows.parquet")},
        }
        (folder / "index.json").write_text(json.dumps(facts, indent=1))
        return cls(folder)

    @cached_property
    def facts(self) -> dict[str, object]:
        """The parsed index.json, after every file was checked against its checksum."""
        facts = read_manifest(self.folder / "index.json", "holds no index", FORMAT, {"kind", "model", "checksums"})
        checksums = facts["checksums"]
        assert isinstance(checksums, dict)
        for name, checksum in checksums.items():
            if not (self.folder / name).exists() or hash_file(self.folder / name) != checksum:
                raise ModelError(f"{self.folder / name} is missing or damaged: its checksum is not the one in index.json")
        return facts

    @cached_property
    def rows(self) -> pd.DataFrame:
        """What each entry is: path, id, label, split, image_row, cluster."""
        return pd.read_parquet(self.folder / "rows.parquet")

    @cached_property
    def _faiss(self) -> "faiss.Index":
        index = faiss.read_index(str(self.folder / "index.faiss"))
        if isinstance(index, faiss.IndexIVF):
            index.make_direct_map()
        return index

    def embeddings(self, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return (len(entries), d) what is indexed of entries, places in `rows`."""
        _ = self.facts
        found: npt.NDArray[np.float32] = self._faiss.reconstruct_batch(entries)
        return found

    def require(self, bundle: Bundle) -> None:
        """Refuse a model that is not the one whose embeddings are indexed.

        Raises:
            ModelError: it is another one, or a file is damaged.

        """
        if self.facts["model"] != bundle.weights_hash:
            raise ModelError(f"{self.folder} was built with another model than {bundle.folder}: build it anew")

    def search(self, queries: npt.NDArray[np.float32], k: int) -> list[pd.DataFrame]:
        """Return for each query (d,) of unit length its k nearest photographs: path, label, distance, cluster, …, nearest first.

        The distance is Euclidean, 0 to 2.
        """
        _ = self.facts
        _, found = self._faiss.search(np.ascontiguousarray(queries), min(k, len(self.rows)))
        results = []
        for query, entries in zip(queries, found, strict=True):
            known = entries[entries >= 0]
            # Not from the inner product: near 0 the root of 2 - 2 x similarity loses half of the digits.
            distance = np.linalg.norm(self._faiss.reconstruct_batch(known).astype(np.float64) - query, axis=1)
            results.append(self.rows.iloc[known].assign(distance=distance).reset_index(drop=True))
        return results
