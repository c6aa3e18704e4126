"""`make demo DATA=…` passes any name of a folder to the pipeline."""

import os
import subprocess

import pytest

from deeprank.home import PROJECT

NAMES = ["Ann's photos", "with  spaces", "$new", "$(shell x)", "a#b", 'the "best"', "50% (1), `x` \\n !", "~/images", "*", "'", "a;b&c|d"]


def command_of_demo(*arguments: str, **variables: str) -> str:
    """Return the command that `make demo` would run to train."""
    environment = {name: value for name, value in os.environ.items() if name not in ("DATA", "DEEPRANK_DATA")} | variables
    command = ["make", "-n", "demo", *arguments]
    output = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in output.splitlines() if "pipelines.training" in line)
    return line


def data_of_demo(*arguments: str, **variables: str) -> str:
    """Return DEEPRANK_DATA as the training of `make demo` sees it."""
    line = command_of_demo(*arguments, **variables)
    shell_command = f"{line[: line.index('.venv/bin/zenml')]}printenv DEEPRANK_DATA"
    return subprocess.run(["sh", "-c", shell_command], env=os.environ | variables, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("name", NAMES)
def test_any_folder_name_reaches_the_pipeline(name: str) -> None:
    assert data_of_demo(f"DATA={name}") == f"{name}\n"


def test_without_data_the_environment_variable_counts() -> None:
    assert data_of_demo(DEEPRANK_DATA="/photos") == "/photos\n"
    assert data_of_demo(DATA="it's", DEEPRANK_DATA="/photos") == "it's\n"
    assert command_of_demo().startswith(".venv/bin/zenml ")
