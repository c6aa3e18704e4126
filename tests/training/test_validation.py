"""Validation on the val split."""

import numpy as np
import pytest
import torch
from torch import nn

from deeprank.data.catalogue import Catalogue
from deeprank.models.bundle import Bundle
from deeprank.models.inference import embed_catalogue
from deeprank.training.validation import validate
from deeprank.triplets.sampling import SampleSettings, Triplets, sample_triplets


def test_validation_agrees_with_brute_force(bundle: Bundle, catalogue: Catalogue, triplets: Triplets) -> None:
    model, preprocessing = bundle.load()
    embeddings = embed_catalogue(model, preprocessing, catalogue, np.arange(len(catalogue.frame)))
    labels, rows = catalogue.frame["label"], catalogue.rows("val").tolist()
    distance = np.linalg.norm(embeddings[:, None] - embeddings, axis=2)
    hits = [
        labels[min((other for other in rows if other != row), key=lambda other, row=row: distance[row, other])] == labels[row]
        for row in rows
    ]
    ordered = [distance[t.query, t.positive] < distance[t.query, t.negative] for t in triplets.in_split("val").itertuples()]
    metrics = validate(model, preprocessing, catalogue, triplets)
    assert metrics == {"recall_at_1": pytest.approx(np.mean(hits)), "triplet_accuracy": pytest.approx(np.mean(ordered))}


def test_without_val_triplets_validation_is_empty(bundle: Bundle, catalogue: Catalogue, triplets: Triplets) -> None:
    train = Triplets(triplets.in_split("train"), triplets.fingerprint)
    assert validate(*bundle.load(), catalogue, train) == {}


def test_validation_ignores_held_out_classes(catalogue: Catalogue, triplets: Triplets, bundle: Bundle) -> None:
    labels = catalogue.frame["label"]
    drawn = triplets.in_split("val")
    held_out = labels.iloc[drawn["query"]].iloc[0]
    triplet_labels = labels.iloc[drawn[["query", "positive", "negative"]].to_numpy().ravel()].to_numpy().reshape(-1, 3)
    remaining = drawn[~(triplet_labels == held_out).any(axis=1)]
    model, preprocessing = bundle.load()
    metrics = validate(model, preprocessing, catalogue, Triplets(remaining, triplets.fingerprint))
    # Brute force over the val images of the remaining classes.
    rows = catalogue.rows("val")
    rows = rows[labels.iloc[rows].isin(labels.iloc[remaining["query"]]).to_numpy()]
    embeddings = embed_catalogue(model, preprocessing, catalogue, rows)
    hits = []
    for position, row in enumerate(rows):
        others = [other for other in range(len(rows)) if other != position]
        nearest = max(others, key=lambda other: float(embeddings[other] @ embeddings[position]))
        if (labels.iloc[rows] == labels.iloc[row]).sum() > 1:
            hits.append(labels.iloc[rows[nearest]] == labels.iloc[row])
    assert metrics["recall_at_1"] == pytest.approx(np.mean(hits))


def test_validation_uses_classes_that_are_only_negatives(catalogue: Catalogue, triplets: Triplets, bundle: Bundle) -> None:
    labels, drawn = catalogue.frame["label"], triplets.in_split("val")
    only_negative = labels.iloc[drawn["negative"]].iloc[0]
    drawn = drawn[(labels.iloc[drawn["query"]] != only_negative).to_numpy()]
    assert (labels.iloc[drawn["negative"]] == only_negative).any()
    model, preprocessing = bundle.load()
    embeddings = embed_catalogue(model, preprocessing, catalogue, np.arange(len(catalogue.frame)))
    query, positive, negative = (embeddings[drawn[name]] for name in ("query", "positive", "negative"))
    accuracy = ((query * positive).sum(1) > (query * negative).sum(1)).mean()
    assert validate(model, preprocessing, catalogue, Triplets(drawn, triplets.fingerprint))["triplet_accuracy"] == accuracy


def test_a_singleton_class_does_not_lower_the_recall(catalogue: Catalogue, bundle: Bundle) -> None:
    val = catalogue.rows("val")
    labels = catalogue.frame["label"].copy()
    labels.iloc[val] = [f"pair/{i // 2}" if i < len(val) - 1 else "singleton/x" for i in range(len(val))]
    changed = Catalogue(catalogue.uri, catalogue.version)
    changed.__dict__["frame"] = catalogue.frame.assign(label=labels)
    drawn = sample_triplets(changed.frame, SampleSettings())

    class PerfectModel(nn.Module):
        embedding_dim = 16

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.eye(16)[torch.arange(len(images)) // 2]

    assert validate(PerfectModel(), bundle.load()[1], changed, drawn)["recall_at_1"] == 1
