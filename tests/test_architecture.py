"""Rules of the project that no linter checks."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
SOURCES = sorted(file for folder in ("deeprank", "steps", "pipelines") for file in (PROJECT / folder).rglob("*.py"))
STEPS = sorted((PROJECT / "steps").glob("*.py"))
TESTS = sorted((PROJECT / "tests").rglob("test_*.py"))
CONFIGS = sorted((PROJECT / "configs").glob("*.yaml"))
# The packages that import MLflow.
WITH_MLFLOW = {"registry", "serving"}


def name(file: Path) -> str:
    return file.relative_to(PROJECT).as_posix()


def functions(file: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def longer_than(file: Path, limit: int) -> list[str]:
    return [function.name for function in functions(file) if function.end_lineno - function.lineno >= limit]


def test_the_library_imports_without_zenml_and_mlflow() -> None:
    library = [file for file in SOURCES if file.is_relative_to(PROJECT / "deeprank") and not WITH_MLFLOW & set(file.parts)]
    modules = [".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__") for file in library]
    blocked = "import sys; sys.modules |= {'zenml': None, 'mlflow': None}\n"
    result = subprocess.run([sys.executable, "-c", blocked + f"import {', '.join(modules)}"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_a_module_has_at_most_300_lines_and_short_functions(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 300
    assert longer_than(file, 50) == []


@pytest.mark.parametrize("file", STEPS, ids=name)
def test_a_step_has_fewer_than_40_lines(file: Path) -> None:
    assert longer_than(file, 40) == []


@pytest.mark.parametrize("file", TESTS, ids=name)
def test_the_name_of_a_test_has_at_most_60_characters(file: Path) -> None:
    assert [function.name for function in functions(file) if function.name.startswith("test_") and len(function.name) > 60] == []


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_a_config_begins_with_command_time_and_expected_metric(config: Path) -> None:
    header = [line for line in config.read_text().splitlines() if line.startswith("#")]
    assert any("configs/" in line or "make demo" in line for line in header)
    assert any("Two cores:" in line and "Expected" in line for line in header)
