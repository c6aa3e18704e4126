"""Helpers: points on the unit sphere in separate groups."""

import numpy as np


def blobs(count: int, size: int, spread: float = 0.05, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return shuffled points (count * size, d) of unit length around `count` centers, and the center of each."""
    rng = np.random.default_rng(0)
    centers = np.eye(d)[np.arange(count) % d] * np.where(np.arange(count) < d, 1, -1)[:, None]
    points = np.repeat(centers, size, axis=0) + rng.normal(scale=spread, size=(count * size, d))
    order = rng.permutation(len(points))
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    return unit[order].astype(np.float32), np.repeat(np.arange(count), size)[order]
