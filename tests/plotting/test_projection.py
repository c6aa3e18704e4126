"""Any number of points has positions in the plane."""

import numpy as np
import pytest

from deeprank.plotting.projection import project_to_plane


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_few_points_have_distinct_positions(embeddings: np.ndarray, count: int) -> None:
    positions = project_to_plane(embeddings[:count])
    assert positions.shape == (count, 2)
    assert len(np.unique(positions, axis=0)) == count
