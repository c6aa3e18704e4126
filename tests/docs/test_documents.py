"""Commands, links, files, settings and packages in the documents exist."""

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from inspect import signature
from pathlib import Path

import click
import pytest
import typer
from typer.main import get_command
from zenml.cli.cli import cli as zenml_cli
from zenml.pipelines.pipeline_definition import Pipeline
from zenml.utils import source_utils

from deeprank.cli import app
from deeprank.errors import ConfigError
from deeprank.home import PROJECT
from deeprank.settings import setting_types
from pipelines.retraining import retraining
from pipelines.strict import check_config
from tests.docs import documents
from tests.docs.readme_commands import readme_commands

# Parameters of the pipelines.
SETTINGS = {name: parameter.annotation for name, parameter in signature(retraining.entrypoint).parameters.items()}
# Typer has a copy of click; the base of its errors is not public.
USAGE_ERRORS = (click.UsageError, typer.BadParameter.__bases__[0])
MAKEFILE = (PROJECT / "Makefile").read_text()
ALL = documents.documents()
# The changelog names what was renamed, docs/settings.md is generated, docs/tracking.md names metrics.
WITH_SETTINGS = [file for file in ALL if file.name not in ("CHANGELOG.md", "settings.md", "tracking.md")]


def name(file: Path) -> str:
    return str(file.relative_to(PROJECT))


@pytest.mark.parametrize("file", ALL, ids=name)
def test_every_command_exists(file: Path) -> None:
    for words in documents.shell_commands(file.read_text()):
        check_command(words)


@pytest.mark.parametrize("file", [file for file in ALL if file.name != "CHANGELOG.md"], ids=name)
def test_every_command_in_the_text_exists(file: Path) -> None:
    for words in documents.commands_in_text(file.read_text()):
        try:
            check_command(words)
        except (click.BadParameter, typer.BadParameter) as error:
            # A text may name a command without its arguments.
            if type(error).__name__ != "MissingParameter":
                raise


@pytest.mark.parametrize("file", sorted((PROJECT / "configs").glob("*.yaml")), ids=name)
def test_every_command_in_a_config_exists(file: Path) -> None:
    commands = [shlex.split(line.strip("# \n")) for line in file.read_text().splitlines() if re.match(r"#\s+(deeprank|zenml) ", line)]
    for words in commands:
        check_command(words)
    assert commands or "make demo" in file.read_text()


@pytest.mark.parametrize(
    "command",
    [
        "deeprank serch",
        "deeprank search --modell x a.jpg",
        "deeprank run configs/demo.yaml --set train.epoch=3",
        "deeprank run configs/none.yaml",
        "zenml pipeline run pipelines.nothing",
        "zenml pipeline run pipelines",
        "zenml pipeline runs",
        "zenml pipeline run pipelines.training --confg configs/demo.yaml",
        "zenml pipeline run pipelines.refreshing -c configs/grocery.yaml",
        "make demos",
        "make demo DATUM=x",
        "python -m pipelines.nothing",
        "rm -rf /",
    ],
)
def test_a_wrong_command_is_found(command: str) -> None:
    with pytest.raises((AssertionError, *USAGE_ERRORS, ImportError, AttributeError, ConfigError)):
        check_command(shlex.split(command))


def test_the_commands_of_the_readme_are_in_order() -> None:
    commands = readme_commands()
    readme = (PROJECT / "README.md").read_text()
    assert commands[0] == "make demo"
    positions = [readme.index(f"\n{command}\n") for command in commands]
    assert positions == sorted(positions)
    result = subprocess.run([sys.executable, "-m", "tests.docs.readme_commands"], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == commands


def check_command(words: list[str]) -> None:
    """Fail where the program, its target, options or files do not exist."""
    program, *arguments = words
    if program == "make":
        check_make(arguments)
    elif program == "deeprank":
        check_deeprank(arguments)
    elif program == "zenml":
        check_zenml(arguments)
    elif program == "python" and arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1]), f"{' '.join(words)}: no such module"
    elif program in ("docker", "mlflow"):
        check_files(arguments)
    else:
        assert program in (".", "curl", "export"), f"{' '.join(words)}: not a command that this test can check"


def check_make(arguments: list[str]) -> None:
    for argument in arguments:
        variable, separator, _ = argument.partition("=")
        pattern = rf"^{variable} \?=" if separator else rf"^{argument}:"
        assert re.search(pattern, MAKEFILE, re.MULTILINE), f"make {argument}: not in the Makefile"


