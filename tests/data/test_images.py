"""Any image file is converted to the stored form, or refused with a reason."""

import io
import struct
import zlib

import imagehash
import numpy as np
import pytest
from PIL import Image

from deeprank.data.images import (
    HEAD_BYTES,
    JPEG_QUALITY,
    MAX_PIXELS,
    MAX_SHORT_SIDE,
    reject_reason,
    sha256,
    to_stored_image,
    to_stored_jpeg,
)
from deeprank.errors import DataError
from tests.data.conftest import ODD_FILES, odd_file
from tests.drawing import decoded, encoded, pattern

QUADRANTS = np.zeros((64, 96, 3), dtype=np.uint8)
QUADRANTS[:32, :48], QUADRANTS[:32, 48:], QUADRANTS[32:, :48] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
# EXIF orientation -> how a camera that writes it transposes the upright image.
TRANSPOSITIONS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def _png(width: int, height: int, depth: int, pixels: bytes) -> bytes:
    """Return a color PNG with a bit depth or with pixels that Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("size", "stored_size"),
    [((1024, 512), (512, 256)), ((512, 1024), (256, 512)), ((3000, 2000), (384, 256)), ((256, 256), (256, 256)), ((40, 90), (40, 90))],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_short_side_is_reduced_to_256_pixels(size: tuple[int, int], stored_size: tuple[int, int], kind: str) -> None:
    result = to_stored_image(encoded(pattern(1, size), kind))
    assert (result.width, result.height) == stored_size
    with Image.open(io.BytesIO(result.jpeg)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", stored_size)
    assert min(stored_size) <= MAX_SHORT_SIDE


def test_the_stored_pixels_are_close_to_the_original() -> None:
    original = pattern(2, (200, 120))
    assert JPEG_QUALITY >= 92
    assert np.abs(decoded(to_stored_image(encoded(original)).jpeg) - np.asarray(original, np.float32)).mean() < 2


def test_equal_bytes_give_equal_images() -> None:
    data = encoded(pattern(3, (400, 300)), "JPEG")
    assert to_stored_image(data) == to_stored_image(data)


def test_the_id_is_the_sha_256_of_the_bytes() -> None:
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_perceptual_hash_is_robust_to_size_and_format() -> None:
    original = pattern(4, (320, 320))
    result = to_stored_image(encoded(original))
    assert result.phash == int(str(imagehash.phash(original.resize((256, 256), Image.Resampling.BICUBIC))), 16)
    smaller = to_stored_image(encoded(original.resize((200, 200)), "JPEG", quality=60))
    other = to_stored_image(encoded(pattern(5, (320, 320))))
    assert (result.phash ^ smaller.phash).bit_count() <= 4
    assert (result.phash ^ other.phash).bit_count() > 10


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not an image at all", "not an image"),
        (b"\xff\xd8\xff\xe0 no JPEG data", "not an image|damaged"),
        (encoded(pattern(1, (200, 200)), "JPEG")[:2000], "damaged or truncated"),
        (encoded(pattern(1, (200, 200)), "PNG")[:2000], "damaged or truncated"),
        (encoded(pattern(1, (200, 200)), "GIF")[:2000], "damaged or truncated"),
        (encoded(pattern(1, (200, 15))), "the image has 200 x 15 pixels; its short side needs at least 16"),
    ],
    ids=["zero bytes", "text", "JPEG magic only", "truncated JPEG", "truncated PNG", "truncated GIF", "too small"],
)
def test_an_unusable_file_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        to_stored_image(data)


def test_too_many_pixels_are_refused_before_decoding() -> None:
    width, height = 20_000, 20_000
    assert width * height > MAX_PIXELS
    with pytest.raises(DataError, match="too many pixels; at most 178956970 pixels are allowed"):
        to_stored_image(_png(width, height, 8, b"no pixels"))


def test_only_the_first_frame_of_an_animation_is_used() -> None:
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "lime", "blue")]
    result = to_stored_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert result.conversion == "animated image: only the first frame is used"
    assert np.allclose(decoded(result.jpeg).mean((0, 1)), (255, 0, 0), atol=4)


def test_cmyk_is_converted_to_the_same_colors_in_rgb() -> None:
    result = to_stored_image(encoded(Image.new("RGB", (64, 64), (200, 60, 120)).convert("CMYK"), "JPEG", quality=95))
    assert result.conversion == "converted from CMYK to RGB"
    assert np.allclose(decoded(result.jpeg).mean((0, 1)), (200, 60, 120), atol=6)


def test_16_bit_gray_is_scaled_and_not_clipped() -> None:
    deep = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    result = to_stored_image(encoded(Image.fromarray(deep)))
    assert result.conversion == "converted from 16-bit to 8-bit grayscale"
    assert np.allclose(decoded(result.jpeg)[..., 0], deep / 257, atol=5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinite_pixels_are_refused(value: float) -> None:
    deep = np.full((32, 32), 0.5, dtype=np.float32)
    deep[3, 3] = value
    with pytest.raises(DataError, match="NaN or infinite pixel values"):
        to_stored_image(encoded(Image.fromarray(deep), "TIFF"))


def test_a_16_bit_color_png_is_scaled() -> None:
    rows = np.full((32, 32, 3), (65535, 32896, 0), dtype=">u2")
    data = _png(32, 32, 16, b"".join(b"\0" + row.tobytes() for row in rows))
    assert np.allclose(decoded(to_stored_image(data).jpeg).mean((0, 1)), (255, 128, 0), atol=4)


def test_transparent_palette_pixels_become_white() -> None:
    palette = Image.new("P", (64, 64), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(1, (32, 0, 64, 64))
    result = to_stored_image(encoded(palette, transparency=0))
    pixels = decoded(result.jpeg)
    assert result.conversion == "transparent pixels blended with white"
    assert np.allclose(pixels[:, :28].mean((0, 1)), 255, atol=4)
    assert np.allclose(pixels[:, 36:].mean((0, 1)), (0, 0, 255), atol=6)


@pytest.mark.parametrize(("mode", "color", "expected"), [("RGBA", (200, 0, 0, 128), (227, 127, 127)), ("LA", (0, 128), (127, 127, 127))])
def test_half_transparent_pixels_are_blended_with_white(mode: str, color: tuple[int, ...], expected: tuple[int, ...]) -> None:
    result = to_stored_image(encoded(Image.new(mode, (64, 64), color)))
    assert np.allclose(decoded(result.jpeg).mean((0, 1)), expected, atol=4)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_other_color_modes_are_converted_without_a_message(mode: str) -> None:
    result = to_stored_image(encoded(pattern(6).convert(mode)))
    assert (result.conversion, decoded(result.jpeg).shape) == ("", (64, 64, 3))


@pytest.mark.parametrize("orientation", TRANSPOSITIONS)
def test_an_image_is_rotated_by_its_exif_orientation(orientation: int) -> None:
    upright = Image.fromarray(QUADRANTS)
    transposition = TRANSPOSITIONS[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    stored = upright if transposition is None else upright.transpose(transposition)
    result = to_stored_image(encoded(stored, "JPEG", quality=95, subsampling=0, exif=exif))
    assert (result.width, result.height) == upright.size
    assert np.abs(decoded(result.jpeg) - QUADRANTS).mean() < 4
    with Image.open(io.BytesIO(result.jpeg)) as image:
        assert 274 not in image.getexif()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0XX*\0\x08\0\0\0\0\0"])
def test_an_image_with_damaged_exif_data_is_usable(kind: str, exif: bytes) -> None:
    result = to_stored_image(encoded(pattern(7), kind, exif=exif))
    assert (result.width, result.height) == (64, 64)
    assert to_stored_jpeg(encoded(pattern(7), kind, exif=exif))


def test_the_orientation_beside_a_damaged_exif_field_counts() -> None:
    # Orientation 6, then ResolutionUnit with two letters instead of a number.
    fields = struct.pack("<HHHIHxxHHI4s", 2, 274, 3, 1, 6, 296, 2, 2, b"x\0\0\0")
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + fields + bytes(4)
    result = to_stored_image(encoded(pattern(7).resize((96, 64)), "JPEG", exif=exif))
    assert (result.width, result.height) == (64, 96)


@pytest.mark.parametrize("name", ODD_FILES)
def test_an_odd_file_is_an_image_or_a_data_error(name: str) -> None:
    try:
        result = to_stored_image(odd_file(name))
    except DataError as error:
        assert str(error)
    else:
        assert decoded(result.jpeg).shape == (result.height, result.width, 3)


def test_a_dark_16_bit_image_stays_dark() -> None:
    result = to_stored_image(encoded(Image.fromarray(np.full((64, 64), 200, np.uint16))))
    assert decoded(result.jpeg).mean() < 5


def test_a_floating_point_image_of_0_to_1_is_not_black() -> None:
    result = to_stored_image(encoded(Image.fromarray(np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))), "TIFF"))
    assert decoded(result.jpeg).max() > 100


@pytest.mark.parametrize("color", [(255, 255, 255, 255), (240, 250, 255, 128)], ids=["white", "half-transparent"])
def test_a_white_drawing_on_transparency_stays_visible(color: tuple[int, ...]) -> None:
    drawings = []
    for box in ((10, 10, 60, 60), (40, 70, 120, 100)):
        image = Image.new("RGBA", (128, 128), (0, 0, 0, 0))
        image.paste(color, box)
        drawings.append(to_stored_image(encoded(image)))
    assert drawings[0].conversion == "transparent pixels blended with gray, because the visible pixels are nearly white"
    assert drawings[0].phash != drawings[1].phash
    assert np.ptp(decoded(drawings[0].jpeg)) > 50
    assert to_stored_image(encoded(image)) == drawings[1]


def test_a_dark_or_opaque_image_is_blended_with_white() -> None:
    dark = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    dark.paste((30, 30, 30, 255), (20, 20, 40, 40))
    opaque = Image.new("RGBA", (64, 64), (255, 255, 255, 255))
    for image in (dark, opaque, Image.new("RGBA", (64, 64), (0, 0, 0, 0))):
        result = to_stored_image(encoded(image))
        assert result.conversion == "transparent pixels blended with white"
        assert decoded(result.jpeg).max() > 250


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "PPM", "ICO", "JPEG2000"])
def test_the_head_of_each_format_is_known(kind: str) -> None:
    assert reject_reason(encoded(pattern(8), kind)[:HEAD_BYTES]) == ""


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty"), (b"# notes", "not an image"), (b"\0\0\0\x18ftypheic\0\0", "HEIC"), (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC")],
    ids=["empty", "text", "HEIC", "HEIC of another brand"],
)
def test_a_file_of_another_format_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        to_stored_image(data)
