"""Strict settings: the base model, reading YAML files, and errors that name file, key and the nearest known key."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from deeprank.errors import ConfigError
from deeprank.nearest_names import nearest_names
from deeprank.renamed_settings import renamed_words

# A config with this key is merged over the file that it names.
EXTENDS = "extends"


class Settings(BaseModel):
    """Settings that refuse unknown keys and cannot change, so that they can be part of a cache key."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SettingsT = TypeVar("SettingsT", bound=Settings)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a mapping that has a key twice; plain YAML takes the last one."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, (key.tag, str(key.value))
            if name in lines:
                raise ConfigError(f"{self.name}: {key.value} is given twice, in lines {lines[name]} and {line}: keep one of them")
            lines[name] = line
        return node


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; the mapping is empty if the file is.

    Raises:
        ConfigError: the file cannot be read, is not valid YAML, holds no mapping, or has a key twice.

    """
    try:
        with file.open("rb") as stream:
            content = yaml.load(stream, _UniqueKeyLoader) or {}
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected keys and values, found {type(content).__name__}")
    return content


def extended_file(file: Path) -> Path | None:
    """Return the file that a config extends (`extends: OTHER.yaml`, relative to the config), or None.

    Raises:
        ConfigError: `extends` is not the name of a file, or the extended file extends another one.

    """
    content = read_yaml(file)
    if EXTENDS not in content:
        return None
    name = content[EXTENDS]
    if not isinstance(name, str) or not (file.parent / name).is_file():
        raise ConfigError(f"{file}: {EXTENDS}: expected a YAML file, its path relative to {file.parent}, found {name!r}")
    if EXTENDS in read_yaml(file.parent / name):
        raise ConfigError(f"{file}: {EXTENDS}: {name} extends another file itself; only one level is allowed")
    return file.parent / name


def read_config(file: Path) -> dict[str, Any]:
    """Return a config, merged over the file that it extends; an empty section is left out.

    Mappings are merged key by key. Any other value replaces the one of the extended file.

    Raises:
        ConfigError: as `read_yaml` and `extended_file`.

    """
    base, content = extended_file(file), _without_empty(read_yaml(file))
    if base is None:
        return content
    return _merge(_without_empty(read_yaml(base)), {key: value for key, value in content.items() if key != EXTENDS})


def _without_empty(content: dict[str, Any]) -> dict[str, Any]:
    # `parameters:` with nothing below it is None, which ZenML does not accept.
    return {key: value for key, value in content.items() if value is not None}


def _merge(base: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in content.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def parse_settings(model: type[SettingsT], values: Any, file: Path, section: str = "", prefix: str = "") -> SettingsT:
    """Return the settings in a section of a YAML file.

    Args:
        model: the settings' class.
        values: what the file holds there.
        file: for the messages.
        section: dotted key of the section, e.g. `train`; empty for a file that holds one model's settings.
        prefix: for the messages, put before the section's name as it is, e.g. `parameters.`.

    Raises:
        ConfigError: one line for each renamed key or value, or else for each unknown key, with the nearest known one, and each value
            of a wrong type or range.

    """
    renamed = renamed_words(values, section, prefix)
    if renamed:
        raise ConfigError("\n".join(f"{file}: {message}" for message in renamed))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        messages = _explain(model, values, error.errors(), f"{prefix}{section}")
    raise ConfigError("\n".join(f"{file}: {message}" for message in messages))


def setting_types(models: Mapping[str, type[BaseModel]], key: str) -> list[Any]:
    """Return the types that a setting may have; an empty list for an unknown setting.

    Args:
        models: the settings' class by section.
        key: dotted, e.g. `train.model.backbone`.

    """
    section, *names = key.split(".")
    types: list[Any] = [models[section]] if section in models else []
    for name in names:
        types = [model.model_fields[name].annotation for kind in types for model in _models_in(kind) if name in model.model_fields]
    return types


def is_text(kind: Any) -> bool:
    """Return whether each value of a type is a text: `str`, or one of some words."""
    return kind is str or (get_origin(kind) is Literal and all(isinstance(word, str) for word in get_args(kind)))


def require_known(file: Path, prefix: str, keys: Iterable[object], known: Iterable[str]) -> None:
    """Refuse unknown keys.

    Raises:
        ConfigError: names file, key and the nearest known one.

    """
    known = list(known)
    for key in keys:
        if key not in known:
            raise ConfigError(f"{file}: unknown key {prefix}{key}{_nearest(str(key), known)}")


def _nearest(key: str, known: Iterable[str]) -> str:
    near = nearest_names(key, known, 1)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"


def _explain(model: type[BaseModel], values: Any, errors: list[ErrorDetails], section: str) -> list[str]:
    """Return one message for each key that pydantic found an error at; an error further inside replaces those around it."""
    located: dict[tuple[str, ...], list[ErrorDetails]] = {}
    known: dict[tuple[str, ...], list[str]] = {}
    for details in errors:
        keys, known_keys = _locate(model, values, details)
        located.setdefault(keys, []).append(details)
        known[keys] = known_keys
    messages = []
    for keys, all_details in located.items():
        if any(other[: len(keys)] == keys and other != keys for other in located):
            continue
        name, details = ".".join([section, *keys] if section else keys), all_details[0]
        if details["type"] == "extra_forbidden":
            messages.append(f"unknown key {name}{_nearest(keys[-1], known[keys]) if known[keys] else ''}")
        else:
            # A value may match no member of a union; then there is an error for each of them.
            reasons = "; or ".join(each["msg"].removeprefix("Value error, ") for each in all_details)
            messages.append(f"{name}: {reasons}, found {details['input']!r}")
    return messages


def _locate(model: type[BaseModel], values: Any, details: ErrorDetails) -> tuple[tuple[str, ...], list[str]]:
    """Return the keys that lead to an error, and the keys known beside the last one.

    Between keys, pydantic's location names the members of unions, e.g. `literal['auto']`: those are not in the values.
    """
    keys: list[str] = []
    known: list[str] = []
    models = [model]
    for position, part in enumerate(details["loc"]):
        last = position == len(details["loc"]) - 1
        if isinstance(part, str) and not (isinstance(values, dict) and part in values) and not (last and details["type"] == "missing"):
            continue
        keys.append(str(part))
        if isinstance(part, str):
            known = [name for m in models for name in m.model_fields]
            annotations = [m.model_fields[part].annotation for m in models if part in m.model_fields]
            models = [nested for annotation in annotations for nested in _models_in(annotation)] if annotations else models
        values = values[part] if not last else None
    return tuple(keys), known


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models in an annotation such as `tuple[LossSettings, ...]` or `Literal["auto"] | SearchParams`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
