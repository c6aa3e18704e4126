"""`deeprank run` and `deeprank schedule`: start pipelines."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from deeprank.errors import ConfigError
from deeprank.settings import Settings, is_text, read_config, setting_types


def run(
    config: Annotated[Path, typer.Argument(help="A YAML file, e.g. configs/demo.yaml.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE replaces a value of the config, e.g. train.epochs=3; repeatable.")
    ] = None,
    stack: Annotated[str | None, typer.Option(help="ZenML stack to run on; default: the active one.")] = None,
) -> None:
    """Run the training pipeline: ingest, sample triplets, train, evaluate, cluster, index, register, report.

    The same as `zenml pipeline run pipelines.training -c CONFIG`, with --set on top. An unknown key in the config or in --set ends
    the command before the run starts.
    """
    if not config.is_file():
        raise ConfigError(f"{config} is not a file; configs/ has examples")
    with tempfile.TemporaryDirectory() as folder:
        if settings:
            config = write_with_settings(config, settings, Path(folder))
        zenml = shutil.which("zenml", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if zenml is None:
            raise ConfigError("the zenml command is not installed in this environment: run `make setup`")
        command = [zenml, "pipeline", "run", "pipelines.training", "-c", str(config)]
        code = subprocess.run(command + (["-s", stack] if stack else []), check=False).returncode
    raise typer.Exit(code)


def write_with_settings(config: Path, settings: list[str], folder: Path) -> Path:
    """Write a copy of a config with KEY=VALUE settings merged into its parameters.

    Args:
        config: the config.
        settings: texts KEY=VALUE; the key is dotted. The value of a text setting is the text as it is, any other value is YAML.
        folder: where to write; the file keeps its name.

    Returns:
        The written file.

    Raises:
        ConfigError: a setting has no key or value, its key goes through a value that has no keys, or its value is not valid YAML.

    """
    merged, models = read_config(config), training_settings()
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {setting}: expected KEY=VALUE, e.g. train.epochs=3")
        section = merged.setdefault("parameters", {})
        *parents, last = key.split(".")
        for parent in parents:
            if section.get(parent) is None:
                section[parent] = {}
            section = section[parent]
            if not isinstance(section, dict):
                raise ConfigError(f"--set {setting}: {parent} is a value in {config}, it has no keys")
        section[last] = value if any(is_text(kind) for kind in setting_types(models, key)) else _yaml_value(setting, value)
    file = folder / config.name
    file.write_text(yaml.safe_dump(merged))
    return file


def training_settings() -> dict[str, type[Settings]]:
    """Return the settings' class of each section that the parameters of a training's config may have."""
    from deeprank.data.ingest import IngestSettings
    from deeprank.evaluation.leakage import LeakageSettings
    from deeprank.evaluation.other_kind import EvaluateSettings
    from deeprank.registry.register import RegisterSettings
    from deeprank.search.autotune import IndexSettings
    from deeprank.search.clustering import ClusterSettings
    from deeprank.serving.check_service import ServiceSettings
    from deeprank.training.settings import TrainSettings
    from deeprank.triplets.sampling import SampleSettings

    return {
        "ingest": IngestSettings,
        "leakage": LeakageSettings,
        "sample_triplets": SampleSettings,
        "train": TrainSettings,
        "evaluate": EvaluateSettings,
        "cluster": ClusterSettings,
        "index": IndexSettings,
        "register": RegisterSettings,
        "service": ServiceSettings,
    }


def _yaml_value(setting: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {setting}: the value is not valid YAML; quote texts in a list, e.g. ['*.tmp', 'a: b']") from None


def schedule(context: typer.Context) -> None:
    """Retrain at fixed times: `install --cron "0 3 * * *" --config configs/retrain.yaml`, `list` or `remove`; each has --help."""
    # A process of its own, as the library does not import ZenML.
    raise typer.Exit(subprocess.run([sys.executable, "-m", "pipelines.schedule", *context.args], check=False).returncode)
