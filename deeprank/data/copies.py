"""Copies: pairs of images that show the same shot, confirmed by an alignment and by colors and details in place."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from deeprank.cpu import num_cores
from deeprank.reporting import track

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]
Keypoints = tuple[Values, Values]

# Share of agreeing windows from which a pair is a copy. Of planted copies nearly all windows agree, of coins that differ in one digit 0.86;
# the measurements, and what is not measured, are in docs/results.md.
MIN_COPY_SIMILARITY = 0.92
SIDE = 256
NUM_KEYPOINTS = 600
MAX_DESCRIPTOR_RATIO = 0.8
RANSAC_ERROR_PX = 3.0
MIN_INLIERS = 15
# With fewer keypoints an alignment of copies can fail.
MIN_KEYPOINTS = 30
# Share of the matches that agree with the alignment: of a copy more than half, of two pages of text less than a sixth.
MIN_INLIER_SHARE = 0.3
# A copy is cropped or resized, but hardly turned.
MIN_SCALE, MAX_SCALE, MAX_ROTATION_DEGREES = 0.7, 1.43, 6.0
MIN_OVERLAP = 0.6
MAX_BRIGHTNESS_RATIO = 1.5
GRID = 16
BLUR_SIGMA = 1.5
# Of a window: differences of the mean color, standard deviation of a window with detail, and correlation of its details.
MAX_COLOR_DIFFERENCE, MIN_DETAIL, MIN_CORRELATION = 16.0, 4.0, 0.8
# Pixels near black or white tell nothing of a change of brightness.
DARKEST, BRIGHTEST, BRIGHTNESS_STEP_PX = 8, 247, 3
# Share of a window that both images have.
MIN_INSIDE = 0.98
WINDOW_SIGMA_CELLS = 2.0
# Windows with detail that a confirmation needs; with fewer, only an almost equal image is a copy.
MIN_DETAILED_WINDOWS = 10
MAX_FLAT_DIFFERENCE, MAX_FLAT_WINDOW_DIFFERENCE = 1.0, 2.0
# Two sizes of one image differ by rounding.
MAX_SIZE_DIFFERENCE_PX = 4
# An image takes about 0.6 MB.
CACHED_IMAGES = 512


@dataclass(frozen=True)
class ImageDetails:
    """What is compared of an image.

    Attributes:
        pixels: (height, width, 3), RGB, short side 256, blurred.
        means: (GRID, GRID, 3) of each window.
        squares: (GRID, GRID, 3) mean squares of each window.
        is_flat: whether too few windows have details.
        keypoints: positions (n, 2) in x, y and SIFT descriptors (n, 128); none if the image is flat.

    """

    pixels: Pixels
    means: Values
    squares: Values
    is_flat: bool
    keypoints: Keypoints


def image_details(jpeg: bytes) -> ImageDetails:
    """Return what is compared of a stored image.

    Source: Lowe 2004 (SIFT), on luminance with local contrast equalization.
    """
    pixels = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    scale = SIDE / min(pixels.shape[:2])
    if scale != 1:
        size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    blurred = np.asarray(cv2.GaussianBlur(pixels, (0, 0), BLUR_SIGMA))
    means, squares = _moments(blurred)
    deviations = np.sqrt((squares - means**2).max(axis=2).clip(0))
    positions, descriptors = np.empty((0, 2), dtype=np.float32), None
    is_flat = bool((deviations >= MIN_DETAIL).sum() < MIN_DETAILED_WINDOWS)
    if not is_flat:
        luminance = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
        points, descriptors = cv2.SIFT_create(nfeatures=NUM_KEYPOINTS).detectAndCompute(luminance, None)
        positions = np.array([point.pt for point in points], dtype=np.float32).reshape(-1, 2)
    keypoints = positions, np.empty((0, 128), dtype=np.float32) if descriptors is None else descriptors
    return ImageDetails(blurred, means, squares, is_flat, keypoints)


def copy_similarity(first: ImageDetails, second: ImageDetails) -> float:
    """Return the share of windows whose color and details are the same in both images after an alignment, 0 to 1.

    Each image is aligned with the other, and the larger share counts: a smaller copy lacks the finest details of its source. Smooth
    images have too few keypoints for an alignment: they are compared in place. Of flat images only almost equal ones are copies.
    """
    if _are_almost_equal(first.pixels, second.pixels):
        return 1.0
    if first.is_flat and second.is_flat:
        return 0.0
    transform = _align(first.keypoints, second.keypoints)
    is_smooth = min(len(first.keypoints[0]), len(second.keypoints[0])) < MIN_KEYPOINTS
    if transform is None and is_smooth and _are_of_one_size(first.pixels, second.pixels):
        transform = np.eye(2, 3)
    if transform is None:
        return 0.0
    return max(_aligned_similarity(first, second, transform), _aligned_similarity(second, first, cv2.invertAffineTransform(transform)))


def _are_almost_equal(first: Pixels, second: Pixels) -> bool:
    if not _are_of_one_size(first, second):
        return False
    height, width = first.shape[:2]
    difference = cv2.absdiff(first, cv2.resize(second, (width, height)))
    if difference.mean(axis=(0, 1)).max() > MAX_FLAT_DIFFERENCE:
        return False
    # Two coins that differ in one digit differ by less than a level in the mean of all pixels.
    return bool(_window_means(difference).max() <= MAX_FLAT_WINDOW_DIFFERENCE)


def _are_of_one_size(first: Pixels, second: Pixels) -> bool:
    return max(abs(first.shape[side] - second.shape[side]) for side in (0, 1)) <= MAX_SIZE_DIFFERENCE_PX


def _aligned_similarity(moving: ImageDetails, fixed: ImageDetails, transform: npt.NDArray[np.float64]) -> float:
    """Return the share of the windows of the fixed image that agree, of all or of those with detail, whichever is smaller.

    Args:
        moving, fixed: the images.
        transform: (2, 3), maps the moving image to the fixed one.

    """
    size = fixed.pixels.shape[1::-1]
    inside = _window_means(cv2.warpAffine(np.ones(moving.pixels.shape[:2], np.uint8), transform, size, flags=cv2.INTER_NEAREST))
    if inside.mean() < MIN_OVERLAP:
        return 0.0
    # Black beyond the border would be mixed into its pixels.
    aligned = np.asarray(cv2.warpAffine(moving.pixels, transform, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    used = inside >= MIN_INSIDE
    # Brighter by the ratio, the moving image is clipped to white as a brighter copy is.
    aligned = cv2.convertScaleAbs(aligned, alpha=_brightness_ratio(aligned, fixed.pixels))
    means, squares = (moments[used] for moments in _moments(aligned))
    fixed_means, fixed_squares = fixed.means[used], fixed.squares[used]
    covariances = (_window_means(cv2.multiply(aligned, fixed.pixels, dtype=cv2.CV_32F))[used] - means * fixed_means).mean(axis=1)
    deviations = [np.sqrt((squares - means**2).mean(axis=1).clip(0)), np.sqrt((fixed_squares - fixed_means**2).mean(axis=1).clip(0))]
    detailed = np.maximum(*deviations) >= MIN_DETAIL
    if detailed.sum() < MIN_DETAILED_WINDOWS:
        return 0.0
    correlation = covariances / np.maximum(deviations[0] * deviations[1], 1e-6)
    difference = np.abs(means - fixed_means).max(axis=1)
    agrees = (difference <= MAX_COLOR_DIFFERENCE) & (~detailed | (correlation >= MIN_CORRELATION))
    # Flat windows alone are no evidence: a white background agrees with any other.
    return float(min(agrees.mean(), agrees[detailed].mean()))


def _brightness_ratio(aligned: Pixels, fixed: Pixels) -> float:
    """Return how much brighter the fixed image is, from pixels that are not near white in any channel, or near black in all."""
    sampled = [pixels[::BRIGHTNESS_STEP_PX, ::BRIGHTNESS_STEP_PX].reshape(-1, 3) for pixels in (aligned, fixed)]
    brightest = [pixels.max(axis=1) for pixels in sampled]
    unclipped = (np.minimum(*brightest) > DARKEST) & (np.maximum(*brightest) < BRIGHTEST)
    if not unclipped.any():
        return 1.0
    aligned_means, fixed_means = (pixels[unclipped].mean(axis=1) for pixels in sampled)
    return float(np.median(fixed_means / aligned_means).clip(1 / MAX_BRIGHTNESS_RATIO, MAX_BRIGHTNESS_RATIO))


def confirm_copies(
    pairs: npt.NDArray[np.int64], read_jpegs: Callable[[Sequence[int]], Sequence[bytes]], progress: str | None = None
) -> npt.NDArray[np.float64]:
    """Return the copy similarity (m,) of candidate pairs.

    Args:
        pairs: (m, 2) numbers of images.
        read_jpegs: returns the stored JPEGs of images by their numbers.
        progress: text of the progress bar; None for no bar.

    """
    # An image's pairs are one task, so that two threads do not both find its keypoints.
    order = np.lexsort(pairs.T[::-1])
    tasks = np.split(order, np.flatnonzero(np.diff(pairs[order, 0])) + 1) if len(pairs) else []

    @lru_cache(maxsize=CACHED_IMAGES)
    def details(number: int) -> ImageDetails:
        return image_details(read_jpegs([number])[0])

    def compare(indices: npt.NDArray[np.int64]) -> list[float]:
        return [copy_similarity(details(first), details(second)) for first, second in pairs[indices].tolist()]

    # OpenCV's own threads would compete with the pool.
    cv2.setNumThreads(1)
    result = np.zeros(len(pairs))
    with ThreadPoolExecutor(num_cores()) as pool:
        values = pool.map(compare, tasks)
        for indices, similarities in zip(tasks, track(values, progress, total=len(tasks)) if progress and tasks else values, strict=True):
            result[indices] = similarities
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
    if transform is None or inliers.sum() < max(MIN_INLIERS, MIN_INLIER_SHARE * len(matches)):
        return None
    scale, rotation = np.hypot(transform[0, 0], transform[1, 0]), np.degrees(np.arctan2(transform[1, 0], transform[0, 0]))
    is_copy = MIN_SCALE <= scale <= MAX_SCALE and abs(rotation) <= MAX_ROTATION_DEGREES
    return np.asarray(transform, dtype=np.float64) if is_copy else None


def _moments(pixels: Pixels) -> tuple[Values, Values]:
    """Return the means and the mean squares of the windows, (GRID, GRID, 3) each."""
    return _window_means(pixels), _window_means(cv2.multiply(pixels, pixels, dtype=cv2.CV_32F))


def _window_means(values: Pixels | Values) -> Values:
    """Return the weighted means of GRID x GRID windows, (GRID, GRID) or (GRID, GRID, channels).

    A window is a Gaussian: at its soft border an edge counts about the same in two images that are aligned to a pixel.

    Source: Wang et al. 2004 (SSIM), in cells of a quarter of the distance of two windows.
    """
    cells = cv2.resize(values.astype(np.float32), (4 * GRID, 4 * GRID), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(cells, (0, 0), WINDOW_SIGMA_CELLS)[2::4, 2::4])
