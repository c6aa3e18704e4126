"""User text is printed as it is: square brackets and colons are no markup."""

import ast
from pathlib import Path

import pytest

from deeprank.cli.output import console, print_error, print_table
from deeprank.errors import DataError
from deeprank.home import PROJECT
from deeprank.reporting import track
from tests.cli.conftest import Run

TEXT = "/data/[red]/[/bold] :apple: [x"
# The modules that print with rich.
WITH_RICH = {"deeprank/cli/output.py", "deeprank/reporting.py", "deeprank/training/progress.py"}


def test_a_table_prints_user_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([{"[b]label[/b]": TEXT, "distance": 0.5}])
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["[b]label[/b]", "distance"]
    assert row.startswith(TEXT)


def test_a_line_prints_user_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.print(TEXT, 300 * "long ")
    assert capsys.readouterr().out == f"{TEXT} {300 * 'long '}\n"


def test_an_error_prints_user_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(DataError(TEXT))
    assert capsys.readouterr().err == f"Error: {TEXT}\n"


def test_a_progress_bar_prints_user_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track([1, 2], TEXT)) == [1, 2]
    assert capsys.readouterr().err.startswith(TEXT)


def test_a_command_names_a_folder_as_it_is(deeprank: Run, tmp_path: Path) -> None:
    code, _, err = deeprank("search", "--model", f"{tmp_path}/[/x] [red]", "photo.jpg")
    assert code == 1
    assert f"{tmp_path}/[/x] [red] is not a folder" in err


def test_an_unknown_option_is_named_as_it_is(deeprank: Run) -> None:
    code, _, err = deeprank("promote", "3", "--[red]x[/y]")
    assert code == 2
    assert "--[red]x[/y]" in err


def test_only_some_modules_print_with_rich() -> None:
    modules = set()
    for file in (file for folder in ("deeprank", "steps", "pipelines") for file in (PROJECT / folder).rglob("*.py")):
        imports = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports]
        if any(name.split(".")[0] == "rich" for name in names):
            modules.add(file.relative_to(PROJECT).as_posix())
    assert modules == WITH_RICH
