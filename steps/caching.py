"""Cache keys: a step's key holds every source file that the step reaches through its imports."""

import ast
from collections.abc import Callable
from pathlib import Path

from zenml.config import CachePolicy

from deeprank.home import PROJECT

FIRST_PARTY = ("deeprank", "steps")


def cache_on_sources(step_file: str, *source_files: Path, cache_func: Callable[[], str] | None = None) -> CachePolicy:
    """Return a step's cache policy: it is a miss when a source file that the step reaches, or the lock file, changed.

    Args:
        step_file: the step's module.
        source_files: further files that the step uses by path instead of by import.
        cache_func: returns what else the step's result depends on.

    """
    sources = set().union(*(reached_sources(Path(file).resolve()) for file in (step_file, *source_files)))
    files = sorted(str(file.relative_to(PROJECT)) for file in [*sources, PROJECT / "constraints.txt"])
    return CachePolicy(file_dependencies=files, cache_func=cache_func)


def reached_sources(start: Path) -> set[Path]:
    """Return the project's files that a file reaches through its imports, with the file itself and templates."""
    reached: set[Path] = set()
    queue = [start]
    while queue:
        file = queue.pop()
        if file in reached:
            continue
        reached.add(file)
        for node in ast.walk(ast.parse(file.read_text())):
            # A template is not imported; its name stands in the source.
            if isinstance(node, ast.Constant) and str(node.value).endswith(".j2") and file.with_name(node.value).is_file():
                reached.add(file.with_name(node.value))
            if isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                continue
            queue += [path for module in modules if module.split(".")[0] in FIRST_PARTY for path in _module_files(module)]
    return reached


def _module_files(module: str) -> list[Path]:
    """Return the file of a module, and the __init__.py of each package above it."""
    parts = module.split(".")
    packages = [PROJECT.joinpath(*parts[: i + 1], "__init__.py") for i in range(len(parts))]
    return [file for file in [*packages, PROJECT.joinpath(*parts).with_suffix(".py")] if file.is_file()]
