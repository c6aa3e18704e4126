"""Projection of embeddings to the plane."""

import numpy as np
import numpy.typing as npt


def project_to_plane(points: npt.NDArray[np.float32], seed: int = 0) -> npt.NDArray[np.float32]:
    """Return the positions (n, 2) of points (n, d) in the plane by t-SNE; fewer than four points lie on a line.

    Source: van der Maaten & Hinton 2008.

    """
    from sklearn.manifold import TSNE

    if len(points) < 4:
        return np.stack([np.arange(len(points)), np.zeros(len(points))], axis=1).astype(np.float32)
    perplexity = min(30.0, max(2.0, (len(points) - 1) / 4))
    positions: npt.NDArray[np.float32] = TSNE(init="pca", perplexity=perplexity, max_iter=500, random_state=seed).fit_transform(points)
    return positions
