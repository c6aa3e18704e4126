"""Define the products: a table of kinds, the details of their variants, and the label path of each class."""

from dataclasses import KW_ONLY, dataclass

from PIL import ImageColor

from deeprank.data.synthetic.types import Color
from deeprank.errors import DataError

VARIANTS_PER_CYCLE = 3  # consecutive class indices of the same kind


@dataclass(frozen=True, slots=True)
class Kind:
    """Shape and main design that all variants of a kind share; the colors are as Pillow names them.

    Attributes:
        category: name of the top level of the label path.
        name: of the kind.
        shape: key of the shape's dimensions (see `shapes`).
        body_color: of the product's body.
        cap_color: of the cap, lid or inner bag.
        paper_color: of the label's background.
        ink_color: of the brand's text or its plate.
        motif_color: main color of the motif.
        brand: text on the front.
        motif: key of the motif (see `prints`).
        pattern: name of the background pattern.
        layout: index of the front's layout.
        gloss: strength of the highlights, 0 to 1.

    """

    category: str
    name: str
    shape: str
    body_color: str
    cap_color: str
    paper_color: str
    ink_color: str
    motif_color: str
    brand: str
    motif: str
    pattern: str
    _: KW_ONLY
    layout: int
    gloss: float


@dataclass(frozen=True, slots=True)
class VariantDetails:
    """Details in which one variant of a kind differs from the others.

    Attributes:
        emblem: key of the emblem's outline (see `prints`).
        emblem_on_right: whether the emblem is on the right side of the front.
        stripes: number of stripes at the bottom.
        word: text on the front.
        number: on the front; unique among the variants of a kind.
        accent_color: of emblem, number and stripes.
        label_shade: strength of the accent color in the label's background: 0, 1 or 2.

    """

    emblem: str
    emblem_on_right: bool
    stripes: int
    word: str
    number: int
    accent_color: Color
    label_shade: int


# One kind a line, with the attributes of Kind in their order.
KIND_TABLE = """
bottles juice-bottle flask #f0972b #3c8c3f #fff4dc #d9541e #f6a21e SUNNA orange rays 0 .7
boxes cereal-box tall #e7b64a #c98f28 #fbe3a0 #b3341f #f3c04b Krispo bowl wave 1 .1
jars jam-jar jar #8e1630 #e9dfd0 #fffaf0 #8e1f3d #c22a4e Maribel berry frame 0 .6
tins soup-tin can #b9bdc2 #c9cdd2 #f7efe0 #b8261f #e0452e Campo tomato split 2 .5
pouches coffee-pouch pouch #3b2418 #2c1a10 #4a2d1e #e9cf9c #c58b45 MOKKA bean frame 1 .5
cups yogurt-cup cup #f6f7f5 #dfe5ea #f4f8fb #2b6fae #e56b8c Almi flower wave 0 .4
bottles wine-bottle wine #1f2d20 #5a1423 #f3ead6 #3a2a20 #7c1f33 Monteval grape frame 3 .8
boxes tea-box wide #2f6b4a #24543a #d8e6c8 #1f5a3c #8cb56a Ceylona leaf stripe 3 .1
jars honey-jar squat #d98a16 #f0c24a #fff3cf #7a4a10 #e8a41f Beehall comb dots 1 .7
tins fish-tin flat #c3c8cc #d3d6d9 #dcecf4 #1d4e7c #e2b23c Atlantis fish wave 2 .7
pouches crisps-bag bag #d42b2b #b32020 #e23a30 #fff3d0 #f5c430 Chipsy sun rays 1 .8
cups ice-cream-tub tub #f3d7df #8e5a3c #fbe7ec #7a3b52 #e58aa5 Gelina cone dots 2 .3
bottles ketchup-bottle squeeze #b81f1c #f4f1ea #d3291f #fff1d6 #ec5a34 Rosso tomato dots 1 .8
boxes biscuit-box long #2b4f8e #203f74 #e7eefb #23468a #d9a050 Biskwi biscuit diagonal 2 .1
jars pickle-jar jar #7f9a3a #4f7a35 #f4f6df #3f6b2c #a8bf4d Gurkin chili stripe 1 .6
tins soda-can soda #c8ccd0 #d4d7da #1e8fb3 #f4fbff #f2d43d ZIPP bolt diagonal 1 .8
pouches rice-pouch pouch #efe7d2 #dccfae #f5efdf #5d6b2a #c2a14a Basmara wheat split 0 .2
cups noodle-cup cup #e4502e #d4d7da #f05a33 #fff4d8 #f7c63a Ramenko bowl rays 1 .2
bottles water-bottle flask #a9d4e8 #2a6fb5 #e9f6fc #1f5fa6 #6db7dd Fonta mountain wave 2 .9
boxes milk-carton carton #f3f6f8 #d8e2ea #eef5fb #1f63a8 #6fb2e0 Lattea drop split 0 .2
jars spice-jar slim #a3521d #2a2a2a #f6e7c8 #6b2f12 #d7792b Safari chili frame 2 .6
tins coffee-tin can #8c2a22 #d6b25a #9c2f26 #f6e2b4 #d6b25a Torino bean plain 3 .5
pouches pasta-bag bag #27508f #1e4079 #2f5fa8 #fff3d8 #f1c545 Pastello wheat stripe 0 .6
cups butter-tub tub #f6e27a #e3b92d #fdf3b5 #2f7d3c #f2c12e Auenhof flower plain 2 .3
"""
KINDS = tuple(
    Kind(*texts, layout=int(layout), gloss=float(gloss)) for *texts, layout, gloss in map(str.split, KIND_TABLE.strip().splitlines())
)
WORDS = ("classic", "mild", "extra", "light", "fresh", "natur", "gold", "bio", "pure", "rich", "family", "spicy", "sweet", "zero",
         "select", "farm", "finest", "tender", "royal")  # fmt: skip
