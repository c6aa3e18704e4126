"""The circles of the map do not overlap and lie inside it."""

import numpy as np

from deeprank.search.bubble_map import MAP_SIZE, separate_circles


def test_circles_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    radii = rng.uniform(1, 4, 60)
    centers = separate_circles(rng.uniform(20, 40, (60, 2)), radii)
    distances = np.linalg.norm(centers[:, None] - centers, axis=2) + 1e3 * np.eye(60)
    assert (distances >= radii[:, None] + radii - 0.5).all()
    assert (centers >= radii[:, None] - 1e-9).all()
    assert (centers <= MAP_SIZE - radii[:, None] + 1e-9).all()
