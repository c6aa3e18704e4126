"""Images as clients send them: base64 in all its common forms, and errors that name the image of several."""

import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from deeprank.errors import DataError

# The prefix of a data URL (RFC 2397) with base64 content.
DATA_URL = re.compile(r"\s*data:[^,]{0,200};base64,", re.IGNORECASE)

Input = TypeVar("Input")
Output = TypeVar("Output")


def decode_base64(text: str) -> bytes:
    """Return the bytes of an image file in base64 (RFC 4648, section 4), also as a data URL, and wrapped into lines.

    Raises:
        DataError: the text is not base64.

    """
    prefix = DATA_URL.match(text)
    try:
        return binascii.a2b_base64("".join(text[prefix.end() if prefix else 0 :].split()), strict_mode=True)
    except ValueError:
        raise DataError(
            "not valid base64: give the content of an image file as standard base64, or as a URL data:image/…;base64,…"
        ) from None


def convert_each(images: Sequence[Input], convert: Callable[[Input], Output], names: Sequence[str] | None = None) -> Iterator[Output]:
    """Yield each image converted; the error of an image begins with its name.

    Args:
        images: in any form that `convert` takes.
        convert: may raise DataError.
        names: of the images; None: of several images their numbers, and none of a single image.

    Raises:
        DataError: as of `convert`, with the name of the image.

    """
    if names is None and len(images) > 1:
        names = [f"image {number} of {len(images)}" for number in range(1, len(images) + 1)]
    for number, image in enumerate(images):
        try:
            converted = convert(image)
        except DataError as error:
            raise (type(error)(f"{names[number]}: {error}") if names else error) from None
        yield converted
