"""Products drawn with Pillow and "photographed": offline demo data, test fixture and source of the scale tests.

Three levels of classes: a group (bottles), a kind (juice-bottle: shape and main design) and a variant, which differs from
its kind's other variants only in details: emblem, stripes, a word, a number, the lid's colour, the label's tint. A product's
look depends on its class index only, a photograph on (seed, class index, image index) only.
"""

from deeprank.data.rendered.photographing import render
from deeprank.data.rendered.products import label_path
from deeprank.data.rendered.writing import write_rendered

__all__ = ["label_path", "render", "write_rendered"]
