"""Base64 in the forms in which clients send it, and the name of a damaged image among several."""

import base64
import textwrap

import pytest

from deeprank.data.image_inputs import convert_each, decode_base64
from deeprank.data.images import to_stored_jpeg
from deeprank.errors import DataError
from tests.drawing import encoded, pattern

IMAGE = encoded(pattern(1))
PLAIN = base64.b64encode(IMAGE).decode()
LINES = textwrap.wrap(PLAIN, 76)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        f"data:image/png;base64,{PLAIN}",
        f"DATA:image/svg+xml;charset=utf-8;BASE64,{PLAIN}",
        f"data:;base64,{PLAIN}",
        "\n".join(LINES),
        "\r\n".join([*LINES, ""]),
        "\n  data:image/png;base64,\n" + "\n\t".join(LINES),
    ],
    ids=["plain", "data", "upper", "no-type", "lines", "crlf", "all"],
)
def test_every_form_of_base64_has_the_same_bytes(text: str) -> None:
    assert decode_base64(text) == IMAGE


@pytest.mark.parametrize("text", ["@@@", PLAIN[:-1], f"data:image/png,{PLAIN}", "data:image/png;base64,@@", "é", "QQ==QQ==", "a=b="])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="not valid base64"):
        decode_base64(text)


def test_the_damaged_one_of_several_images_is_named() -> None:
    with pytest.raises(DataError, match=r"^image 2 of 3: damaged or truncated image"):
        list(convert_each([IMAGE, IMAGE[:300], IMAGE], to_stored_jpeg))
    with pytest.raises(DataError, match=r"^b\.png: damaged or truncated image"):
        list(convert_each([IMAGE, IMAGE[:300]], to_stored_jpeg, ["a.png", "b.png"]))
    with pytest.raises(DataError, match=r"^damaged or truncated image"):
        list(convert_each([IMAGE[:300]], to_stored_jpeg))
