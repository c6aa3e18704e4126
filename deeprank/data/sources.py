"""Where images come from when the config says `auto` or `synthetic`."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from deeprank.data.ingest import IngestSettings
from deeprank.data.synthetic import write_synthetic
from deeprank.errors import DataError
from deeprank.home import PROJECT, home

GROCERY_HOST = "github.com"
GROCERY_URL = f"https://{GROCERY_HOST}/marcusklasson/GroceryStoreDataset"
GROCERY_COMMIT = "fc80ba90f803d79d0383df52c5a4ac5de99ff6fc"
CONNECT_SECONDS = 10


def source_folder(settings: IngestSettings, say: Callable[[str], None]) -> Path:
    """Return the folder to ingest, making or fetching it where the settings ask for that, and say which and why."""
    if settings.source == "synthetic":
        return _synthetic(settings)
    if settings.source != "auto":
        return Path(settings.source)
    given = os.environ.get("DEEPRANK_DATA")
    if given:
        say(f"images: {given}, because DEEPRANK_DATA says so")
        return Path(given)
    shared = PROJECT.parent / "shared" / "data" / "grocery"
    if shared.is_dir():
        say(f"images: {shared}, because it lies beside the project")
        return shared
    try:
        folder = fetch_grocery(home() / "data" / "grocery")
        say(f"images: {folder}, the public grocery images at commit {GROCERY_COMMIT[:10]}")
        return folder
    except DataError as error:
        say(f"images: synthetic ones, because the public grocery images cannot be had ({error})")
        return _synthetic(settings)


def fetch_grocery(folder: Path, url: str = GROCERY_URL, commit: str = GROCERY_COMMIT, host: str = GROCERY_HOST) -> Path:
    """Fetch the grocery images at their pinned commit, whose hash is the checksum of every file, and return dataset/.

    Raises:
        DataError: no git, no connection within 10 s, or the download failed; nothing half-done is left behind.

    """
    if (folder / "dataset").is_dir():
        return folder / "dataset"
    if shutil.which("git") is None:
        raise DataError("git is not installed")
    if host:
        try:
            socket.create_connection((host, 443), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise DataError(f"{host} does not answer: {error}") from None
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    commands = [
        ["init", "--quiet"],
        ["sparse-checkout", "set", "--no-cone", "/dataset/train/", "/dataset/val/", "/dataset/test/", "/LICENSE"],
        # A transfer that stands still for half a minute is given up.
        ["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30", "fetch", "--progress", "--depth", "1", url, commit],
        ["checkout", "--quiet", commit],
    ]
    for command in commands:
        done = subprocess.run(["git", "-C", str(part), *command], check=False)
        if done.returncode:
            shutil.rmtree(part, ignore_errors=True)
            raise DataError(f"git {' '.join(command)} ended with {done.returncode}")
    shutil.rmtree(part / ".git")
    part.rename(folder)
    return folder / "dataset"


def _synthetic(settings: IngestSettings) -> Path:
    want = settings.synthetic
    folder = home() / "data" / f"synthetic-{want.classes}x{want.images}-{want.seed}"
    if not folder.is_dir():
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        write_synthetic(part, want.classes, want.images, want.seed, progress=True)
        part.rename(folder)
    return folder
