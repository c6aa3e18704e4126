"""Checksums of files, and the JSON file that says what lies in a folder."""

import hashlib
import json
from pathlib import Path
from typing import Any

from deeprank.errors import ModelError


def hash_file(file: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def read_manifest(file: Path, missing: str, version: int, keys: set[str]) -> dict[str, Any]:
    """Return what a folder's JSON file says of it.

    Args:
        file: the JSON file.
        missing: what the folder is or holds not, where the file is missing.
        version: the format that is read.
        keys: that must be there.

    Raises:
        ModelError: the file is missing, damaged, or of another format.

    """
    if not file.exists():
        raise ModelError(f"{file.parent} {missing}: {file.name} is missing")
    try:
        found: dict[str, Any] = json.loads(file.read_text())
        if not {"format", *keys} <= found.keys():
            raise ValueError("a key is missing")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{file} is damaged: {error}") from None
    if found["format"] != version:
        raise ModelError(f"{file}: format {found['format']} is not the format {version} that this version reads")
    if found.pop("checksum", None) != _hash_facts(found):
        raise ModelError(f"{file} is damaged: its checksum is not its own")
    return found


def write_manifest(file: Path, facts: dict[str, Any]) -> None:
    """Write what a folder's JSON file says of it, its own checksum included; `format` is among the facts."""
    file.write_text(json.dumps(facts | {"checksum": _hash_facts(facts)}, indent=1))


def _hash_facts(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
