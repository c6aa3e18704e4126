"""Images that lie in two splits at once, as the same file or as a copy of it, and what to do about them."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Literal

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.figure import Figure
from pydantic import Field
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample
from torchvision.transforms.v2 import functional as F

from deeprank.data.catalogue import Catalogue, exclude
from deeprank.data.splits import SPLITS, near_duplicates
from deeprank.errors import DataError
from deeprank.models.embedding_model import EmbeddingModel, ModelSettings
from deeprank.models.inference import embed_catalogue
from deeprank.models.preprocessing import Preprocessing, decode
from deeprank.plotting.style import NEUTRAL, WRONG, draw_image_rows
from deeprank.reporting import Record, Reporter
from deeprank.settings import Settings

# Candidates. Of 100 copies of train images (JPEG 65 to 75, 50 to 90 % of the size, 3 to 8 % cropped off), the hash moves
# up to 16 bits; in the frozen net's features each has a cosine of 0.87 or more to its source, which is its first or second.
BITS = 12
COSINE = 0.8
NEIGHBORS = 5
EMBEDDING_SIZE = 128
# Confirmation.
SIDE = 64
PAIRS_AT_A_TIME = 128
LARGEST_SCALE, LARGEST_SHIFT = 1.25, 0.25

# Pairs that the message of a run that stops names.
LISTED = 50
COLUMNS = ["row", "other", "path", "other_path", "split", "other_split", "kind", "phash_bits", "similarity"]


class LeakageSettings(Settings):
    """What counts as a copy, and what happens when one is in another split.

    Attributes:
        on_leak: `stop` ends the run and lists the pairs; `warn` reports them and goes on; `leave_out` reports them and leaves
            the copies in val and test out of the evaluation.
        similarity: correlation of two images, one laid over the other, from which on they are copies. Measured on the
            grocery images: 80 copies have 0.986 or more; of 1,000 random pairs of one class 0 to 2 reach 0.93, all of them
            shots of one scene that hardly differ; one shelf with another product in front of it has 0.85 at most.

    """

    on_leak: Literal["stop", "warn", "leave_out"] = "stop"
    similarity: float = Field(0.93, gt=0, le=1)


def check_leaks(catalogue: Catalogue, settings: LeakageSettings, reporter: Reporter) -> Catalogue:
    """Report copies across splits, and return the catalogue to go on with: the same, or a version without the copies in val and test.

    Raises:
        DataError: there are copies, and the settings say to stop.

    """
    leaks = find_leaks(catalogue, settings)
    report_leaks(catalogue, leaks, settings, reporter)
    require_no_leaks(leaks, settings)
    if settings.on_leak != "leave_out":
        return catalogue
    # By path: a file whose bytes train has too is in no frame, but would be found again every time.
    copies, row_of = leaks.drop_duplicates("path"), {path: row for row, path in enumerate(catalogue.state["path"])}
    reasons = [f"copy of {path}, similarity {alike:.3f}" for path, alike in zip(copies["other_path"], copies["similarity"], strict=True)]
    return exclude(catalogue, [row_of[path] for path in copies["path"]], reasons)


def find_leaks(catalogue: Catalogue, settings: LeakageSettings) -> pd.DataFrame:
    """Return the pairs of copies across splits, most alike first.

    Candidates are near in perceptual hash, or neighbors in the features of a frozen ConvNet; `similarity` confirms them.

    Returns:
        Columns `row` and `other` (in `catalogue.frame`; -1 for a file that is not in it because another has the same bytes;
        `other` is in the earlier of the splits train, val, test), `path`, `other_path`, `split`, `other_split`, `kind` (exact:
        the same bytes; near), `phash_bits` (Hamming distance), `similarity`.

    """
    pairs = _candidates(catalogue)
    frame, alike = catalogue.frame, similarity(catalogue, pairs)
    near = pairs[alike >= settings.similarity]
    row, other = frame.iloc[near[:, 0]].reset_index(drop=True), frame.iloc[near[:, 1]].reset_index(drop=True)
    apart = row["phash"].to_numpy(np.uint64) ^ other["phash"].to_numpy(np.uint64)
    found = pd.DataFrame(
        {
            "row": near[:, 0], "other": near[:, 1], "path": row["path"], "other_path": other["path"], "split": row["split"],
            "other_split": other["split"], "kind": "near", "phash_bits": np.bitwise_count(apart).astype(np.int64),
            "similarity": alike[alike >= settings.similarity],
        }
    )  # fmt: skip
    # The path decides among equals, so that the order is the same each time.
    everything = pd.concat([_exact(catalogue), found], ignore_index=True)
    return everything.sort_values(["similarity", "path", "other_path"], ascending=[False, True, True], ignore_index=True)


def similarity(catalogue: Catalogue, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return how alike two images of each pair are: their correlation, -1 to 1, when one is laid over the other.

    Args:
        catalogue: where the images are.
        pairs: (m, 2) rows of its frame.

    """
    rows, places = np.unique(pairs, return_inverse=True)
    places = places.reshape(pairs.shape)
    small = np.empty((len(rows), SIDE, SIDE), dtype=np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(rows), PAIRS_AT_A_TIME):
            chunk = rows[start : start + PAIRS_AT_A_TIME]
            small[start : start + len(chunk)] = list(pool.map(_small, catalogue.images(chunk)))
    parts = [places[start : start + PAIRS_AT_A_TIME] for start in range(0, len(places), PAIRS_AT_A_TIME)]
    found = [_laid_over(torch.from_numpy(small[part[:, 0]]), torch.from_numpy(small[part[:, 1]])).numpy() for part in parts]
    return np.concatenate([np.empty(0), *found])


def require_no_leaks(leaks: pd.DataFrame, settings: LeakageSettings) -> None:
    """Raise DataError that lists copies across splits, unless the settings say that the run goes on."""
    if settings.on_leak != "stop" or not len(leaks):
        return
    listed = "\n".join(f"  {r.path} ~ {r.other_path} ({r.kind}, similarity {r.similarity:.3f})" for r in leaks.head(LISTED).itertuples())
    rest = f"\n  and {len(leaks) - LISTED} more" if len(leaks) > LISTED else ""
    raise DataError(
        f"{len(leaks)} pairs of images are copies across splits, so that the evaluation would ask for what was trained on:\n"
        f"{listed}{rest}\nremove one of each pair from the folder, or leave the copies out of the evaluation with "
        "--set leakage.on_leak=leave_out, or go on all the same with --set leakage.on_leak=warn"
    )


def report_leaks(catalogue: Catalogue, leaks: pd.DataFrame, settings: LeakageSettings, reporter: Reporter) -> None:
    """Report how many copies lie across splits, and a picture of them where there are any."""
    reporter.metric("leaks.pairs", len(leaks))
    reporter.metric("leaks.exact", int((leaks["kind"] == "exact").sum()))
    # A file whose bytes train has too asks nothing.
    asking = (leaks["split"] == "test") & (leaks["other_split"] == "train") & (leaks["row"] >= 0)
    reporter.metric("leaks.test_queries", leaks.loc[asking, "path"].nunique())
    if len(leaks):
        reporter.note("leaks.on_leak", settings.on_leak)
        reporter.figure("leaks", leak_pairs_figure(catalogue, leaks))


def unresolved(record: Record) -> list[str]:
    """Return, from what `report_leaks` told, why a comparison on the test split would be invalid: copies that were only warned of."""
    told = {point.name: int(point.value) for point in record.points}
    copies = told.get("leaks.test_queries", 0)
    warned = record.notes.get("leaks.on_leak") == "warn" and copies
    return [f"{copies:,} test images have a copy in train, and leakage.on_leak is warn"] if warned else []


def leak_pairs_figure(catalogue: Catalogue, leaks: pd.DataFrame, count: int = 12) -> Figure:
    """Draw the `count` pairs that are most alike, two pairs a line."""
    # A file that shares its bytes with another has no row; the other has the image.
    identity = dict(zip(catalogue.state["path"], catalogue.state["id"], strict=True))
    row_of = {key: row for row, key in enumerate(catalogue.frame["id"])}

    def cell(path: str, split: str, alike: float) -> tuple[int, str, str]:
        # The end of a path names the image; between dollars Matplotlib would set a formula.
        end = (path if len(path) <= 26 else f"…{path[-25:]}").replace("$", r"\$")
        return row_of[identity[path]], f"{split} {alike:.3f}\n{end}", NEUTRAL if split == "train" else WRONG

    cells = []
    for pair in leaks.head(count).itertuples():
        cells += [cell(pair.path, pair.split, pair.similarity), cell(pair.other_path, pair.other_split, pair.similarity)]
    if not cells:
        return Figure()
    return draw_image_rows(
        catalogue, [cells[i : i + 4] for i in range(0, len(cells), 4)], f"Copies across splits, {len(leaks)} pairs (similarity)"
    )


def _candidates(catalogue: Catalogue) -> npt.NDArray[np.int64]:
    """Return (m, 2) pairs worth a closer look: a row of the later split, a row of the earlier one."""
    frame = catalogue.frame
    order = frame["split"].map({split: place for place, split in enumerate(SPLITS)}).to_numpy()
    pairs = [near_duplicates(frame["phash"].to_numpy(np.uint64), np.flatnonzero(order > 0), BITS)]
    # Frozen: what training taught would bring one product's images together, not copies.
    model = EmbeddingModel(ModelSettings(embedding_dim=0))
    embeddings = embed_catalogue(model, Preprocessing(size=EMBEDDING_SIZE), catalogue, np.arange(len(frame)), "looking for copies")
    for earlier, later in combinations(SPLITS, 2):
        gallery, queries = catalogue.rows(earlier), catalogue.rows(later)
        if not len(gallery) or not len(queries):
            continue
        index = faiss.IndexFlatIP(embeddings.shape[1])
        index.add(embeddings[gallery])
        cosine, found = index.search(embeddings[queries], min(NEIGHBORS, len(gallery)))
        query, place = np.nonzero(cosine >= COSINE)
        pairs.append(np.stack([queries[query], gallery[found[query, place]]], axis=1))
    every = np.concatenate(pairs)
    return np.unique(every[order[every[:, 0]] > order[every[:, 1]]], axis=0)