ACCENT_COLORS = ["#d8432f", "#2f6fd0", "#3a9a4a", "#e6a91f", "#7d4bb0", "#1f9c9c", "#d65a94", "#5a4636"]
EMBLEMS = ["star", "heart", "leaf", "drop", "flower", "diamond", "crown", "moon", "sun", "bolt", "fish", "petals", "mountain"]


def mix_colors(color: Color, other: Color = "#000", weight: float = 0) -> tuple[int, ...]:
    """Return the mixture of two colors; `weight` (0 to 1) is that of the other one."""
    first, second = (ImageColor.getrgb(c) if isinstance(c, str) else c for c in (color, other))
    return tuple(round(a + (b - a) * weight) for a, b in zip(first, second, strict=True))


def kind_and_variant(class_index: int) -> tuple[int, int]:
    """Return the index into KINDS and the variant number (from 0) of a class.

    Raises:
        DataError: the class index is negative.

    """
    if class_index < 0:
        raise DataError(f"class_index must be 0 or more, not {class_index}")
    cycle, position = divmod(class_index, len(KINDS) * VARIANTS_PER_CYCLE)
    return position // VARIANTS_PER_CYCLE, cycle * VARIANTS_PER_CYCLE + position % VARIANTS_PER_CYCLE


def variant_details(kind_index: int, variant: int) -> VariantDetails:
    """Return the details of a variant; consecutive variants differ in all of them."""
    v = variant + 5 * kind_index
    accent_color = mix_colors(ACCENT_COLORS[v * 3 % len(ACCENT_COLORS)], "#888", 0.12 * (v // 8 % 3))
    emblem, word = EMBLEMS[v * 5 % len(EMBLEMS)], WORDS[v * 7 % len(WORDS)]
    return VariantDetails(emblem, v % 2 == 1, 1 + v % 4, word, 11 + 7 * variant, accent_color, v % 3)


def label_path(class_index: int) -> tuple[str, str, str]:
    """Return category, kind and variant of a class, such as ("bottles", "juice-bottle", "juice-bottle-03")."""
    kind_index, variant = kind_and_variant(class_index)
    kind = KINDS[kind_index]
    return kind.category, kind.name, f"{kind.name}-{variant + 1:02d}"
