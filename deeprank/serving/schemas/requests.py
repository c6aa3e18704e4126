"""Request bodies, as JSON or as a form with files; they hold image bytes and ids, never a path or an address."""

from typing import Annotated, Any, Self, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from deeprank.data.image_inputs import decode_base64
from deeprank.errors import DataError
from deeprank.serving.schemas.responses import EXAMPLE_ID

FORM, JSON = "multipart/form-data", "application/json"
MAX_IMAGES = 10
MAX_FORM_FIELDS = 20
MAX_FIELD_BYTES = 4096
ID_PATTERN = r"^[0-9a-f]{64}$"


def _decode_base64(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("an image must be a base64 string")
    try:
        return decode_base64(value)
    except DataError as error:
        raise ValueError(str(error)) from None


_BASE64 = {
    "type": "string",
    "contentEncoding": "base64",
    "description": "Base64, with or without the prefix of a data URL; it may be wrapped into lines.",
    "pattern": r"^(?:data:[^,]{0,200};base64,)?(?:[A-Za-z0-9+/]{4}\s*)*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?\s*$",
}
Base64Image = Annotated[bytes, BeforeValidator(_decode_base64), WithJsonSchema(_BASE64)]
ImageId = Annotated[str, Field(pattern=ID_PATTERN, examples=[EXAMPLE_ID])]


class EmbedRequest(BaseModel):
    """Images of the client as base64; a single image may be given as `image`."""

    model_config = ConfigDict(extra="forbid")

    image: Base64Image | None = None
    images: list[Base64Image] = Field([], max_length=MAX_IMAGES)

    @property
    def all_images(self) -> list[bytes]:
        """Bytes of all image files."""
        return [*([self.image] if self.image is not None else []), *self.images]

    @model_validator(mode="after")
    def _check_count(self) -> Self:
        if not self.all_images:
            raise ValueError("give an image")
        return self


class ImagesOrIdsRequest(EmbedRequest):
    """Images of the client, images of the catalogue by their ids, or both."""

    id: ImageId | None = None
    ids: list[ImageId] = Field([], max_length=MAX_IMAGES)

    @property
    def all_ids(self) -> list[str]:
        """All ids."""
        return [*([self.id] if self.id is not None else []), *self.ids]

    @model_validator(mode="after")
    def _check_count(self) -> Self:
        if not self.all_images and not self.all_ids:
            raise ValueError("give an image, or the id of an image of the catalogue")
        return self


class SearchRequest(ImagesOrIdsRequest):
    """A search; several images are several views of the same thing and form one query."""

    k: int = Field(10, ge=1, le=100, description="Number of neighbors.")
    label_prefix: str = Field("", max_length=400, description="Only images of this label or of labels below it, e.g. Fruit/Apple.")
    max_distance: float | None = Field(None, ge=0, le=2, description="Only images up to this distance.")


class PairRequest(ImagesOrIdsRequest):
    """Two images: two images of the client, two ids, or one of each."""

    @model_validator(mode="after")
    def _check_count(self) -> Self:
        if len(self.all_images) + len(self.all_ids) != 2:
            raise ValueError("give two images: two images, two ids, or one of each")
        return self


RequestModel = TypeVar("RequestModel", bound=BaseModel)


async def read_request(request: Request, model: type[RequestModel]) -> RequestModel:
    """Return the body of an HTTP request as a request model.

    Raises:
        HTTPException: the body is neither JSON nor a form with files.
        RequestValidationError: a field is missing, unknown or out of range.

    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if media_type == JSON:
            return model.model_validate_json(await request.body(), strict=True)
        if media_type == FORM:
            return model.model_validate(await _form_fields(request))
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_input=False, include_url=False, include_context=False)) from None
    raise HTTPException(415, f"the body must be {JSON}, or {FORM} with files in the field image")


async def _form_fields(request: Request) -> dict[str, Any]:
    """Return the fields of a form: the files of `image` as `images`, the values of `id` as `ids`, other fields unchanged."""
    fields: dict[str, Any] = {}
    async with request.form(max_files=MAX_IMAGES, max_fields=MAX_FORM_FIELDS, max_part_size=MAX_FIELD_BYTES) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile) != (name == "image"):
                raise HTTPException(422, "image must be a file, and other fields must not be files")
            if isinstance(value, UploadFile):
                fields.setdefault("images", []).append(await value.read())
            elif name == "id":
                fields.setdefault("ids", []).append(value)
            elif name in fields or name in ("images", "ids"):
                raise HTTPException(422, f"{name[:40]} is given twice, or is not a field of the form")
            else:
                fields[name] = value
    return fields


def request_body_description(model: type[BaseModel], **example: object) -> dict[str, Any]:
    """Return the OpenAPI description of a request body as JSON and as a form.

    Args:
        model: request model of the JSON form.
        example: fields of an example body.

    """
    schema = model.model_json_schema()
    properties = dict(schema["properties"])
    for name in ("image", "images", "id", "ids"):
        properties.pop(name, None)
    files = {"type": "array", "maxItems": MAX_IMAGES, "items": {"type": "string", "format": "binary"}}
    ids = {"type": "array", "maxItems": MAX_IMAGES, "items": {"type": "string", "pattern": ID_PATTERN}}
    properties |= {"image": files} | ({"id": ids} if "id" in schema["properties"] else {})
    form = {"type": "object", "properties": properties, "additionalProperties": False}
    return {
        "requestBody": {
            "required": True,
            "content": {FORM: {"schema": form}, JSON: {"schema": schema, "examples": {"json": {"value": example}}}},
        }
    }
