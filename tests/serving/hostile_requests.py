"""Malicious and malformed requests; each is small to build and the same in every run."""

import base64
import gzip
import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.drawing import encoded, pattern

# Body and content type of a request.
Request = tuple[bytes, str]
BOUNDARY = "b" * 20


def form(image: bytes, name: str = "image", filename: str = "a.jpg") -> Request:
    """Return a form with one file."""
    header = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\nContent-Type: image/jpeg\r\n\r\n'
    return header.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}"


def json_body(value: object) -> Request:
    """Return a JSON body."""
    return json.dumps(value).encode(), "application/json"


def black_png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a black PNG of one bit per pixel, with extra chunks before its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = bytes(1 + (width + 7) // 8)
    compressor = zlib.compressobj(9)
    blocks = b"".join(compressor.compress(row * 256) for _ in range(height // 256))
    pixels = blocks + compressor.compress(row * (height % 256)) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    all_chunks = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in all_chunks)


def multi_page_tiff(num_pages: int) -> bytes:
    """Return a TIFF whose pages of 32 x 32 gray pixels share the same pixel data."""
    tags = [(256, 3, 32), (257, 3, 32), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 32), (279, 4, 1024)]
    page = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    start, size = 8 + 1024, len(page) + 4
    pages = b"".join(page + struct.pack("<I", start + size * (n + 1) if n < num_pages - 1 else 0) for n in range(num_pages))
    return b"II*\0" + struct.pack("<I", start) + bytes(1024) + pages


def animated_gif(num_frames: int) -> bytes:
    """Return a GIF with frames of 16 x 16 pixels."""
    buffer = io.BytesIO()
    Image.new("P", (16, 16)).save(buffer, "GIF")
    gif = buffer.getvalue()
    frame_start = gif.index(b"\x2c")
    return gif[:frame_start] + gif[frame_start:-1] * num_frames + b";"


def icon_with(image: bytes) -> bytes:
    """Return an ICO whose header says 16 x 16 pixels and which holds another image."""
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(image), 22) + image


def jpeg_with_header_size(width: int, height: int) -> bytes:
    """Return a small JPEG whose header says another size."""
    jpeg = bytearray(encoded(pattern(1), "JPEG"))
    position = jpeg.index(b"\xff\xc0") + 5
    jpeg[position : position + 4] = struct.pack(">HH", height, width)
    return bytes(jpeg)


def decompression_bombs() -> Iterator[bytes]:
    """Yield images that are small as files and large when decoded, and files that take long to read."""
    yield from (black_png(30_000, 30_000), black_png(50_000, 20_000), black_png(65_000, 3000), icon_with(black_png(20_000, 20_000)))
    yield from (jpeg_with_header_size(65_500, 65_500), jpeg_with_header_size(65_500, 16))
    yield black_png(64, 64, (b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000), 9)))
    yield black_png(64, 64, (b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000), 9)))
    yield black_png(64, 64, *[(b"tEXt", b"a\0" + b"b" * 1000)] * 2000)
    yield b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\x80\0\0" + bytes(6) + animated_gif(1)[19:]
    yield b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(46)
    yield b"P6 100000 100000 255\n" + bytes(100)
    yield from (multi_page_tiff(3000), animated_gif(20_000), encoded(Image.new("L", (7000, 7000)), "TIFF", compression="tiff_lzw"))
    yield encoded(pattern(2, (600, 600)), "JPEG2000")[:4000]
    yield encoded(Image.fromarray(np.full((64, 64), np.nan, dtype=np.float32)), "TIFF")
    yield encoded(Image.fromarray(np.full((64, 64), np.inf, dtype=np.float32)), "TIFF")
    yield encoded(Image.new("RGB", (1, 60_000)), "PNG")
    yield encoded(Image.new("RGB", (40_000, 16)), "PNG")


