"""Find, download or draw the images that the settings `source: auto` and `source: synthetic` stand for."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from deeprank.data.ingest import IngestSettings
from deeprank.data.object_store import folder_or_uri
from deeprank.data.synthetic import write_synthetic
from deeprank.errors import DataError
from deeprank.home import home

GROCERY_HOST = "github.com"
GROCERY_URL = f"https://{GROCERY_HOST}/marcusklasson/GroceryStoreDataset"
GROCERY_COMMIT = "fc80ba90f803d79d0383df52c5a4ac5de99ff6fc"
CONNECT_TIMEOUT_S = 10


def source_folder(settings: IngestSettings, log: Callable[[str], None], allow_synthetic: bool = True) -> Path | str:
    """Return the folder of images that the settings name, after downloading or drawing the images where that is needed.

    For `auto`, the first of these that is available: the folder in the variable DEEPRANK_DATA, the folder data/images in the state
    folder, the pinned download of the grocery images (in data/grocery in the state folder), synthetic images.

    Args:
        settings: see IngestSettings.
        log: called with the choice and its reason, for `auto`.
        allow_synthetic: whether `auto` may take synthetic images.

    Raises:
        DataError: `auto` has no other images than synthetic ones, and those are not allowed.

    """
    if settings.source == "synthetic":
        return _synthetic_folder(settings)
    if settings.source != "auto":
        return folder_or_uri(settings.source)
    environment = os.environ.get("DEEPRANK_DATA")
    if environment:
        log(f"images: {environment}, from the environment variable DEEPRANK_DATA")
        return folder_or_uri(environment)
    own_images = home() / "data" / "images"
    if own_images.is_dir():
        log(f"images: {own_images}, because this folder exists")
        return own_images
    try:
        folder = fetch_grocery(home() / "data" / "grocery")
        log(f"images: {folder}, the public grocery images at commit {GROCERY_COMMIT[:10]}")
        return folder
    except DataError as error:
        if not allow_synthetic:
            raise DataError(
                "ingest.source: auto finds no images where this step runs, and takes synthetic ones on the local stack only: "
                f"name a folder that the step can read ({error})"
            ) from None
        log(f"images: synthetic, because the public grocery images are not available ({error})")
        return _synthetic_folder(settings)


def fetch_grocery(folder: Path, url: str = GROCERY_URL, commit: str = GROCERY_COMMIT, host: str = GROCERY_HOST) -> Path:
    """Download the grocery images at a pinned commit, whose hash is the checksum of every file.

    Args:
        folder: where to; nothing is downloaded where it holds the images already.
        url: of the Git repository.
        commit: to download.
        host: that must accept a connection; empty for a repository on this disk.

    Returns:
        the folder dataset/, which has train/, val/ and test/.

    Raises:
        DataError: Git is not installed, the host does not accept a connection within 10 s, or the download failed; a partial
            download is removed.

    """
    if (folder / "dataset").is_dir():
        return folder / "dataset"
    if shutil.which("git") is None:
        raise DataError("git is not installed")
    if host:
        try:
            socket.create_connection((host, 443), timeout=CONNECT_TIMEOUT_S).close()
        except OSError as error:
            raise DataError(f"no connection to {host}: {error}") from None
    partial = _empty_partial_folder(folder)
    commands = [
        ["init", "--quiet"],
        ["sparse-checkout", "set", "--no-cone", "/dataset/train/", "/dataset/val/", "/dataset/test/", "/LICENSE"],
        # A transfer below 1000 bytes/s for 30 s is aborted.
        ["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30", "fetch", "--progress", "--depth", "1", url, commit],
        ["checkout", "--quiet", commit],
    ]
    for command in commands:
        process = subprocess.run(["git", "-C", str(partial), *command], check=False)
        if process.returncode:
            shutil.rmtree(partial, ignore_errors=True)
            raise DataError(f"git {' '.join(command)} exited with code {process.returncode}")
    shutil.rmtree(partial / ".git")
    partial.rename(folder)
    return folder / "dataset"


def _synthetic_folder(settings: IngestSettings) -> Path:
    """Return the folder of synthetic images, after drawing them where they are missing."""
    synthetic = settings.synthetic
    folder = home() / "data" / f"synthetic-{synthetic.classes}x{synthetic.images}-{synthetic.seed}"
    if not folder.is_dir():
        partial = _empty_partial_folder(folder)
        write_synthetic(partial, synthetic.classes, synthetic.images, synthetic.seed, progress=True)
        partial.rename(folder)
    return folder


def _empty_partial_folder(folder: Path) -> Path:
    """Return an empty folder beside another one, for files that are moved there when all are complete."""
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial
