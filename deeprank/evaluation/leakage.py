"""Copies of images across splits: detection and handling."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Literal

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample
from torchvision.transforms.v2 import functional as F

from deeprank.data.catalogue import Catalogue, exclude_images
from deeprank.data.splits import SPLITS, near_duplicate_pairs
from deeprank.errors import DataError
from deeprank.models.embedding_model import EmbeddingModel, ModelSettings
from deeprank.models.inference import embed_catalogue
from deeprank.models.preprocessing import Preprocessing, decode
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
# Alignment of two images.
ALIGNMENT_PX = 64
PAIR_BATCH_SIZE = 128
MAX_SCALE, MAX_SHIFT = 1.25, 0.25
POOLING_SIZES = (4, 2, 1)
STEPS_PER_SIZE = 5

# Pairs that the error of a stopped run lists.
MAX_LISTED_PAIRS = 50
COLUMNS = ["row", "other", "path", "other_path", "split", "other_split", "kind", "phash_bits", "similarity"]


class LeakageSettings(Settings):
    """Definition of a copy, and the handling of copies across splits.

    Attributes:
        on_leak: `stop` ends the run and lists the pairs; `warn` reports them and continues; `exclude` reports them and
            excludes the copies in val and test from the catalogue.
        similarity: smallest correlation of two aligned images that counts as a copy. Measured on the grocery images: 80 copies
            have 0.986 or more; of 1,000 random pairs of one class 0 to 2 have 0.93 or more, all of them images of one scene
            that hardly differ; the same shelf with another product in front of it has 0.85 at most.

    """

    on_leak: Literal["stop", "warn", "exclude"] = "stop"
    similarity: float = Field(0.93, gt=0, le=1)


def check_leakage(catalogue: Catalogue, settings: LeakageSettings, reporter: Reporter) -> Catalogue:
    """Report copies across splits, and return the catalogue to use: the same, or a version without the copies in val and test.

    Raises:
        DataError: there are copies, and on_leak is `stop`.

    """
    leaks = find_leaks(catalogue, settings)
    report_leakage(catalogue, leaks, settings, reporter)
    require_no_leaks(leaks, settings)
    if settings.on_leak != "exclude":
        return catalogue
    # By path: a file with the same bytes as a train file is not in the frame, but would be found in every run.
    copies, row_of = leaks.drop_duplicates("path"), {path: row for row, path in enumerate(catalogue.state["path"])}
    reasons = [f"copy of {path}, similarity {value:.3f}" for path, value in zip(copies["other_path"], copies["similarity"], strict=True)]
    return exclude_images(catalogue, [row_of[path] for path in copies["path"]], reasons)


def find_leaks(catalogue: Catalogue, settings: LeakageSettings) -> pd.DataFrame:
    """Return the pairs of copies across splits, most similar first.

    Candidates have a similar perceptual hash, or are neighbors in the features of a frozen ConvNet; `aligned_similarity`
    confirms them.

    Returns:
        Columns `row` and `other` (in `catalogue.frame`; -1 for a file that is not in it because another file has the same
        bytes; `other` is in the earlier of the splits train, val, test), `path`, `other_path`, `split`, `other_split`, `kind`
        (exact: the same bytes; near), `phash_bits` (Hamming distance), `similarity`.

    """
    candidates = _candidate_pairs(catalogue)
    frame, similarity = catalogue.frame, aligned_similarity(catalogue, candidates)
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


def aligned_similarity(catalogue: Catalogue, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the correlation of the two images of each pair, -1 to 1, after aligning the second with the first.

    Args:
        catalogue: that holds the images.
        pairs: (m, 2) rows of its frame.

    """
    rows, positions = np.unique(pairs, return_inverse=True)
    positions = positions.reshape(pairs.shape)
    images = np.empty((len(rows), ALIGNMENT_PX, ALIGNMENT_PX), dtype=np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(rows), PAIR_BATCH_SIZE):
            batch = rows[start : start + PAIR_BATCH_SIZE]
            images[start : start + len(batch)] = list(pool.map(_small_gray_image, catalogue.read_jpegs(batch)))
    batches = [positions[start : start + PAIR_BATCH_SIZE] for start in range(0, len(positions), PAIR_BATCH_SIZE)]
    correlations = [_align_and_correlate(*(torch.from_numpy(images[batch[:, side]]) for side in (0, 1))).numpy() for batch in batches]
    return np.concatenate([np.empty(0), *correlations])


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
        "remove one image of each pair from the folder, or exclude the copies from val and test with --set leakage.on_leak=exclude, "
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
    """Return why a comparison on the test split would be invalid: its copies of train images are reported, but not excluded.

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
    pairs = [near_duplicate_pairs(frame["phash"].to_numpy(np.uint64), np.flatnonzero(split_number > 0), MAX_PHASH_BITS)]
    # A frozen model: a trained model brings all images of a product together, not only copies.
    model = EmbeddingModel(ModelSettings(embedding_dim=0))
    embeddings = embed_catalogue(
        model, Preprocessing(size=EMBEDDING_IMAGE_SIZE), catalogue, CatalogueRows(np.arange(len(frame))), "searching for copies"
    )
    for earlier, later in combinations(SPLITS, 2):
        gallery, queries = catalogue.rows(earlier), catalogue.rows(later)
        if not len(gallery) or not len(queries):
            continue
        index = faiss.IndexFlatIP(embeddings.shape[1])
        index.add(embeddings[gallery])
        cosine, neighbors = index.search(embeddings[queries], min(NUM_NEIGHBORS, len(gallery)))
        query, rank = np.nonzero(cosine >= MIN_COSINE)
        pairs.append(np.stack([queries[query], gallery[neighbors[query, rank]]], axis=1))
    all_pairs = np.concatenate(pairs)
    return np.unique(all_pairs[split_number[all_pairs[:, 0]] > split_number[all_pairs[:, 1]]], axis=0)


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


def _small_gray_image(jpeg: bytes) -> npt.NDArray[np.uint8]:
    image = F.resize(F.rgb_to_grayscale(decode(jpeg)), [ALIGNMENT_PX, ALIGNMENT_PX], antialias=True)[0]
    pixels: npt.NDArray[np.uint8] = image.numpy()
    return pixels


@torch.inference_mode()
def _align_and_correlate(fixed: Tensor, moving: Tensor) -> Tensor:
    """Return the correlations (n,) of images (n, s, s), each moving image scaled and shifted to match its fixed image.

    The alignment runs from coarse to fine. Each step solves the least-squares problem
    fixed = gain * moving + offset + gradient * (scale, shift). A crop of an image is aligned with the image and vice versa.

    Source: Lucas and Kanade 1981, with gain and offset.
    """
    fixed, moving = (images.float().unsqueeze(1) for images in (fixed, moving))
    # Columns: scale x, scale y, shift x, shift y; an image reaches from -1 to 1.
    transform = torch.tensor([1.0, 1.0, 0.0, 0.0]).repeat(len(fixed), 1)
    for size in POOLING_SIZES:
        pooled_fixed, pooled_moving = avg_pool2d(fixed, size), avg_pool2d(moving, size)
        for _ in range(STEPS_PER_SIZE):
            transform = _alignment_step(pooled_fixed[:, 0], *_apply_transform(pooled_moving, transform), transform)
    return _masked_correlation(fixed[:, 0], *_apply_transform(moving, transform))


def _apply_transform(images: Tensor, transform: Tensor) -> tuple[Tensor, Tensor]:
    """Return scaled and shifted images (n, s, s), and a mask that is 1 inside the original image, else 0."""
    matrix = torch.cat([torch.diag_embed(transform[:, :2]), transform[:, 2:, None]], dim=2)
    grid = affine_grid(matrix, list(images.shape), align_corners=False)
    inside = (grid.abs() <= 1 - 1 / images.shape[-1]).all(dim=-1).float()
    return grid_sample(images, grid, padding_mode="border", align_corners=False)[:, 0], inside


def _alignment_step(fixed: Tensor, moved: Tensor, inside: Tensor, transform: Tensor) -> Tensor:
    """Return the transform (n, 4) improved by one Gauss-Newton step."""
    side = fixed.shape[-1]
    coordinates = (torch.arange(side) + 0.5) / side * 2 - 1
    gradient_y, gradient_x = (gradient * side / 2 for gradient in torch.gradient(moved, dim=(1, 2)))
    gradient_x, gradient_y = gradient_x / transform[:, 0, None, None], gradient_y / transform[:, 1, None, None]
    terms = [gradient_x * coordinates, gradient_y * coordinates[:, None], gradient_x, gradient_y, moved, torch.ones_like(moved)]
    jacobian = torch.stack(terms, dim=-1).flatten(1, 2)
    weighted = (jacobian * inside.flatten(1)[:, :, None]).transpose(1, 2)
    matrix = weighted @ jacobian
    # Damping: for an image without edges the problem is singular.
    matrix = matrix + torch.diag_embed(matrix.diagonal(dim1=1, dim2=2) * 1e-4 + 1e-6)
    solution = torch.linalg.solve(matrix, weighted @ fixed.flatten(1)[:, :, None])[:, :, 0]
    transform = transform + (solution[:, :4] / solution[:, 4:5].clamp(min=0.3)).clamp(-0.1, 0.1)
    return torch.cat([transform[:, :2].clamp(1 / MAX_SCALE, MAX_SCALE), transform[:, 2:].clamp(-MAX_SHIFT, MAX_SHIFT)], dim=1)


def _masked_correlation(images1: Tensor, images2: Tensor, mask: Tensor) -> Tensor:
    def centered(images: Tensor) -> Tensor:
        mean = (images * mask).sum((1, 2), keepdim=True) / mask.sum((1, 2), keepdim=True)
        return (images - mean) * mask

    images1, images2 = centered(images1), centered(images2)
    return (images1 * images2).sum((1, 2)) / ((images1**2).sum((1, 2)) * (images2**2).sum((1, 2))).sqrt().clamp(min=1e-3)
