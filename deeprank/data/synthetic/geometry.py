"""Project surfaces of products into the image, shade them and paste them."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from deeprank.data.synthetic.types import FloatArray, Vector

BILINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True, slots=True)
class Pose:
    """Position and rotation of a product relative to the camera.

    Attributes:
        yaw: rotation about the vertical axis, in radians.
        pitch: elevation of the camera, in radians.
        roll: rotation in the image plane, in radians.
        scale: image pixels per pixel of the drawn product.
        x: of the product's foot in the image, in pixels.
        y: of the product's foot in the image, in pixels.
        light: direction to the light.

    """

    yaw: float
    pitch: float
    roll: float
    scale: float
    x: float
    y: float
    light: Vector

    def project(self, points: tuple[Vector, ...], distance: float) -> FloatArray:
        """Return points relative to the product's foot (n, 3) as positions in the image (n, 2).

        Args:
            points: in pixels of the drawn product.
            distance: of the camera, in the same pixels.

        """
        px, py, pz = np.array(points, np.float32).T
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        px, pz = px * cos + pz * sin, pz * cos - px * sin
        cos, sin = math.cos(self.pitch), math.sin(self.pitch)
        py, pz = py * cos - pz * sin, pz * cos + py * sin
        perspective = self.scale * distance / (distance + pz)
        cos, sin = math.cos(self.roll) * perspective, math.sin(self.roll) * perspective
        return np.stack([px * cos - py * sin + self.x, px * sin + py * cos + self.y], 1)


class Face(NamedTuple):
    """A shaded surface of a product and its place in the image.

    Attributes:
        image: RGBA pixels.
        border: width of the transparent border of `image`, in pixels.
        corners: (4, 2) positions in the target image, clockwise from the top left.

    """

    image: Image.Image
    border: int
    corners: FloatArray


def upright_rectangle(half_width: float, top: float, bottom: float = 0, z: float = 0) -> tuple[Vector, ...]:
    """Return the corners of a rectangle that faces the camera, clockwise from the top left; its center is above the foot."""
    return (-half_width, top, z), (half_width, top, z), (half_width, bottom, z), (-half_width, bottom, z)


def gain_table(*gains: float) -> list[int]:
    """Return a lookup table for Image.point that multiplies each channel by its gain."""
    return [level for gain in gains for level in np.minimum(np.arange(256) * gain, 255).astype(int).tolist()]


def shade(
    texture: FloatArray, opacity: FloatArray, normals: tuple[FloatArray, FloatArray, FloatArray], light: Vector, gloss: float
) -> Image.Image:
    """Return a surface with diffuse and specular light, as an RGBA image.

    Args:
        texture: (height, width, 3) colors, 0 to 255.
        opacity: (height, width), 0 to 1.
        normals: x, y and z of the surface normals, each (height, width).
        light: direction to the light.
        gloss: strength of the highlights, 0 to 1.

    """
    (nx, ny, nz), (lx, ly, lz) = normals, light
    diffuse = 0.5 + 0.6 * np.maximum(nx * lx + ny * ly + nz * lz, 0)
    specular = np.maximum((nx * lx + ny * ly + nz * (lz + 1)) / math.hypot(lx, ly, lz + 1), 0) ** 2
    for _ in range(4):
        specular = specular * specular
    pixels = np.empty((*opacity.shape, 4), np.uint8)
    pixels[..., :3] = np.minimum(texture * diffuse[..., None] + (specular * (170 * gloss))[..., None], 255)
    pixels[..., 3] = opacity * 255
    return Image.fromarray(pixels)


def paste_face(canvas: Image.Image, face: Face) -> None:
    """Paste a face onto an image with the perspective transform that its corners define."""
    left, top = (max(0, math.floor(v) - 1) for v in face.corners.min(0))
    right, bottom = (min(limit, math.ceil(v) + 1) for limit, v in zip(canvas.size, face.corners.max(0), strict=True))
    if right - left < 2 or bottom - top < 2:
        return
    border, w, h = face.border, face.image.width - face.border, face.image.height - face.border
    coefficients, targets = [], []
    sources = ((border, border), (w, border), (w, h), (border, h))
    for (x, y), (u, v) in zip((face.corners - (left, top)).tolist(), sources, strict=True):
        coefficients += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
        targets += [u, v]
    transform = np.linalg.solve(np.array(coefficients), np.array(targets)).tolist()
    patch = face.image.transform((right - left, bottom - top), Image.Transform.PERSPECTIVE, transform, BILINEAR)
    canvas.paste(patch, (left, top), patch)
