"""Types of the arrays that this package passes around."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

# (n, d), of unit length unless a docstring says otherwise.
Vectors: TypeAlias = npt.NDArray[np.float32]
# Euclidean, 0 to 2; infinite where there is no neighbor.
Distances: TypeAlias = npt.NDArray[np.float64]
# (n,), the cluster of each image.
Assignments: TypeAlias = npt.NDArray[np.int64]
