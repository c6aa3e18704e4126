"""From the bytes of any image file to the one form in which the project stores, trains on and searches with it."""

import hashlib
import io
import warnings
from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from deeprank.errors import DataError

SHORT_SIDE = 256
JPEG_QUALITY = 95
MAX_PIXELS = 178_956_970
SMALLEST_SIDE = 16
# What cameras and the web make; not EPS and the like, which Pillow hands to other programs.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "PPM", "ICO", "JPEG2000")
LONGEST_SIDE = 65_500  # of a JPEG


@dataclass(frozen=True)
class StoredImage:
    """A verified image: RGB, turned as EXIF says, short side at most 256 px.

    Attributes:
        jpeg: the stored form, a baseline JPEG.
        width, height: of the stored form, in pixels.
        phash: 64-bit perceptual hash of the stored form.
        remark: what was converted on the way, in words; empty for an ordinary image.

    """

    jpeg: bytes
    width: int
    height: int
    phash: int
    remark: str


def sha256(data: bytes) -> str:
    """Return the identity of an image: the SHA-256 of its file's bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def canonical(data: bytes) -> StoredImage:
    """Decode the bytes of an image file into its stored form; queries and catalogue rows alike go through here.

    Raises:
        DataError: the bytes are no image, are truncated, or the image is too small or too large.

    """
    image, jpeg, remarks = _store(data)
    phash = int(str(imagehash.phash(image)), 16)
    return StoredImage(jpeg, image.width, image.height, phash, "; ".join(remarks))


def stored_jpeg(data: bytes) -> bytes:
    """Return the stored form alone, of an image that is only asked with: it needs no hash; raises as `canonical`."""
    return _store(data)[1]


def _store(data: bytes) -> tuple[Image.Image, bytes, list[str]]:
    image, remarks = _decode(data)
    scale = SHORT_SIDE / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC, reducing_gap=2.0)
    if max(image.size) > LONGEST_SIDE:
        raise DataError(f"{image.width} x {image.height} pixels: a stored image has at most {LONGEST_SIDE} on its long side")
    buffer = io.BytesIO()
    image.info.clear()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return image, buffer.getvalue(), remarks


def _decode(data: bytes) -> tuple[Image.Image, list[str]]:
    if not data:
        raise DataError("the file is empty")
    remarks: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{image.width} x {image.height} pixels are more than the {MAX_PIXELS} allowed")
            # A JPEG decoder can shrink by 2, 4 or 8 while decoding, which is several times faster.
            image.draft("RGB", (2 * SHORT_SIDE, 2 * SHORT_SIDE))
            image.load()
    except UnidentifiedImageError:
        raise DataError("not an image in a format that can be read") from None
    except Image.DecompressionBombError as error:
        raise DataError(str(error)) from None
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        raise DataError(f"damaged or truncated image: {error}") from None
    if min(image.size) < SMALLEST_SIDE:
        raise DataError(f"{image.width} x {image.height} pixels are too few: the short side needs {SMALLEST_SIDE}")
    if getattr(image, "is_animated", False):
        remarks.append("animated: first frame used")
    return _to_rgb(_turned(image, remarks), remarks), remarks


def _turned(image: Image.Image, remarks: list[str]) -> Image.Image:
    try:
        image.getexif()
        # Read by now. Pillow would write the other fields anew, which nobody wants and which damaged ones do not survive.
        for key in ("exif", "Raw profile type exif"):
            image.info.pop(key, None)
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow's reader of EXIF raises whatever it stumbles over
        remarks.append("damaged EXIF: not turned")
        return image


def _to_rgb(image: Image.Image, remarks: list[str]) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow clips instead of scaling when it converts deep greyscale.
        deep = np.asarray(image, dtype=np.float64)
        if not np.isfinite(deep).all():
            raise DataError("pixels that are no numbers")
        top = 65535.0 if image.mode.startswith("I;16") or deep.max() > 255 else 255.0 if deep.max() > 1 else 1.0
        image = Image.fromarray((deep / top * 255).clip(0, 255).astype(np.uint8))
        remarks.append("16-bit greyscale: scaled to 8 bits")
    elif image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        remarks.append("transparent: laid on white")
    elif image.mode in ("CMYK", "YCCK"):
        remarks.append("CMYK: converted to RGB")
    return image.convert("RGB")
