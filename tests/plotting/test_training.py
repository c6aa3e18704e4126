"""Training curves."""

import pandas as pd

from deeprank.plotting.training import curves


def test_curves_have_a_panel_per_metric() -> None:
    points = pd.DataFrame({"name": ["loss", "recall", "loss"], "value": [2.0, 0.5, 1.0], "step": [1, 1, 2]})
    panels = curves(points).axes
    assert [panel.get_title() for panel in panels] == ["loss", "recall"]
    assert panels[0].lines[0].get_ydata().tolist() == [2.0, 1.0]
