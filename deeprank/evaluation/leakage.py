"""Copies of images across splits: detection and handling."""

import tempfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from deeprank.data.catalogue import Catalogue
from deeprank.data.copies import MIN_COPY_SIMILARITY, confirm_copies
from deeprank.data.splits import SPLITS, near_duplicate_pairs
from deeprank.errors import DataError
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import ModelSettings, create_model
from deeprank.models.embedding_table import catalogue_embeddings
from deeprank.models.preprocessing import Preprocessing
from deeprank.plotting.leakage import leak_pairs
from deeprank.reporting import Record, Reporter
from deeprank.row_numbers import CatalogueRows
from deeprank.settings import Settings

# Limits for candidate pairs. Measured on 100 copies of train images (JPEG 65 to 75, 50 to 90 % of the size, 3 to 8 % cropped
# off): the hash differs in up to 16 bits; the cosine of the frozen features is 0.87 or more, and the source is the first or
# second neighbor.
MAX_PHASH_BITS = 12
MIN_COSINE = 0.8
NUM_NEIGHBORS = 5
EMBEDDING_IMAGE_SIZE = 128
# Of a larger gallery, a query is compared with the images of the nearest lists only; a copy lies in the list of its source or beside it.
MAX_FLAT_GALLERY, NUM_LISTS_SEARCHED, IMAGES_PER_LIST = 50_000, 16, 40

# Pairs that the error of a stopped run lists.
MAX_LISTED_PAIRS = 50
COLUMNS = ["row", "other", "path", "other_path", "split", "other_split", "kind", "phash_bits", "similarity"]


class LeakageSettings(Settings):
    """Definition of a copy, and the handling of copies across splits.

    Attributes:
        on_leak: `exclude` reports copies, and excludes those in val and test from this run's evaluation; `warn` reports them and
            continues; `stop` ends the run and lists the pairs.
        similarity: smallest similarity of two images that counts as a copy, see `copy_similarity`.

    """

    on_leak: Literal["exclude", "warn", "stop"] = "exclude"
    similarity: float = Field(MIN_COPY_SIMILARITY, gt=0, le=1)


def check_leakage(catalogue: Catalogue, settings: LeakageSettings, reporter: Reporter) -> Catalogue:
    """Report copies across splits, and return the catalogue to use: the same, or one without the copies in val and test.

    Nothing is written into the catalogue's table: when the folder is mended, the next run uses all its images.

    Raises:
        DataError: there are copies, and on_leak is `stop`.

    """
    leaks = find_leaks(catalogue, settings)
    report_leakage(catalogue, leaks, settings, reporter)
    require_no_leaks(leaks, settings)
    if settings.on_leak != "exclude":
        return catalogue
    # A file with the same bytes as a train file is not in the frame, and in no split.
    copies = leaks.loc[leaks["row"] >= 0, "row"].unique()
    return replace(catalogue, excluded=catalogue.excluded | frozenset(catalogue.frame["id"].iloc[copies]))


def find_leaks(catalogue: Catalogue, settings: LeakageSettings) -> pd.DataFrame:
    """Return the pairs of copies across splits, most similar first.

    Candidates have a similar perceptual hash, or are neighbors in the features of a frozen ConvNet; `copy_similarity` confirms
    them.

    Returns:
        Columns `row` and `other` (in `catalogue.frame`; -1 for a file that is not in it because another file has the same
        bytes; `other` is in the earlier of the splits train, val, test), `path`, `other_path`, `split`, `other_split`, `kind`
        (exact: the same bytes; near), `phash_bits` (Hamming distance), `similarity`.

    """
    candidates, frame = _candidate_pairs(catalogue), catalogue.frame
    similarity = confirm_copies(candidates, catalogue.read_jpegs, f"comparing {len(candidates):,} pairs of similar images")
    pairs = candidates[similarity >= settings.similarity]
    row, other = frame.iloc[pairs[:, 0]].reset_index(drop=True), frame.iloc[pairs[:, 1]].reset_index(drop=True)
    phash_bits = np.bitwise_count(row["phash"].to_numpy(np.uint64) ^ other["phash"].to_numpy(np.uint64))
    near = pd.DataFrame(
        {
            "row": pairs[:, 0], "other": pairs[:, 1], "path": row["path"], "other_path": other["path"], "split": row["split"],
            "other_split": other["split"], "kind": "near", "phash_bits": phash_bits.astype(np.int64),
            "similarity": similarity[similarity >= settings.similarity],
        }
    )  # fmt: skip
    # Sorting by path too makes the order of equally similar pairs reproducible.
    leaks = pd.concat([_exact_pairs(catalogue), near], ignore_index=True)
    return leaks.sort_values(["similarity", "path", "other_path"], ascending=[False, True, True], ignore_index=True)


def require_no_leaks(leaks: pd.DataFrame, settings: LeakageSettings) -> None:
    """Raise DataError with a list of the copies across splits, if there are any and on_leak is `stop`."""
    if settings.on_leak != "stop" or not len(leaks):
        return
    shown = leaks.head(MAX_LISTED_PAIRS)
    listed = "\n".join(f"  {r.path} ~ {r.other_path} ({r.kind}, similarity {r.similarity:.3f})" for r in shown.itertuples())
    rest = f"\n  and {len(leaks) - MAX_LISTED_PAIRS} more" if len(leaks) > MAX_LISTED_PAIRS else ""
    raise DataError(
        f"{len(leaks)} pairs of images are copies across splits, so the model would be evaluated on images it was trained on:\n"
        f"{listed}{rest}\n"
        "remove one image of each pair from the folder, or exclude the copies from the evaluation with --set leakage.on_leak=exclude, "
        "or continue with --set leakage.on_leak=warn"
    )


