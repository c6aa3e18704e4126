"""The printed front tells the variants of a kind apart."""

import numpy as np
import pytest

from deeprank.data.synthetic.prints import draw_front
from deeprank.data.synthetic.products import KINDS, variant_details


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_variants_of_a_kind_differ_on_the_front(kind: int) -> None:
    fronts = [np.asarray(draw_front(KINDS[kind], variant_details(kind, v), 96, 128), np.float32) for v in range(5)]
    for a in range(5):
        for b in range(a):
            changed = (np.abs(fronts[a] - fronts[b]).max(-1) > 24).mean()
            assert changed > 0.01, f"variants {a} and {b} look the same"
    assert len({variant_details(kind, v) for v in range(300)}) == 300
