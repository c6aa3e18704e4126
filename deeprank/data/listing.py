"""List the files of a folder, without the files of other programs and without links to what is listed already."""

# pathlib is several times slower over 20,000 files.
# ruff: noqa: PTH112, PTH114, PTH116, PTH118, PTH119, PTH120, PTH206

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG

from deeprank.data.split_folders import split_of_name, wrapping_folders
from deeprank.errors import DataError

MAX_TIME_NS = 2**63 - 1
# Compared in lower case. Names that start with a dot are skipped as well.
SYSTEM_NAMES = {
    "@eadir", "@recycle", "@recently-snapshot", "@__thumb", "@synoresource", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "recycler",
    "lost+found", "__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "icon\r",
    "system volume information", "network trash folder", "temporary items", "found.000", "$extend", "$winreagent",
}  # fmt: skip
SYSTEM_REASON = "file or folder of another program"
EXCLUDED_REASON = "matches ingest.exclude"


@dataclass(frozen=True)
class ListedFile:
    """A file as the folder lists it, before it is opened.

    Attributes:
        file: to open; its name may be invalid UTF-8.
        size: in bytes.
        mtime_ns: time of the last change of the content, limited to 1970 to 2262.
        ctime_ns: time of the last change of the content or of the name, owner or mode, limited to 1970 to 2262.
        is_regular: whether it can be opened like a file; a pipe, a socket or a device cannot.

    """

    file: str
    size: int
    mtime_ns: int
    ctime_ns: int
    is_regular: bool = True