def _exact(catalogue: Catalogue) -> pd.DataFrame:
    """Return the pairs of files with the same bytes in different splits; at most one of such files is in the frame."""
    # A duplicate of what was left out is in no split.
    state = catalogue.state[catalogue.state["status"].isin(["ok", "duplicate"]) & catalogue.state["id"].isin(catalogue.frame["id"])]
    same = state[state["id"].duplicated(keep=False)]
    row_of = {path: row for row, path in enumerate(catalogue.frame["path"])}
    pairs = same.merge(same, on="id", suffixes=("", "_other")).rename(columns={"path_other": "other_path", "split_other": "other_split"})
    place = {split: i for i, split in enumerate(SPLITS)}
    pairs = pairs[pairs["split"].map(place) > pairs["other_split"].map(place)]
    rows = {name: pairs[of].map(row_of).fillna(-1).astype(np.int64) for name, of in (("row", "path"), ("other", "other_path"))}
    return pairs.assign(**rows, kind="exact", phash_bits=0, similarity=1.0)[COLUMNS]


def _small(jpeg: bytes) -> npt.NDArray[np.uint8]:
    small: npt.NDArray[np.uint8] = F.resize(F.rgb_to_grayscale(decode(jpeg)), [SIDE, SIDE], antialias=True)[0].numpy()
    return small


@torch.inference_mode()
def _laid_over(fixed: Tensor, moving: Tensor) -> Tensor:
    """Return the correlations (n,) of pictures (n, s, s), the second stretched and shifted so that it lies on the first best.

    Coarse to fine; in each round the least squares fixed = gain * moving + offset + gradient * (stretch, shift) are solved.
    A crop of an image is found on it, and it on its crop.

    Source: Lucas and Kanade 1981, with gain and offset.
    """
    fixed, moving = (one.float().unsqueeze(1) for one in (fixed, moving))
    place = torch.tensor([1.0, 1.0, 0.0, 0.0]).repeat(len(fixed), 1)  # stretch x, y; shift x, y; the picture is -1..1
    for coarser in (4, 2, 1):
        still, moved = avg_pool2d(fixed, coarser), avg_pool2d(moving, coarser)
        for _ in range(5):
            place = _better(still[:, 0], *_stretched(moved, place), place)
    return _correlation(fixed[:, 0], *_stretched(moving, place))


def _stretched(pictures: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Return pictures (n, s, s), stretched and shifted, and 1 where they are inside of the original, else 0."""
    grid = affine_grid(torch.cat([torch.diag_embed(place[:, :2]), place[:, 2:, None]], dim=2), list(pictures.shape), align_corners=False)
    inside = (grid.abs() <= 1 - 1 / pictures.shape[-1]).all(dim=-1).float()
    return grid_sample(pictures, grid, padding_mode="border", align_corners=False)[:, 0], inside


def _better(fixed: Tensor, moved: Tensor, inside: Tensor, place: Tensor) -> Tensor:
    side = fixed.shape[-1]
    along = (torch.arange(side) + 0.5) / side * 2 - 1
    down, right = (slope * side / 2 for slope in torch.gradient(moved, dim=(1, 2)))
    right, down = right / place[:, 0, None, None], down / place[:, 1, None, None]
    terms = torch.stack([right * along, down * along[:, None], right, down, moved, torch.ones_like(moved)], dim=-1).flatten(1, 2)
    weighted = (terms * inside.flatten(1)[:, :, None]).transpose(1, 2)
    matrix = weighted @ terms
    # A flat picture says nothing about its place.
    matrix = matrix + torch.diag_embed(matrix.diagonal(dim1=1, dim2=2) * 1e-4 + 1e-6)
    solved = torch.linalg.solve(matrix, weighted @ fixed.flatten(1)[:, :, None])[:, :, 0]
    place = place + (solved[:, :4] / solved[:, 4:5].clamp(min=0.3)).clamp(-0.1, 0.1)
    return torch.cat([place[:, :2].clamp(1 / LARGEST_SCALE, LARGEST_SCALE), place[:, 2:].clamp(-LARGEST_SHIFT, LARGEST_SHIFT)], dim=1)


def _correlation(one: Tensor, other: Tensor, inside: Tensor) -> Tensor:
    def centered(picture: Tensor) -> Tensor:
        mean = (picture * inside).sum((1, 2), keepdim=True) / inside.sum((1, 2), keepdim=True)
        return (picture - mean) * inside

    one, other = centered(one), centered(other)
    return (one * other).sum((1, 2)) / ((one**2).sum((1, 2)) * (other**2).sum((1, 2))).sqrt().clamp(min=1e-3)