def check_deeprank(arguments: list[str]) -> None:
    """Parse the arguments with the real command line, without running the command."""
    command, *rest = arguments
    if command == "schedule" and rest:
        from pipelines.schedule import app as schedule_app

        group, (command, *rest) = get_command(schedule_app), rest
    else:
        group = get_command(app)
    assert command in group.commands, f"deeprank {' '.join(arguments)}: no such command"
    with group.commands[command].make_context(command, [*rest]) as context:
        for setting in context.params.get("settings") or []:
            assert is_setting(setting.partition("=")[0]), f"--set {setting}: no such setting"
    check_files(rest)


def check_zenml(arguments: list[str]) -> None:
    """Parse the arguments with ZenML's command line, and load the pipeline as ZenML does."""
    command: click.Command = zenml_cli
    rest = list(arguments)
    while isinstance(command, click.Group):
        assert rest[:1] and rest[0] in command.commands, f"zenml {' '.join(arguments)}: no such command"
        command = command.commands[rest.pop(0)]
    with command.make_context(command.name, rest) as context:
        check_files(arguments)
        if arguments[:2] == ["pipeline", "run"]:
            pipeline = source_utils.load(context.params["source"])
            assert isinstance(pipeline, Pipeline), f"{context.params['source']} is not a pipeline"
            if context.params["config_path"]:
                check_config(PROJECT / context.params["config_path"], pipeline.entrypoint)


def check_files(arguments: list[str]) -> None:
    for argument in arguments:
        if argument.startswith(("configs/", "docker/")):
            assert (PROJECT / argument).is_file(), f"{argument} does not exist"


def is_setting(key: str) -> bool:
    """Whether a dotted key names a setting of a pipeline."""
    return bool(setting_types(SETTINGS, key))


@pytest.mark.parametrize("file", ALL, ids=name)
def test_every_link_has_a_target(file: Path) -> None:
    for link in documents.links(file.read_text()):
        target, _, anchor = link.partition("#")
        if target.startswith(("http://", "https://")):
            continue
        linked = (file.parent / target).resolve() if target else file
        assert linked.exists(), f"{link}: no such file"
        if anchor:
            assert anchor in documents.anchors(linked.read_text()), f"{link}: no such heading"


@pytest.mark.parametrize("file", [file for file in ALL if file.name != "CHANGELOG.md"], ids=name)
def test_every_file_named_exists(file: Path) -> None:
    folders = ("deeprank/", "steps/", "pipelines/", "tests/", "benchmarks/", "configs/", "docker/", "docs/")
    for path in (word for span in documents.spans(file.read_text()) for word in span.split()):
        if path.startswith(folders) and not re.search(r"[<*{…]", path):
            assert (PROJECT / path).exists(), f"{path} does not exist"


@pytest.mark.parametrize("file", WITH_SETTINGS, ids=name)
def test_every_setting_named_exists(file: Path) -> None:
    for span in documents.spans(file.read_text()):
        key = span.split(":")[0].split("=")[0]
        if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", key) and key.split(".")[0] in SETTINGS and not span.endswith((".py", ".md")):
            assert is_setting(key), f"{span}: no such setting"


def test_every_benchmark_command_exists() -> None:
    commands = [span.split() for span in documents.spans((PROJECT / "docs" / "results.md").read_text()) if span.startswith("python ")]
    assert len(commands) > 5
    for _, file, *arguments in commands:
        text = (PROJECT / file).read_text()
        assert all(f'"{option}"' in text for option in arguments if option.startswith("--")), f"{file} {' '.join(arguments)}"


def test_every_dependency_has_a_sentence() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    packages = {re.split(r"[\[<>=~!; ]", requirement)[0].lower() for requirement in requirements}
    rows = re.findall(r"^\| ([^|]+) \|", (PROJECT / "docs" / "design.md").read_text().partition("## Dependencies")[2], re.MULTILINE)
    listed = {name.strip().lower() for row in rows for name in re.sub(r"\(.*\)", "", row).split(",")}
    assert packages <= listed


def test_a_setting_is_known_by_its_dotted_key() -> None:
    assert is_setting("train.epochs") and is_setting("train.model.backbone") and is_setting("index.search_params")
    assert not is_setting("train.epoch") and not is_setting("training.epochs")


def test_anchors_are_those_of_github() -> None:
    assert documents.anchors("# A b\n\n## Errors of the gate\n") == {"a-b", "errors-of-the-gate"}
