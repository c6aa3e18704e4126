"""Products drawn with Pillow and "imageed": offline demo data, test fixture and source of the scale tests.

Three levels of classes: a group (bottles), a kind (juice-bottle: shape and main design) and a variant, which differs from
its kind's other variants only in details: emblem, stripes, a word, a number, the lid's color, the label's tint. A product's
look depends on its class index only, an image on (seed, class index, image index) only.
"""

from deeprank.data.synthetic.products import label_path
from deeprank.data.synthetic.scenes import render
from deeprank.data.synthetic.writing import write_synthetic

__all__ = ["label_path", "render", "write_synthetic"]
