"""Copies: pairs of images that show the same shot, confirmed by an alignment and by colors and details in place."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from deeprank.reporting import track

Pixels = npt.NDArray[np.float32]
Keypoints = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]

# Share of agreeing blocks from which a pair is a copy. Chosen on grocery, clothing and synthetic images; the measurements, and what is
# not measured, are in docs/results.md.
MIN_COPY_SIMILARITY = 0.85
SIDE = 256
NUM_KEYPOINTS = 600
MAX_DESCRIPTOR_RATIO = 0.8
RANSAC_ERROR_PX = 3.0
MIN_INLIERS = 15
# A copy is cropped or resized, but hardly turned.
MIN_SCALE, MAX_SCALE, MAX_ROTATION_DEGREES = 0.7, 1.43, 6.0
MIN_OVERLAP = 0.6
MAX_GAIN = 1.5
GRID = 16
BLUR_SIGMA = 1.5
# Of a block: differences of the mean color, standard deviation of a block with detail, and correlation of its details.
MAX_COLOR_DIFFERENCE, MIN_DETAIL, MIN_CORRELATION = 16.0, 4.0, 0.7
# Pixels near black or white are clipped by a change of brightness.
DARKEST, BRIGHTEST = 8.0, 247.0
# Share of the pixels of a block that are not clipped.
MIN_UNCLIPPED = 0.8
# Blocks with detail that a confirmation needs; with fewer, only an almost equal image is a copy.
MIN_DETAILED_BLOCKS = 10
MAX_FLAT_DIFFERENCE = 1.0
# An image takes about 1.5 MB.
CACHED_IMAGES = 256


@dataclass(frozen=True)
class ImageDetails:
    """What is compared of an image.

    Attributes:
        pixels: (height, width, 3), RGB in 0 to 255, short side 256.
        keypoints: positions (n, 2) in x, y and SIFT descriptors (n, 128); none if the image is flat.
        is_flat: whether too few blocks have details.

    """

    pixels: Pixels
    keypoints: Keypoints
    is_flat: bool


def image_details(jpeg: bytes) -> ImageDetails:
    """Return what is compared of a stored image.

    Source: Lowe 2004 (SIFT), on luminance with local contrast equalization.
    """
    pixels = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    scale = SIDE / min(pixels.shape[:2])
    if scale != 1:
        size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    blurred = np.asarray(cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), BLUR_SIGMA))
    blocks = _blocks(blurred)
    is_flat = bool((blocks.std(axis=1).max(axis=1) >= MIN_DETAIL).sum() < MIN_DETAILED_BLOCKS)
    positions, descriptors = np.empty((0, 2), dtype=np.float32), None
    if not is_flat:
        luminance = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
        points, descriptors = cv2.SIFT_create(nfeatures=NUM_KEYPOINTS).detectAndCompute(luminance, None)
        positions = np.array([point.pt for point in points], dtype=np.float32).reshape(-1, 2)
    return ImageDetails(blurred, (positions, np.empty((0, 128), dtype=np.float32) if descriptors is None else descriptors), is_flat)


def copy_similarity(first: ImageDetails, second: ImageDetails) -> float:
    """Return the share of blocks whose color and details are the same in both images after an alignment, 0 to 1.

    Each image is aligned with the other, and the larger share counts: a smaller copy lacks the finest details of its source. Images
    without details have similarity 1 if they are almost equal, otherwise 0: flat images of one color are not copies.
    """
    if first.is_flat or second.is_flat:
        same_size = first.pixels.shape == second.pixels.shape
        return float(same_size and np.abs(first.pixels - second.pixels).mean(axis=(0, 1)).max() <= MAX_FLAT_DIFFERENCE)
    transform = _align(first.keypoints, second.keypoints)
    if transform is None:
        scales = [second.pixels.shape[side] / first.pixels.shape[side] for side in (1, 0)]
        transform = np.array([[scales[0], 0, 0], [0, scales[1], 0]], dtype=np.float64)
    return max(_aligned_similarity(first, second, transform), _aligned_similarity(second, first, cv2.invertAffineTransform(transform)))


def _aligned_similarity(moving: ImageDetails, fixed: ImageDetails, transform: npt.NDArray[np.float64]) -> float:
    """Return the similarity in the frame of the fixed image; `transform` (2, 3) maps the moving image to it."""
    height, width = fixed.pixels.shape[:2]
    aligned = np.asarray(cv2.warpAffine(moving.pixels, transform, (width, height), flags=cv2.INTER_LINEAR))
    inside = np.asarray(cv2.warpAffine(np.ones(moving.pixels.shape[:2], np.float32), transform, (width, height))) > 0.99
    if inside.mean() < MIN_OVERLAP:
        return 0.0
    unclipped = inside & _unclipped(aligned) & _unclipped(fixed.pixels)
    gain = np.median(fixed.pixels[unclipped].mean(axis=1) / aligned[unclipped].mean(axis=1)) if unclipped.any() else 1.0
    aligned = (aligned * np.clip(gain, 1 / MAX_GAIN, MAX_GAIN)).clip(0, 255)
    return _agreement(aligned, fixed.pixels, unclipped)


def confirm_copies(
    pairs: npt.NDArray[np.int64], read_jpegs: Callable[[Sequence[int]], Sequence[bytes]], progress: str | None = None
) -> npt.NDArray[np.float64]:
    """Return the copy similarity (m,) of candidate pairs.

    Args:
        pairs: (m, 2) numbers of images.
        read_jpegs: returns the stored JPEGs of images by their numbers.
        progress: text of the progress bar; None for no bar.

    """
    order = np.lexsort(pairs.T[::-1])

    @lru_cache(maxsize=CACHED_IMAGES)
    def details(number: int) -> ImageDetails:
        return image_details(read_jpegs([number])[0])

    def compare(index: int) -> float:
        first, second = pairs[index].tolist()
        return copy_similarity(details(first), details(second))

    # OpenCV's own threads would compete with the pool.
    cv2.setNumThreads(1)
    result = np.zeros(len(pairs))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        values = pool.map(compare, order.tolist())
        result[order] = list(track(values, progress, total=len(pairs)) if progress and len(pairs) else values)
    return result


def _align(first: Keypoints, second: Keypoints) -> npt.NDArray[np.float64] | None:
    """Return the similarity transform (2, 3) from the first image to the second, or None if the details give none of a copy.

    Source: Fischler and Bolles 1981 (RANSAC).
    """
    if min(len(first[0]), len(second[0])) < MIN_INLIERS:
        return None
    neighbors = cv2.BFMatcher(cv2.NORM_L2).knnMatch(first[1], second[1], k=2)
    matches = [pair[0] for pair in neighbors if len(pair) == 2 and pair[0].distance < MAX_DESCRIPTOR_RATIO * pair[1].distance]
    if len(matches) < MIN_INLIERS:
        return None
    source = first[0][[match.queryIdx for match in matches]]
    target = second[0][[match.trainIdx for match in matches]]
    # RANSAC draws from a global generator.
    cv2.setRNGSeed(0)
    transform, inliers = cv2.estimateAffinePartial2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=RANSAC_ERROR_PX)
    if transform is None or int(inliers.sum()) < MIN_INLIERS:
        return None
    scale, rotation = np.hypot(transform[0, 0], transform[1, 0]), np.degrees(np.arctan2(transform[1, 0], transform[0, 0]))
    is_copy = MIN_SCALE <= scale <= MAX_SCALE and abs(rotation) <= MAX_ROTATION_DEGREES
    return np.asarray(transform, dtype=np.float64) if is_copy else None


def _unclipped(pixels: Pixels) -> npt.NDArray[np.bool_]:
    return np.asarray((pixels.min(axis=2) > DARKEST) & (pixels.max(axis=2) < BRIGHTEST))


def _agreement(first: Pixels, second: Pixels, unclipped: npt.NDArray[np.bool_]) -> float:
    """Return the share of the blocks that agree, of all or of those with detail, whichever is smaller.

    Args:
        first, second: aligned images (height, width, 3) of equal brightness.
        unclipped: pixels that both images have and that are not clipped to black or white; other pixels are no evidence.

    """
    used = _blocks(unclipped.astype(np.float32)).mean(axis=(1, 2)) >= MIN_UNCLIPPED
    first_blocks, second_blocks = _blocks(first)[used], _blocks(second)[used]
    means = first_blocks.mean(axis=1), second_blocks.mean(axis=1)
    difference = np.abs(means[0] - means[1]).max(axis=1)
    first_blocks, second_blocks = first_blocks - means[0][:, None], second_blocks - means[1][:, None]
    deviations = np.sqrt((first_blocks**2).mean(axis=(1, 2))), np.sqrt((second_blocks**2).mean(axis=(1, 2)))
    detailed = np.maximum(*deviations) >= MIN_DETAIL
    if detailed.sum() < MIN_DETAILED_BLOCKS:
        return 0.0
    correlation = (first_blocks * second_blocks).mean(axis=(1, 2)) / np.maximum(deviations[0] * deviations[1], 1e-6)
    agrees = (difference <= MAX_COLOR_DIFFERENCE) & (~detailed | (correlation >= MIN_CORRELATION))
    # Flat blocks alone are no evidence: a white background agrees with any other.
    return float(min(agrees.mean(), agrees[detailed].mean()))


def _blocks(pixels: Pixels) -> Pixels:
    """Return the pixels of each of GRID x GRID blocks, (blocks, pixels, channels)."""
    height, width = (size // GRID for size in pixels.shape[:2])
    cut = pixels[: height * GRID, : width * GRID].reshape(GRID, height, GRID, width, -1)
    return np.asarray(cut.transpose(0, 2, 1, 3, 4).reshape(GRID * GRID, height * width, -1))
