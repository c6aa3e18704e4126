"""The base of every room's settings: strict, frozen, and therefore safe to put into a cache key."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from deeprank.errors import ConfigError


class Settings(BaseModel):
    """Settings that refuse unknown keys and cannot change after they were read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _NoKeyTwice(yaml.SafeLoader):
    """Refuses a key that a mapping has twice; YAML itself lets the last one win."""

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
    """Return the mapping in a YAML file; an empty file is an empty one.

    Raises:
        ConfigError: the file is no YAML, no mapping, or has a key twice.

    """
    try:
        with file.open("rb") as stream:
            found = yaml.load(stream, _NoKeyTwice) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is no YAML: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: expected keys and values, found {type(found).__name__}")
    return found