def other_files() -> Iterator[bytes]:
    """Yield files that are not images."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr(zipfile.ZipInfo("../../evil"), "x")
    yield from (b"", b"\0", b"\xff\xd8", b"\xff\xd8\xff", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"RIFF\xff\xff\xff\xffWEBP", bytes(100_000))
    yield from (
        archive.getvalue(),
        gzip.compress(bytes(10_000_000), mtime=0),
        pickle.dumps({"a": 1}),
        b"\x7fELF" + bytes(200),
        b"%PDF-1.7\n1 0 obj",
    )
    yield b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n(/etc/passwd) (r) file\nshowpage"
    yield b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'
    yield from (b"file:///etc/passwd", b"http://169.254.169.254/latest/meta-data", b"/etc/passwd", b"\x80\x04cos\nsystem\n(S'id'\ntR.")
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(10))
    yield buffer.getvalue()


def polyglots() -> Iterator[bytes]:
    """Yield valid images that are also valid as another file type; the service treats them as images."""
    jpeg, png, gif = (encoded(pattern(7), kind) for kind in ("JPEG", "PNG", "GIF"))
    yield from (
        jpeg + b"PK\x03\x04" + bytes(100),
        gif + b"/*<script>alert(1)</script>*/",
        png + b"<html><script>alert(1)</script></html>",
    )
    yield jpeg[:2] + b"\xff\xfe\x00\x1c<?php system($_GET['c']); ?>" + jpeg[2:]
    yield jpeg + encoded(pattern(8), "PNG")
    yield b"\xff\xd8" + b"\xff\xe1\xff\xff" + b"Exif\0\0" + bytes(65_527) + jpeg[2:]


def damaged_images() -> Iterator[bytes]:
    """Yield truncated images, and images with changed bytes."""
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "ICO", "JPEG2000", "PPM"):
        content = encoded(pattern(3, (96, 96)), kind)
        for fraction in (0.1, 0.5, 0.9, 0.99):
            yield content[: int(len(content) * fraction)]
        for _ in range(5):
            changed = np.frombuffer(content, dtype=np.uint8).copy()
            changed[rng.integers(0, len(changed), 20)] = rng.integers(0, 256, 20)
            yield changed.tobytes()


def malformed_bodies() -> Iterator[Request]:
    """Yield requests whose body, rather than its image, is malformed."""
    image = encoded(pattern(5), "JPEG")
    body, kind = form(image)
    yield from (form(image, filename="../../../etc/cron.d/x"), form(image, filename="a" * 5000), form(image, name="path"))
    yield from (
        (body, "multipart/form-data"),
        (body, f"multipart/form-data; boundary={'c' * 20}"),
        (body[: len(body) // 2], kind),
        (b"", kind),
    )
    yield (body, "image/jpeg")
    yield (f"--{BOUNDARY}\r\n".encode() * 5000, kind)
    field = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="k"\r\n\r\n5\r\n'.encode()
    yield (field * 3000 + f"--{BOUNDARY}--".encode(), kind)
    yield (field.replace(b"5\r\n", b"5" * 1_000_000 + b"\r\n") + body, kind)
    yield (body.replace(b"Content-Type", b"X-Long: " + b"y" * 100_000 + b"\r\nContent-Type", 1), kind)
    yield from (
        (b"[" * 200_000, "application/json"),
        (b'{"k":' * 100_000, "application/json"),
        (b'{"k": 1e999, "id": "a"}', "application/json"),
    )
    yield from (
        (b"\xff\xfe{}", "application/json"),
        (b'{"k": NaN}', "application/json"),
        (b'{"image": "' + b"A" * 9_000_000, "application/json"),
    )
    yield from (json_body({"image": "A" * 4_000_000}), json_body({"images": ["QQ=="] * 5000}), json_body({"image": "file:///etc/passwd"}))
    yield from (json_body({"url": "http://127.0.0.1/"}), json_body({"id": "' OR 1=1 --"}), json_body({"k": 10**30, "id": "a"}))
    yield json_body(None)
    yield json_body({"image": base64.b64encode(black_png(30_000, 30_000)).decode()})
    yield json_body({"id": "0" * 64, "label_prefix": "../" * 100, "max_distance": 1})


def hostile_requests() -> list[Request]:
    """Return all of them, 200 or more."""
    requests = [form(image) for images in (decompression_bombs, other_files, polyglots, damaged_images) for image in images()]
    requests += malformed_bodies()
    requests += [form(bytes(11 * 2**20)), form(b"\xff\xd8\xff\xe0" + bytes(100 * 10**6))]
    rng = np.random.default_rng(1)
    return requests + [form(rng.bytes(int(size))) for size in rng.integers(1, 50_000, max(0, 200 - len(requests)))]