@dataclass(frozen=True)
class Listing:
    """The files of a folder.

    Attributes:
        files: by relative path with forward slashes, in order of path.
        skipped: reason by relative path for files and folders that are not listed; a folder ends with a slash.

    """

    files: dict[str, ListedFile] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def is_system_name(name: str) -> bool:
    """Return whether a file or folder of this name belongs to an operating system, a NAS or another program."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


def normalized_patterns(exclude: Sequence[str]) -> list[str]:
    """Return glob patterns in the form that `skip_reason` compares."""
    return [unicodedata.normalize("NFC", pattern).rstrip("/").removeprefix("./").removeprefix("**/") for pattern in exclude]


def skip_reason(path: str, name: str, is_folder: bool, patterns: Sequence[str]) -> str:
    """Return why a file or folder is skipped by its name; empty if it is not.

    Args:
        path: relative path with forward slashes.
        name: last part of the path; it may be invalid UTF-8.
        is_folder: whether it is a folder.
        patterns: of `normalized_patterns`.

    """
    normalized, last = unicodedata.normalize("NFC", path), unicodedata.normalize("NFC", _text(name))
    if is_system_name(name):
        return SYSTEM_REASON
    is_excluded = any(fnmatchcase(normalized, pattern) or (is_folder and fnmatchcase(last, pattern)) for pattern in patterns)
    return EXCLUDED_REASON if is_excluded else ""


def list_files(folder: Path, exclude: Sequence[str] = ()) -> Listing:
    """Return every file below a folder.

    A link to a folder is followed once, after all real folders: what it leads to keeps the name of the real folder.

    Args:
        folder: to list.
        exclude: glob patterns; a file or folder is skipped if its relative path, or the name of a folder, matches one of them.

    Raises:
        DataError: the folder does not exist, has no file, or cannot be read.

    """
    if not os.path.isdir(folder):
        problem = "is a file" if os.path.lexists(folder) else "does not exist"
        raise DataError(f"{folder} {problem}; ingest.source must be a folder of <class>/<image>")
    lister = _Lister(folder, exclude)
    lister.run()
    if not lister.listing.files:
        num_skipped = len(lister.listing.skipped)
        skipped = (
            f" ({num_skipped} files and folders in it are skipped, for example {next(iter(lister.listing.skipped))})" if num_skipped else ""
        )
        raise DataError(f"{folder} is empty: put images into {folder}/<class>/{skipped}")
    return Listing(dict(sorted(lister.listing.files.items())), dict(sorted(lister.listing.skipped.items())))


class _Lister:
    """Lists a folder and the folders that its links lead to."""

    def __init__(self, folder: Path, exclude: Sequence[str]) -> None:
        self.root = os.path.realpath(folder)
        self.listing = Listing()
        self._patterns = normalized_patterns(exclude)
        # Relative path by real path, of all folders that are listed.
        self._visited: dict[str, str] = {}
        self._links: list[tuple[str, str]] = []

    def run(self) -> None:
        """List the real folders, then what their links lead to, then the links of these."""
        self._list_folder(self.root, "")
        # The split folders are in the root, or in the only folder of the root.
        self._split_parent = os.path.join(self.root, wrapping_folders(self._visited.values())[-1])
        while self._links:
            links, self._links = sorted(self._links), []
            for path, file in links:
                self._list_target(path, file)

    def _list_folder(self, top: str, top_path: str) -> None:
        """List a real folder under a relative path."""
        for root, folders, names in os.walk(top, onerror=lambda error: self._skip_unreadable(error, top, top_path)):
            parent = _joined(top_path, _text(os.path.relpath(root, top)))
            real_path = os.path.realpath(root)
            if real_path in self._visited:
                self.listing.skipped[f"{parent}/"] = f"the same folder as {self._visited[real_path] or '.'}/"
                folders.clear()
                continue
            self._visited[real_path] = parent
            folders[:] = [name for name in sorted(folders) if self._is_real_folder(_joined(parent, _text(name)), os.path.join(root, name))]
            for name in names:
                path = _joined(parent, _text(name))
                if not self._is_skipped(path, name, is_folder=False):
                    self._add(path, os.path.join(root, name))

    def _is_real_folder(self, path: str, file: str) -> bool:
        """Return whether a folder is walked now; a link to a folder is kept for later."""
        if self._is_skipped(path, os.path.basename(file), is_folder=True):
            return False
        if os.path.islink(file):
            self._links.append((path, file))
            return False
        return True

    def _is_skipped(self, path: str, name: str, is_folder: bool) -> bool:
        """Return whether a file or folder is skipped by its name, and keep the reason."""
        reason = skip_reason(path, name, is_folder, self._patterns)
        if reason:
            self.listing.skipped[f"{path}/" if is_folder else path] = reason
        return bool(reason)

    def _add(self, path: str, file: str) -> None:
        """List a file; a link is kept for later."""
        try:
            status = os.lstat(file)
        except OSError:
            # Reading it gives the reason for which the file is rejected.
            self._list(path, ListedFile(file, 0, 0, 0))
            return
        if S_ISLNK(status.st_mode):
            self._links.append((path, file))
        else:
            self._list(path, _listed_file(file, status))

    def _list(self, path: str, file: ListedFile) -> None:
        # Two names that are not valid UTF-8 could have the same text.
        while path in self.listing.files:
            path += "~"
        self.listing.files[path] = file

    def _list_target(self, path: str, file: str) -> None:
        """List what a link leads to, unless it is listed already."""
        try:
            target, status = os.path.realpath(file), os.stat(file)
        except (OSError, ValueError):
            try:
                self._list(path, _listed_file(file, os.lstat(file)))
            except OSError:
                self._list(path, ListedFile(file, 0, 0, 0))
            return
        is_folder = S_ISDIR(status.st_mode)
        if self._is_needed_by_split(file, target):
            # The folders of a split are often links to images that are kept in one place.
            for real_path in [name for name in self._visited if f"{name}/".startswith(f"{target}/")]:
                del self._visited[real_path]
        elif is_folder and (target in self._visited or f"{self.root}/".startswith(f"{target.rstrip('/')}/")):
            listed = self._visited.get(target)
            reason = f"link to {listed}/, which is listed" if listed else "link to a folder above it"
            self.listing.skipped[f"{path}/"] = reason
            return
        elif not is_folder and os.path.dirname(target) in self._visited and not is_system_name(os.path.basename(target)):
            listed = _joined(self._visited[os.path.dirname(target)], _text(os.path.basename(target)))
            if listed in self.listing.files:
                self.listing.skipped[path] = f"link to {listed}, which is listed"
                return
        if is_folder:
            self._list_folder(target, path)
        else:
            self._list(path, _listed_file(file, status))

    def _is_needed_by_split(self, file: str, target: str) -> bool:
        """Return whether a link in a train, val or test folder leads to a file or folder of this folder outside of these."""
        top, *rest = os.path.relpath(file, self._split_parent).split(os.sep)
        if not rest or not split_of_name(top) or not target.startswith(f"{self.root}/"):
            return False
        return not split_of_name(os.path.relpath(target, self._split_parent).split(os.sep, 1)[0])

    def _skip_unreadable(self, error: OSError, top: str, top_path: str) -> None:
        """Keep the reason for which a folder is not listed; the top folder itself must be readable."""
        filename = str(error.filename)
        path = _joined(top_path, _text(os.path.relpath(filename, top)))
        if not path:
            raise DataError(f"{filename} cannot be read ({error.strerror}): grant read permission or move it away") from error
        self.listing.skipped[f"{path}/"] = f"cannot be read: {error.strerror}"


def _listed_file(file: str, status: os.stat_result) -> ListedFile:
    mtime_ns, ctime_ns = (min(max(value, 0), MAX_TIME_NS) for value in (status.st_mtime_ns, status.st_ctime_ns))
    return ListedFile(file, status.st_size, mtime_ns, ctime_ns, S_ISREG(status.st_mode) or S_ISLNK(status.st_mode))


def _text(name: str) -> str:
    """Return a file name as valid UTF-8; a byte that is not valid is written as its code."""
    return re.sub(r"[\udc80-\udcff]", lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", name).replace(os.sep, "/")


def _joined(parent: str, name: str) -> str:
    """Return the relative path of a name in a folder; `.` is the folder itself."""
    return parent if name == "." else f"{parent}/{name}" if parent else name
