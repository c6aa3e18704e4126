"""Helpers: normally distributed points."""

import numpy as np


def normal_points(rng: np.random.Generator, count: int, shift: float = 0.0, d: int = 8) -> np.ndarray:
    """Return points (count, d) around `shift` with variance 1."""
    return (rng.normal(size=(count, d)) + shift).astype(np.float32)
