"""Validation of a model on the val split."""

import faiss
import numpy as np

from deeprank.data.catalogue import Catalogue
from deeprank.models.embedding_model import Embedder
from deeprank.models.inference import embed_catalogue
from deeprank.models.preprocessing import Preprocessing
from deeprank.row_numbers import CatalogueRows
from deeprank.triplets.sampling import Triplets

# The metric of early stopping and of schedules that depend on the validation.
VALIDATION_METRIC = "val.recall_at_1"


def validate(model: Embedder, preprocessing: Preprocessing, catalogue: Catalogue, triplets: Triplets) -> dict[str, float]:
    """Return recall_at_1 (leave one out) and triplet_accuracy on the val images of the classes in the val triplets.

    Held-out classes are in no triplet and do not count. Without val triplets the result is empty.
    """
    val_triplets = triplets.in_split("val")[["query", "positive", "negative"]]
    if not len(val_triplets):
        return {}
    labels = catalogue.frame["label"]
    rows = catalogue.rows("val")
    rows = CatalogueRows(rows[labels.iloc[rows].isin(labels.iloc[val_triplets.to_numpy().ravel()]).to_numpy()])
    embeddings = embed_catalogue(model, preprocessing, catalogue, rows)
    position = np.full(len(catalogue.frame), -1)
    position[rows] = np.arange(len(rows))
    query, positive, negative = (embeddings[position[val_triplets[name]]] for name in ("query", "positive", "negative"))
    # One of the two nearest may be the image itself. faiss works in blocks, so that not all pairs are in memory at once.
    _, neighbors = faiss.knn(embeddings, embeddings, 2, metric=faiss.METRIC_INNER_PRODUCT)
    nearest = np.where(neighbors[:, 0] == np.arange(len(neighbors)), neighbors[:, 1], neighbors[:, 0])
    val_labels = labels.to_numpy()[rows]
    _, class_numbers, class_sizes = np.unique(val_labels, return_inverse=True, return_counts=True)
    has_positive = class_sizes[class_numbers] > 1
    return {
        "recall_at_1": float((val_labels[nearest] == val_labels)[has_positive].mean()),
        "triplet_accuracy": float(((query * positive).sum(1) > (query * negative).sum(1)).mean()),
    }
