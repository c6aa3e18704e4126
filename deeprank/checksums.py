"""Checksums of files, and manifests: JSON files that describe a folder and hold a checksum of themselves."""

import hashlib
import json
from pathlib import Path
from typing import Any

from deeprank.errors import ModelError


def hash_file(file: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def read_manifest(file: Path, if_missing: str, format_number: int, keys: set[str], advice: str = "") -> dict[str, Any]:
    """Return the content of a manifest, without its checksum.

    Args:
        file: the manifest.
        if_missing: for the message if the file is missing: what its folder lacks, e.g. `has no index`.
        format_number: the only format that is read.
        keys: keys that the manifest must have.
        advice: for the message if the format is another one: what to do.

    Raises:
        ModelError: the file is missing, damaged, or of another format.

    """
    if not file.exists():
        raise ModelError(f"{file.parent} {if_missing}: {file.name} is missing")
    try:
        manifest: dict[str, Any] = json.loads(file.read_text())
        # Another format may have other keys.
        is_current = manifest.get("format", format_number) == format_number
        if is_current and not {"format", *keys} <= manifest.keys():
            raise ValueError("a key is missing")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{file} is damaged: {error}") from None
    if not is_current:
        message = f"{file}: format {manifest['format']} is not the format {format_number} that this version reads"
        raise ModelError(f"{message}; {advice}" if advice else message)
    if manifest.pop("checksum", None) != _hash_content(manifest):
        raise ModelError(f"{file} is damaged: its content does not match its checksum")
    return manifest


def write_manifest(file: Path, content: dict[str, Any]) -> None:
    """Write a manifest with a checksum of its content.

    Args:
        file: where to write.
        content: a JSON object with the key `format`.

    """
    file.write_text(json.dumps(content | {"checksum": _hash_content(content)}, indent=1))


def _hash_content(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
