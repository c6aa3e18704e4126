"""Small images and folders of images for tests."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def pattern(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Return a smooth random image; the perceptual hashes of two seeds differ in about half of their bits."""
    cells = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return the bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(jpeg: bytes) -> np.ndarray:
    """Return the pixels of an image file as float32 (height, width, channels)."""
    return np.asarray(Image.open(io.BytesIO(jpeg)), dtype=np.float32)


def put(file: Path, content: int | bytes | Image.Image) -> Path:
    """Write a file and create its folders; an integer stands for the pattern of that seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, int):
        content = pattern(content)
    file.write_bytes(encoded(content) if isinstance(content, Image.Image) else content)
    return file


def put_all(folder: Path, files: dict[str, int | bytes | Image.Image]) -> Path:
    """Write files by their paths relative to a folder, and return the folder."""
    for path, content in files.items():
        put(folder / path, content)
    return folder
