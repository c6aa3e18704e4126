"""List the images of a folder of an object store, as `listing` does for a folder of this machine."""

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256

from deeprank.data.listing import ListedFile, Listing, normalized_patterns, skip_reason
from deeprank.data.object_store import list_objects
from deeprank.errors import DataError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def list_object_files(uri: str, exclude: Sequence[str] = ()) -> Listing:
    """Return every object below a URI, in the form of files of a folder.

    The place of `ctime_ns` has a hash of the object's ETag, which changes with the content.

    Args:
        uri: of the folder, such as s3://bucket/folder.
        exclude: see `list_files`.

    Raises:
        DataError: there is no object, or the store cannot be read.

    """
    files: dict[str, ListedFile] = {}
    skipped: dict[str, str] = {}
    items = list(list_objects(uri))
    folders = {"", *(item["path"].rpartition("/")[0] for item in items)}
    folders |= {"/".join(folder.split("/")[:depth]) for folder in list(folders) for depth in range(1, folder.count("/") + 1)}
    for item in items:
        path = item["path"]
        # Some programs write an empty object for a folder.
        if path in folders and not item["size"]:
            continue
        folder_or_file, reason = _skipped_part(path, exclude)
        if reason:
            skipped[folder_or_file] = reason
            continue
        mtime_ns = int((item["last_modified"] - EPOCH).total_seconds() * 10**6) * 1000
        etag = int.from_bytes(sha256(str(item["e_tag"]).encode()).digest()[:7])
        files[path] = ListedFile(f"{uri.rstrip('/')}/{path}", item["size"], mtime_ns, etag)
    if not files:
        raise DataError(f"{uri} is empty: put images into {uri.rstrip('/')}/<class>/")
    return Listing(dict(sorted(files.items())), dict(sorted(skipped.items())))


def _skipped_part(path: str, exclude: Sequence[str]) -> tuple[str, str]:
    """Return the first folder of a path that is skipped, or the file, with the reason; both empty if nothing is."""
    parts, patterns = path.split("/"), normalized_patterns(exclude)
    for depth in range(1, len(parts) + 1):
        is_folder = depth < len(parts)
        part = "/".join(parts[:depth])
        reason = skip_reason(part, parts[depth - 1], is_folder, patterns)
        if reason:
            return (f"{part}/" if is_folder else part), reason
    return "", ""
