"""Synthetic images of products in scenes, drawn with Pillow: demo data without a download, test fixture, and data for benchmarks.

Classes have three levels: a category (bottles), a kind (juice-bottle: shape and main design) and a variant. The variants of a kind
differ only in details: emblem, stripes, a word, a number, the color of the lid, the tint of the label. The design of a product
depends on its class index only. An image depends on (seed, class index, image index) only.
"""

from deeprank.data.synthetic.products import label_path
from deeprank.data.synthetic.scenes import draw_image
from deeprank.data.synthetic.writing import write_synthetic

__all__ = ["draw_image", "label_path", "write_synthetic"]
