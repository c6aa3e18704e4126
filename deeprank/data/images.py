"""Convert the bytes of any image file into the form that is stored, trained on and searched with."""

import hashlib
import io
import warnings
from dataclasses import dataclass
from functools import lru_cache

import imagehash
import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from deeprank.errors import DataError

MAX_SHORT_SIDE = 256
JPEG_QUALITY = 95
MAX_PIXELS = 178_956_970
MIN_SHORT_SIDE = 16
MAX_LONG_SIDE = 65_500  # the limit of the JPEG format
# The formats of cameras and of the web. EPS and similar formats are excluded, because Pillow starts other programs to read them.
IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "PPM", "ICO", "JPEG2000")
HEAD_BYTES = 32
NOT_AN_IMAGE = "not an image in a format that can be read"
HEIC = "HEIC image, which is not supported: convert it to JPEG"
# Brands of the ISO base media file format that mark a still image of a phone.
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# A drawing whose visible pixels are mostly at or above NEAR_WHITE in all channels would vanish on white.
NEAR_WHITE = 208
LIGHT_DRAWING_BACKGROUND = (96, 96, 96, 255)
MAX_SAMPLE_SIDE = 512
UNUSABLE_PROFILE = "color profile that is damaged or of another color space: the colors are not converted"


@dataclass(frozen=True)
class StoredImage:
    """A decoded image in its stored form: sRGB, upright, short side at most 256 pixels.

    Attributes:
        jpeg: the stored form as a baseline JPEG.
        width: of the stored form, in pixels.
        height: of the stored form, in pixels.
        phash: 64-bit perceptual hash of the stored form.
        conversion: what was converted, for example "converted from CMYK to RGB"; empty for an ordinary image.

    """

    jpeg: bytes
    width: int
    height: int
    phash: int
    conversion: str


