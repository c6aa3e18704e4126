"""Thumbnails of stored images."""

import io

from PIL import Image


def center_square(jpeg: bytes, side: int) -> Image.Image:
    """Return the center square of a stored image, resized to `side` x `side` pixels."""
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.resize((side, side), Image.Resampling.LANCZOS, box=(left, top, left + edge, top + edge))
