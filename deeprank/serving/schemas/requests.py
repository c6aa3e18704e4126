"""What a client may ask, as JSON or as a form with files, and how it is read; only image bytes and ids, never a path or an address."""

import binascii
from typing import Annotated, Any, Self, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from deeprank.serving.schemas.responses import ID

FORM, JSON = "multipart/form-data", "application/json"
FIELD_BYTES = 4096


def _decoded(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("an image is a string of base64")
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        raise ValueError("an image is a string of base64, and this is none") from None


_BASE64 = {"type": "string", "contentEncoding": "base64", "pattern": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"}
Picture = Annotated[bytes, BeforeValidator(_decoded), WithJsonSchema(_BASE64)]
ImageId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", examples=[ID])]


class EmbedQuestion(BaseModel):
    """Images of one's own, as base64; one may stand alone instead of in a list."""

    model_config = ConfigDict(extra="forbid")

    image: Picture | None = None
    images: list[Picture] = Field([], max_length=10)

    @property
    def uploads(self) -> list[bytes]:
        """All images."""
        return [*([self.image] if self.image is not None else []), *self.images]

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if not self.uploads:
            raise ValueError("give an image")
        return self


class Question(EmbedQuestion):
    """Images of one's own, or of the catalogue by their ids."""

    id: ImageId | None = None
    ids: list[ImageId] = Field([], max_length=10)

    @property
    def all_ids(self) -> list[str]:
        """All ids."""
        return [*([self.id] if self.id is not None else []), *self.ids]

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if not self.uploads and not self.all_ids:
            raise ValueError("give an image, or the id of an image of the catalogue")
        return self


class SearchQuestion(Question):
    """Several images are one question: of one thing from several sides."""

    k: int = Field(10, ge=1, le=100, description="How many neighbors.")
    label_prefix: str = Field("", max_length=400, description="Only images of this label, or of labels below it, e.g. Fruit/Apple.")
    max_distance: float | None = Field(None, ge=0, le=2, description="Only images up to this distance.")


class PairQuestion(Question):
    """Two images: two images, two ids, or one of each."""

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if len(self.uploads) + len(self.all_ids) != 2:
            raise ValueError("give two images: two images, two ids, or one of each")
        return self


Q = TypeVar("Q", bound=BaseModel)


async def read(request: Request, kind: type[Q]) -> Q:
    """Return the question in a request's body.

    Raises:
        HTTPException: it is neither JSON nor a form with files.
        RequestValidationError: something in it is missing, unknown or out of its bounds.

    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if media == JSON:
            return kind.model_validate_json(await request.body(), strict=True)
        if media == FORM:
            return kind.model_validate(await _fields(request))
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_input=False, include_url=False, include_context=False)) from None
    raise HTTPException(415, f"a question is {JSON}, or {FORM} with files named image")


async def _fields(request: Request) -> dict[str, Any]:
    """Return a form's fields: files named image as `images`, ids as `ids`, the others as they are."""
    fields: dict[str, Any] = {}
    async with request.form(max_files=10, max_fields=20, max_part_size=FIELD_BYTES) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile) != (name == "image"):
                raise HTTPException(422, "image must be a file, and no other field may be one")
            if isinstance(value, UploadFile):
                fields.setdefault("images", []).append(await value.read())
            elif name == "id":
                fields.setdefault("ids", []).append(value)
            elif name in fields or name in ("images", "ids"):
                raise HTTPException(422, f"{name[:40]} is given twice, or is no field of a form")
            else:
                fields[name] = value
    return fields


def described(kind: type[BaseModel], **example: object) -> dict[str, Any]:
    """Return the OpenAPI description of a question's body in both of its forms."""
    schema = kind.model_json_schema()
    properties = dict(schema["properties"])
    for name in ("image", "images", "id", "ids"):
        properties.pop(name, None)
    file = {"type": "array", "maxItems": 10, "items": {"type": "string", "format": "binary"}}
    ids = {"type": "array", "maxItems": 10, "items": {"type": "string", "pattern": "^[0-9a-f]{64}$"}}
    properties |= {"image": file} | ({"id": ids} if "id" in schema["properties"] else {})
    form = {"type": "object", "properties": properties, "additionalProperties": False}
    return {
        "requestBody": {
            "required": True,
            "content": {FORM: {"schema": form}, JSON: {"schema": schema, "examples": {"json": {"value": example}}}},
        }
    }
