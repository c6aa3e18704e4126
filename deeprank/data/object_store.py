"""Objects of an object store: options that lead to it, listing, reading and writing, and errors of one message."""

import re
import uuid
from collections.abc import Iterator, Mapping
from errno import ENOENT
from functools import lru_cache
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, from_url

from deeprank.errors import StoreError

# Written once and then again, to see whether an object store keeps the first of two writers.
PROBE = ".deeprank-probe"
# Parts of the messages of Lance and obstore, and what they mean.
REASONS = {
    "NoSuchBucket|NoSuchContainer|bucket does not exist": "there is no such bucket",
    "AccessDenied|InvalidAccessKey|SignatureDoesNotMatch|Unauthenticated|status code: 40[13]|40[13] (Forbidden|Unauthorized)": (
        "access denied; check the credentials of the artifact store, or of the environment"
    ),
    "error sending request|tcp connect|Connection refused|dns error|timed out": "no connection to the object store; check its endpoint",
    "no credential|CredentialsNotLoaded|instance metadata|IMDS": "no credentials for the object store",
}
_options: dict[str, dict[str, str]] = {}


def set_storage_options(root: str, options: Mapping[str, str]) -> None:
    """Set the options for all tables below a URI, in this process.

    Args:
        root: URI of the object store, or a folder of it.
        options: keys of Lance and obstore, such as `aws_access_key_id`; what they do not name comes from the environment.

    """
    _options[root.rstrip("/")] = dict(options)


def storage_options(uri: str) -> dict[str, str]:
    """Return the options that were set for a URI; empty for none."""
    roots = [root for root in _options if uri == root or uri.startswith(f"{root}/")]
    return _options[max(roots, key=len)] if roots else {}


def is_remote(uri: str) -> bool:
    """Return whether a URI names an object store, and not a folder of this machine."""
    return "://" in uri and not uri.startswith("file://")


def folder_or_uri(text: str) -> Path | str:
    """Return the path of a folder of this machine, or the URI of a folder in an object store, as a setting names it."""
    return text if is_remote(text) else Path(text)


def check_store(uri: str) -> None:
    """Check that an object store takes writes, and that of two writers of one object it refuses the second; a folder always does.

    Raises:
        StoreError: it does not; without that, two runs at once would overwrite each other's tables.

    """
    if not is_remote(uri):
        return
    try:
        bucket, probe = locate(f"{uri}/{PROBE}-{uuid.uuid4().hex}")
        obstore.put(bucket, probe, b"", mode="create")
        try:
            obstore.put(bucket, probe, b"", mode="create")
        except AlreadyExistsError:
            return
        finally:
            obstore.delete(bucket, probe)
    except (BaseError, OSError) as error:
        raise as_store_error(uri, error) from None
    raise StoreError(f"{uri}: this object store has no conditional put, so two runs at once would damage a table; use another store")


def list_objects(uri: str) -> Iterator[dict[str, Any]]:
    """Yield path (relative to the URI), size, last_modified and e_tag of every object below a URI."""
    try:
        bucket, prefix = locate(uri)
        for chunk in obstore.list(bucket, prefix):
            yield from ({**item, "path": item["path"][len(prefix) :].strip("/")} for item in chunk)
    except (BaseError, OSError) as error:
        raise as_store_error(uri, error) from None


def read_object(uri: str, length: int | None = None) -> bytes:
    """Return the content of an object, or its first bytes.

    Raises:
        FileNotFoundError: there is no such object.
        StoreError: the store cannot be read.

    """
    try:
        bucket, key = locate(uri)
        return bytes(obstore.get(bucket, key).bytes() if length is None else obstore.get_range(bucket, key, start=0, length=length))
    except FileNotFoundError:
        raise FileNotFoundError(ENOENT, "there is no such object", uri) from None
    except (BaseError, OSError) as error:
        raise as_store_error(uri, error) from None


def download(uri: str, file: Path) -> bool:
    """Copy an object to a file; returns False if there is no such object."""
    try:
        content = obstore.get(*locate(uri))
    except FileNotFoundError:
        return False
    except (BaseError, OSError) as error:
        raise as_store_error(uri, error) from None
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        for part in content:
            stream.write(part)
    return True


def upload(file: Path, uri: str) -> None:
    """Copy a file to an object; it is complete at any moment."""
    try:
        obstore.put(*locate(uri), file)
    except (BaseError, OSError) as error:
        raise as_store_error(uri, error) from None


def remove(uri: str) -> None:
    """Remove an object if there is one."""
    try:
        obstore.delete(*locate(uri))
    except FileNotFoundError:
        return
    except (BaseError, OSError) as error:
        raise as_store_error(uri, error) from None


def locate(uri: str) -> tuple[Any, str]:
    """Return an object store, and the path of a URI or file in it; a path may have any character, where a URL may not."""
    if not is_remote(uri):
        file = Path(uri.removeprefix("file://")).absolute()
        file.parent.mkdir(parents=True, exist_ok=True)
        return LocalStore(file.parent), file.name
    scheme, _, path = uri.partition("://")
    bucket, _, key = path.partition("/")
    return _open_bucket(f"{scheme}://{bucket}", frozenset(storage_options(uri).items())), key.strip("/")


@lru_cache(maxsize=64)
def _open_bucket(uri: str, items: frozenset[tuple[str, str]]) -> Any:
    """Return the object store of a bucket; it keeps its connections."""
    options: dict[str, Any] = dict(items)
    client_options: Any = {"allow_http": True} if options.pop("allow_http", None) else {}
    config: Any = options
    return from_url(uri, config=config, client_options=client_options)


def as_store_error(uri: str, error: Exception) -> StoreError:
    """Return the error of a store as one message."""
    text = " ".join(str(error).split())
    reasons = REASONS if is_remote(uri) else {}
    reason = next((reason for pattern, reason in reasons.items() if re.search(pattern, text, re.IGNORECASE)), text[:300])
    return StoreError(f"{uri}: {reason}")