def report_leakage(catalogue: Catalogue, leaks: pd.DataFrame, settings: LeakageSettings, reporter: Reporter) -> None:
    """Report leakage.pairs, .exact and .test_queries, and if there are copies leakage.on_leak and the figure leakage."""
    reporter.metric("leakage.pairs", len(leaks))
    reporter.metric("leakage.exact", int((leaks["kind"] == "exact").sum()))
    # A file with the same bytes as a train file has no row and is no query.
    is_query = (leaks["split"] == "test") & (leaks["other_split"] == "train") & (leaks["row"] >= 0)
    reporter.metric("leakage.test_queries", leaks.loc[is_query, "path"].nunique())
    if len(leaks):
        reporter.note("leakage.on_leak", settings.on_leak)
        reporter.figure("leakage", leak_pairs(catalogue, leaks))


def unresolved_leakage(record: Record) -> list[str]:
    """Return why a comparison on the test split would be invalid: copies of train images are reported, but not excluded.

    Args:
        record: of `report_leakage`.

    """
    metrics = {point.name: int(point.value) for point in record.points}
    copies = metrics.get("leakage.test_queries", 0)
    has_unresolved = record.notes.get("leakage.on_leak") == "warn" and copies
    return [f"{copies:,} test images have a copy in train, and leakage.on_leak is warn"] if has_unresolved else []


def _candidate_pairs(catalogue: Catalogue) -> npt.NDArray[np.int64]:
    """Return (m, 2) candidate pairs: a row of the later split, a row of the earlier split."""
    frame = catalogue.frame
    split_number = frame["split"].map({split: number for number, split in enumerate(SPLITS)}).to_numpy()
    phashes, later_rows = frame["phash"].to_numpy(np.uint64), np.flatnonzero(split_number > 0)
    pairs = [near_duplicate_pairs(phashes, later_rows, MAX_PHASH_BITS, splits=split_number)]
    embeddings = _frozen_features(catalogue)
    for earlier, later in combinations(SPLITS, 2):
        gallery, queries = catalogue.rows(earlier), catalogue.rows(later)
        if not len(gallery) or not len(queries):
            continue
        cosine, neighbors = _nearest(embeddings[queries], embeddings[gallery])
        query, rank = np.nonzero((cosine >= MIN_COSINE) & (neighbors >= 0))
        pairs.append(np.stack([queries[query], gallery[neighbors[query, rank]]], axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def _frozen_features(catalogue: Catalogue) -> npt.NDArray[np.float32]:
    """Return the features (n, d) of all images in a frozen model; they are stored, so that the next run reads them.

    A trained model brings all images of a product together, not only copies.
    """
    settings = ModelSettings(embedding_dim=0, pretrained_share=0)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Bundle.save(Path(folder), create_model(settings), settings, Preprocessing(size=EMBEDDING_IMAGE_SIZE), {})
        return catalogue_embeddings(bundle, catalogue, CatalogueRows(np.arange(len(catalogue.frame))), "searching for copies")


def _nearest(queries: npt.NDArray[np.float32], gallery: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return cosines and positions of the nearest gallery images (q, k); of a large gallery, the nearest inverted lists are searched."""
    embedding_dim, k = gallery.shape[1], min(NUM_NEIGHBORS, len(gallery))
    index = faiss.IndexFlatIP(embedding_dim)
    if len(gallery) > MAX_FLAT_GALLERY:
        num_lists = 4 * round(len(gallery) ** 0.5)
        index = faiss.IndexIVFFlat(index, embedding_dim, num_lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = NUM_LISTS_SEARCHED
        index.train(gallery[:: max(1, len(gallery) // (IMAGES_PER_LIST * num_lists))])
    index.add(gallery)
    return index.search(queries, k)


def _exact_pairs(catalogue: Catalogue) -> pd.DataFrame:
    """Return the pairs of files with the same bytes in different splits; at most one of them is in the frame."""
    # A duplicate of a rejected image is in no split.
    state = catalogue.state[catalogue.state["status"].isin(["ok", "duplicate"]) & catalogue.state["id"].isin(catalogue.frame["id"])]
    same_bytes = state[state["id"].duplicated(keep=False)]
    row_of = {path: row for row, path in enumerate(catalogue.frame["path"])}
    pairs = same_bytes.merge(same_bytes, on="id", suffixes=("", "_other"))
    pairs = pairs.rename(columns={"path_other": "other_path", "split_other": "other_split"})
    split_number = {split: number for number, split in enumerate(SPLITS)}
    pairs = pairs[pairs["split"].map(split_number) > pairs["other_split"].map(split_number)]
    rows = {name: pairs[path].map(row_of).fillna(-1).astype(np.int64) for name, path in (("row", "path"), ("other", "other_path"))}
    return pairs.assign(**rows, kind="exact", phash_bits=0, similarity=1.0)[COLUMNS]
