"""`python -m pipelines.settings_docs`: write docs/settings.md, a table of every setting, from the settings' classes."""

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import starmap
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from deeprank.home import PROJECT
from deeprank.serving.service import ServeSettings
from pipelines.retraining import retraining

FILE = PROJECT / "docs" / "settings.md"
HEADER = """# Settings

<!-- Written by `make settings-docs`; do not edit. -->

`[]` in a key stands for each entry of a list.

## Pipelines

A config sets values under `parameters:`, by section. All other settings keep their defaults. `deeprank run CONFIG --set KEY=VALUE`
replaces one value. An unknown key, a wrong type, or a value out of range ends the command before the run starts.

A config with `extends: OTHER.yaml` is merged over the other config: mappings key by key, any other value as a whole.
"""
SERVE_HEADER = """## Service

The YAML file of `deeprank serve --config FILE`.
"""
TYPE_NAMES = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null"}
BOUNDS = {"gt": "> {}", "ge": "≥ {}", "lt": "< {}", "le": "≤ {}", "multiple_of": "multiple of {}", "min_length": "length ≥ {}"}


@dataclass(frozen=True)
class Setting:
    """One row of the table; all values are Markdown."""

    key: str
    type: str
    default: str
    range: str
    meaning: str


def write_settings_docs() -> None:
    """Write docs/settings.md."""
    FILE.write_text(settings_docs())


def settings_docs() -> str:
    """Return the content of docs/settings.md."""
    pipeline_models = {name: parameter.annotation for name, parameter in inspect.signature(retraining.entrypoint).parameters.items()}
    serve_models = {name: type(value) for name, value in ServeSettings()}
    parts = [HEADER, *starmap(_section, pipeline_models.items()), SERVE_HEADER, *starmap(_section, serve_models.items())]
    return "\n".join(parts)


def _section(name: str, model: type[BaseModel]) -> str:
    lines = [f"### {name}", "", _summary(model), "", "| key | type | default | range | meaning |", "|---|---|---|---|---|"]
    lines += [f"| `{s.key}` | {s.type} | {s.default} | {s.range} | {s.meaning} |" for s in settings_of(model, name)]
    return "\n".join(lines) + "\n"


def settings_of(model: type[BaseModel], prefix: str, instance: BaseModel | None = None) -> Iterator[Setting]:
    """Return the settings of a model and of the models in its fields.

    Args:
        model: the settings' class.
        prefix: its dotted key.
        instance: if given, its values are the defaults.

    """
    meanings = attribute_docs(model)
    for name, field in model.model_fields.items():
        key, annotation = f"{prefix}.{name}", field.annotation
        default = getattr(instance, name) if instance is not None else _default(field)
        nested = _models_in(annotation)
        if annotation not in nested:
            yield Setting(key, _type(annotation), _default_text(field, default), _range(field), meanings.get(name, "").replace("|", "\\|"))
        for nested_model in nested:
            nested_key = f"{key}[]" if get_origin(annotation) in (tuple, list) else key
            yield from settings_of(nested_model, nested_key, default if isinstance(default, nested_model) else None)


def attribute_docs(model: type[BaseModel]) -> dict[str, str]:
    """Return the meaning of each attribute, from the section `Attributes:` of the class's docstring."""
    _, _, section = inspect.cleandoc(model.__doc__ or "").partition("Attributes:\n")
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        entry = re.fullmatch(r"    (\w+(?:, \w+)*): (.+)", line)
        if entry:
            names = entry[1].split(", ")
            meanings |= dict.fromkeys(names, entry[2])
        elif line.strip():
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
    return meanings


def _summary(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models whose keys are below the annotation's key; the keys of a dict are free."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    arguments = () if get_origin(annotation) is dict else get_args(annotation)
    return [model for argument in arguments for model in _models_in(argument)]


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (tuple, list):
        return _list_type(arguments)
    if origin is dict:
        return "keys with values"
    if arguments:
        members = arguments[:1] if origin is Annotated else arguments
        return " or ".join(dict.fromkeys(_type(member) for member in members))
    return "keys below" if _models_in(annotation) else TYPE_NAMES[annotation]


def _list_type(arguments: tuple[Any, ...]) -> str:
    if arguments[-1] is Ellipsis:
        entry = _type(arguments[0])
        return f"list of {entry}s" if entry in TYPE_NAMES.values() else f"list of {entry}"
    return f"[{', '.join(_type(argument) for argument in arguments)}]"


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _default_text(field: FieldInfo, default: Any) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None and isinstance(default, int):
        # A function computes it, e.g. from the number of cores.
        return "depends on the machine"
    if default == "":
        return "empty"
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(_plain(default), ensure_ascii=False)}`"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields if name in value.model_fields_set}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def _range(field: FieldInfo) -> str:
    texts = []
    for metadata in _metadata(field):
        for name, template in BOUNDS.items():
            bound = getattr(metadata, name, None)
            if bound is not None:
                texts.append(template.format(bound))
        pattern = getattr(metadata, "pattern", None)
        if pattern is not None:
            texts.append(f"matches `{pattern}`")
    return ", ".join(texts).replace("|", "\\|")


def _metadata(field: FieldInfo) -> list[Any]:
    """Return the bounds of a field, of the entries of its list, and of the members of its union."""
    bounds, queue = list(field.metadata), [field.annotation]
    while queue:
        annotation = queue.pop()
        if get_origin(annotation) is Annotated:
            for metadata in annotation.__metadata__:
                bounds += metadata.metadata if isinstance(metadata, FieldInfo) else [metadata]
        queue += [argument for argument in get_args(annotation) if not _models_in(argument)]
    return bounds


if __name__ == "__main__":
    write_settings_docs()
