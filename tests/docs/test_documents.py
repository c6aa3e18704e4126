"""Commands, links, files, settings and packages in the documents exist."""

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from typer.main import get_command

from deeprank.cli import app
from deeprank.data.ingest import IngestSettings
from deeprank.evaluation.leakage import LeakageSettings
from deeprank.home import PROJECT
from deeprank.registry.register import RegisterSettings
from deeprank.registry.retraining_due import RetrainingSettings
from deeprank.search.autotune import IndexSettings
from deeprank.search.clustering import ClusterSettings
from deeprank.serving.check_service import ServiceSettings
from deeprank.training.settings import TrainSettings
from deeprank.triplets.sampling import SampleSettings
from tests.docs import documents

# Parameters of the pipelines.
SETTINGS: dict[str, type[BaseModel]] = {
    "ingest": IngestSettings,
    "leakage": LeakageSettings,
    "sample_triplets": SampleSettings,
    "train": TrainSettings,
    "cluster": ClusterSettings,
    "index": IndexSettings,
    "register": RegisterSettings,
    "service": ServiceSettings,
    "retraining_due": RetrainingSettings,
}
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


def check_command(words: list[str]) -> None:
    """Fail where the program, its target, options or files do not exist."""
    program, *arguments = words
    if program == "make":
        check_make(arguments)
    elif program == "deeprank":
        check_deeprank(arguments)
    elif program in ("zenml", "docker", "mlflow"):
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
    if command == "schedule":
        from pipelines.schedule import app as schedule_app

        group, (command, *rest) = get_command(schedule_app), rest
    else:
        group = get_command(app)
    assert command in group.commands, f"deeprank {' '.join(arguments)}: no such command"
    with group.commands[command].make_context(command, [*rest]) as context:
        for setting in context.params.get("settings") or []:
            assert is_setting(setting.partition("=")[0]), f"--set {setting}: no such setting"
    check_files(rest)


def check_files(arguments: list[str]) -> None:
    for argument in arguments:
        if argument.startswith(("configs/", "docker/")):
            assert (PROJECT / argument).is_file(), f"{argument} does not exist"
        if argument.startswith("pipelines."):
            assert (PROJECT / argument.replace(".", "/")).with_suffix(".py").is_file(), f"{argument} does not exist"


def is_setting(key: str) -> bool:
    """Whether a dotted key names a setting of a pipeline."""
    section, *path = key.split(".")
    types: list[Any] = [SETTINGS.get(section)]
    for part in path:
        fields = [kind.model_fields for kind in types if isinstance(kind, type) and issubclass(kind, BaseModel)]
        annotations = [known[part].annotation for known in fields if part in known]
        if not annotations:
            return False
        types = [kind for annotation in annotations for kind in (annotation, *get_args(annotation))]
    return types != [None]


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
