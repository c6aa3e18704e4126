"""The figure of the index shows every kind, the Pareto front and the chosen search parameters."""

from typing import get_args

import pandas as pd

from deeprank.plotting.index import KIND_MARKERS, autotune_curve
from deeprank.search.search_params import IndexKind


def test_every_kind_has_a_marker() -> None:
    assert tuple(KIND_MARKERS) == get_args(IndexKind)
    assert len(set(KIND_MARKERS.values())) == len(KIND_MARKERS)


def test_chosen_params_have_a_ring_and_the_front_is_joined() -> None:
    table = pd.DataFrame(
        {
            "search_params": ["exact", "ivf_flat, nprobe 1", "ivf_flat, nprobe 2"],
            "kind": ["exact", "ivf_flat", "ivf_flat"],
            "recall_at_10": [1.0, 0.9, 0.95],
            "latency_ms": [10.0, 1.0, 20.0],
            "pareto_optimal": [True, True, False],
        }
    )
    (axes,) = autotune_curve(table, "ivf_flat, nprobe 1", 0.85).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(KIND_MARKERS)
    assert axes.collections[-1].get_offsets().tolist() == [[1.0, 0.9]]
    assert axes.texts[0].get_text() == "ivf_flat, nprobe 1"
    front, required = axes.lines
    assert front.get_xydata().tolist() == [[1.0, 0.9], [10.0, 1.0]]
    assert set(required.get_ydata()) == {0.85}
