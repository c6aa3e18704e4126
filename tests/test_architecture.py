"""Rules of the house that no linter knows."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
LIBRARY = sorted(
    ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
    for file in (PROJECT / "deeprank").rglob("*.py")
    if "serving" not in file.parts
)


def test_the_library_imports_without_zenml_and_mlflow() -> None:
    blocked = "import sys; sys.modules |= {'zenml': None, 'mlflow': None}\n"
    done = subprocess.run([sys.executable, "-c", blocked + f"import {', '.join(LIBRARY)}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", sorted((PROJECT / "steps").glob("*.py")), ids=lambda file: file.name)
def test_a_step_is_glue_of_under_40_lines(file: Path) -> None:
    functions = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)]
    assert all(node.end_lineno - node.lineno < 40 for node in functions)


@pytest.mark.parametrize("config", sorted((PROJECT / "configs").glob("*.yaml")), ids=lambda file: file.name)
def test_a_config_says_command_time_and_expected_figure_on_top(config: Path) -> None:
    head = [line for line in config.read_text().splitlines() if line.startswith("#")]
    assert any("configs/" in line or "make demo" in line for line in head)
    assert any("Two cores:" in line and "Expected" in line for line in head)