def sha256(data: bytes) -> str:
    """Return the id of an image: the SHA-256 of its file's bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def reject_reason(head: bytes) -> str:
    """Return why a file is no image that can be read; empty where its first HEAD_BYTES bytes are those of a supported format."""
    Image.init()
    if not head:
        return "the file is empty"
    for image_format in IMAGE_FORMATS:
        accept = Image.OPEN[image_format][1] if image_format in Image.OPEN else None
        # Pillow returns a text where the format is known but its library is missing.
        if accept and accept(head[:16]) is not False and not isinstance(accept(head[:16]), str):
            return ""
    return HEIC if head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS else NOT_AN_IMAGE


def to_stored_image(data: bytes) -> StoredImage:
    """Convert the bytes of an image file into the stored form that catalogue images and query images share.

    Raises:
        DataError: the file is not an image, is damaged, or the image is too small or too large.

    """
    image, jpeg, conversions = _convert(data)
    phash = int(str(imagehash.phash(image)), 16)
    return StoredImage(jpeg, image.width, image.height, phash, "; ".join(conversions))


def to_stored_jpeg(data: bytes) -> bytes:
    """Convert the bytes of an image file into the JPEG of its stored form, without the perceptual hash.

    Raises:
        DataError: as `to_stored_image`.

    """
    return _convert(data)[1]


def _convert(data: bytes) -> tuple[Image.Image, bytes, list[str]]:
    """Return the stored form as pixels and as JPEG, and the conversions made."""
    image, profile, conversions = _decode(data)
    scale = MAX_SHORT_SIDE / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC, reducing_gap=2.0)
    if max(image.size) > MAX_LONG_SIDE:
        raise DataError(
            f"the image would be stored as {image.width} x {image.height} pixels, but a JPEG has at most {MAX_LONG_SIDE} a side"
        )
    # A color profile is applied to the few pixels of the stored form.
    image = _to_srgb(image, profile, conversions)
    buffer = io.BytesIO()
    image.info.clear()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return image, buffer.getvalue(), conversions


def _decode(data: bytes) -> tuple[Image.Image, bytes | None, list[str]]:
    """Return the upright image, at least twice the stored size where the file allows it, its color profile, and the conversions made."""
    if not data:
        raise DataError("the file is empty")
    conversions: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"the image has {image.width} x {image.height} pixels; at most {MAX_PIXELS} pixels are allowed")
            # A JPEG decoder can shrink by 2, 4 or 8 while decoding, which is several times faster.
            image.draft("RGB", (2 * MAX_SHORT_SIDE, 2 * MAX_SHORT_SIDE))
            image.load()
    except UnidentifiedImageError:
        raise DataError(reject_reason(data[:HEAD_BYTES]) or _unidentified(data)) from None
    except Image.DecompressionBombError:
        raise DataError(f"the image has too many pixels; at most {MAX_PIXELS} pixels are allowed") from None
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise exceptions of any type on damaged files.
        raise DataError(f"damaged or truncated image: {error}") from None
    if min(image.size) < MIN_SHORT_SIDE:
        raise DataError(f"the image has {image.width} x {image.height} pixels; its short side needs at least {MIN_SHORT_SIDE}")
    if getattr(image, "is_animated", False):
        conversions.append("animated image: only the first frame is used")
    return _to_8_bit(_to_upright(image, conversions), conversions), image.info.get("icc_profile"), conversions


def _to_upright(image: Image.Image, conversions: list[str]) -> Image.Image:
    """Return the image rotated and mirrored by its EXIF orientation."""
    try:
        image.getexif()
        # Pillow would write the other EXIF fields again, which fails where one of them is damaged.
        for key in ("exif", "Raw profile type exif"):
            image.info.pop(key, None)
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow's EXIF reader raises exceptions of any type on damaged data.
        conversions.append("damaged EXIF data: the image is not rotated")
        return image


def _to_8_bit(image: Image.Image, conversions: list[str]) -> Image.Image:
    """Return the image as 8-bit RGB, grayscale or CMYK without transparency."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow's own conversion of such a grayscale image clips its values instead of scaling them.
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise DataError("the image has NaN or infinite pixel values")
        white = 65535.0 if image.mode.startswith("I;16") or values.max() > 255 else 255.0 if values.max() > 1 else 1.0
        image = Image.fromarray((values / white * 255).clip(0, 255).astype(np.uint8))
        conversions.append("converted from 16-bit to 8-bit grayscale")
    elif image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        light = _is_light_drawing(layer)
        image = Image.alpha_composite(Image.new("RGBA", layer.size, LIGHT_DRAWING_BACKGROUND if light else "white"), layer)
        conversions.append(f"transparent pixels blended with {'gray, because the visible pixels are nearly white' if light else 'white'}")
    elif image.mode in ("CMYK", "YCCK"):
        conversions.append(f"converted from {image.mode} to RGB")
    return image if image.mode in ("L", "CMYK") else image.convert("RGB")


def _to_srgb(image: Image.Image, profile: object, conversions: list[str]) -> Image.Image:
    """Return the image as RGB with the colors of sRGB; an image without an ICC profile has them already."""
    if not isinstance(profile, bytes):
        return image.convert("RGB")
    # Programs keep the RGB profile of an image that they convert to grayscale.
    if image.mode == "L" and profile[16:20] == b"RGB ":
        image = image.convert("RGB")
    if image.mode == "RGB" and profile[16:20] == b"GRAY":
        image = image.convert("L")
    try:
        return _srgb_transform(profile, image.mode).apply(image)
    except (OSError, ValueError):
        conversions.append(UNUSABLE_PROFILE)
        return image.convert("RGB")


@lru_cache(maxsize=16)
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.ImageCmsTransform(source, target, mode, "RGB")


def _is_light_drawing(layer: Image.Image) -> bool:
    """Return whether an RGBA image has transparent pixels, and more than half of its visible pixels are nearly white."""
    size = (min(layer.width, MAX_SAMPLE_SIDE), min(layer.height, MAX_SAMPLE_SIDE))
    pixels = np.asarray(layer.resize(size, Image.Resampling.NEAREST))
    alpha = pixels[..., 3].astype(np.int64)
    near_white = pixels[..., :3].min(axis=2) >= NEAR_WHITE
    return bool(alpha.min() < 255 and 2 * alpha[near_white].sum() > alpha.sum())


def _unidentified(data: bytes) -> str:
    """Return the reason for a file that begins like an image but is none: HEIC shares two brands with AVIF."""
    return HEIC if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS else "damaged or truncated image: its header cannot be read"
