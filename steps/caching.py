"""The cache must never lie: a step's key holds every source file that the step reaches through its imports."""

import ast
from collections.abc import Callable
from pathlib import Path

from zenml.config import CachePolicy

from deeprank.home import PROJECT

FIRST_PARTY = ("deeprank", "steps")


def cache_on_sources(step_file: str, *also: Path, told: Callable[[], str] | None = None) -> CachePolicy:
    """Return the policy of the step in `step_file`: its cache misses when any source it reaches, or the lock file, changes.

    Args:
        step_file: the step's module.
        also: further files that it uses by path instead of by import.
        told: returns what else its result hangs on.

    """
    sources = set().union(*(reached_sources(Path(file).resolve()) for file in (step_file, *also)))
    files = sorted(str(file.relative_to(PROJECT)) for file in [*sources, PROJECT / "constraints.txt"])
    return CachePolicy(file_dependencies=files, cache_func=told)


def reached_sources(start: Path) -> set[Path]:
    """Return the project's files that a file reaches through its imports, itself and templates included."""
    reached: set[Path] = set()
    waiting = [start]
    while waiting:
        file = waiting.pop()
        if file in reached:
            continue
        reached.add(file)
        for node in ast.walk(ast.parse(file.read_text())):
            # A template is named, not imported.
            if isinstance(node, ast.Constant) and str(node.value).endswith(".j2") and file.with_name(node.value).is_file():
                reached.add(file.with_name(node.value))
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            waiting += [found for name in names if name.split(".")[0] in FIRST_PARTY for found in _files_of(name)]
    return reached


def _files_of(module: str) -> list[Path]:
    """Return the file of a module, and the __init__.py of each package above it."""
    parts = module.split(".")
    packages = [PROJECT.joinpath(*parts[: i + 1], "__init__.py") for i in range(len(parts))]
    return [file for file in [*packages, PROJECT.joinpath(*parts).with_suffix(".py")] if file.is_file()]
