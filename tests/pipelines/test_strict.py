"""The strict check of configs: an error names file, key and the nearest known key."""

from pathlib import Path

import pytest
from zenml.pipelines.pipeline_definition import Pipeline

from deeprank.errors import ConfigError
from deeprank.home import PROJECT
from deeprank.settings import read_yaml
from pipelines.refreshing import refreshing
from pipelines.retraining import retraining
from pipelines.strict import check_config, check_source, resolved_config
from pipelines.training import training

# Configs of another pipeline than training.
OTHERS = {"retrain": retraining, "refresh": refreshing}


def write(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def check(tmp_path: Path, text: str) -> None:
    check_config(write(tmp_path / "config.yaml", text), training.entrypoint)


@pytest.mark.parametrize("config", sorted((PROJECT / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_configs_of_the_project_are_valid(config: Path) -> None:
    check_config(config, OTHERS.get(config.stem, training).entrypoint)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "parameters:\n",
        "parameters:\n  train: {}\n",
        "enable_cache: false\nsteps:\n  evaluate: {enable_cache: false}\n",
        "extra: {anything: goes}\nparameters:\n  train: {epochs: 2, learning_rate: 3e-4}\n",
        "parameters:\n  train:\n    losses: [{name: TripletMarginLoss, kwargs: {margin: 0.5}}]\n",
    ],
)
def test_known_keys_pass(tmp_path: Path, text: str) -> None:
    check(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("parametres: {}\n", "parametres", "parameters"),
        ("enable_cach: true\n", "enable_cach", "enable_cache"),
        ("steps:\n  tran: {}\n", "steps.tran", "train"),
        ("steps:\n  evalute: {}\n", "steps.evalute", "evaluate"),
        ("parameters:\n  trian: {}\n", "parameters.trian", "train"),
        ("parameters:\n  sample-triplets: {}\n", "parameters.sample-triplets", "sample_triplets"),
        ("parameters:\n  train: {epocs: 3}\n", "parameters.train.epocs", "epochs"),
        ("parameters:\n  ingest:\n    sauce: x\n", "parameters.ingest.sauce", "source"),
        ("parameters:\n  train:\n    model: {embedding_di: 3}\n", "parameters.train.model.embedding_di", "embedding_dim"),
        ("parameters:\n  ingest:\n    shares: {tain: 0.5}\n", "parameters.ingest.shares.tain", "train"),
        ("parameters:\n  register:\n    promotion: {flor: 0.5}\n", "parameters.register.promotion.flor", "floor"),
    ],
)
def test_a_misspelled_key_is_named_with_the_nearest_one(tmp_path: Path, text: str, key: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(tmp_path, text)
    assert f"{tmp_path / 'config.yaml'}: unknown key {key}; did you mean {nearest}?" in str(error.value)


@pytest.mark.parametrize("text", ["qqqqqq: 1\n", "parameters: {qqqqqq: 1}\n", "parameters: {train: {qqqqqq: 1}}\n"])
def test_known_keys_are_listed_if_none_is_near(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown key .*qqqqqq; known: .*, "):
        check(tmp_path, text)


def test_all_wrong_keys_of_a_section_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        check(tmp_path, "parameters:\n  train: {epocs: 3, sed: 1, epochs: none}\n")
    assert "did you mean epochs?" in str(error.value)
    assert "did you mean seed?" in str(error.value)
    assert "parameters.train.epochs: " in str(error.value)


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("parameters:\n  train: {epochs: many}\n", "parameters.train.epochs", "'many'"),
        ("parameters:\n  train: {epochs: 0}\n", "parameters.train.epochs", "0"),
        ("parameters:\n  train: {model: lite0}\n", "parameters.train.model", "'lite0'"),
        ("parameters:\n  train: 3\n", "parameters.train", "3"),
        ("parameters:\n  train:\n", "parameters.train", "None"),
        ("parameters:\n  ingest: {synthetic: {classes: 1}}\n", "parameters.ingest.synthetic.classes", "1"),
        ("parameters:\n  register: {name: two words}\n", "parameters.register.name", "'two words'"),
        ("parameters:\n  ingest: {shares: {train: 0.5}}\n", "parameters.ingest.shares", "train + val + test must be 1"),
    ],
)
def test_a_value_of_wrong_type_or_range_is_named(tmp_path: Path, text: str, key: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(tmp_path, text)
    assert f"{tmp_path / 'config.yaml'}: {key}: " in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("parameters:\n  train: {epochs: 2}\n  ingest: {}\n  train: {epochs: 3}\n", "train", "2 and 4"),
        ("parameters:\n  train:\n    epochs: 2\n    seed: 1\n    'epochs': 2\n", "epochs", "3 and 5"),
        ("parameters:\n  train: {losses: [{name: TripletMarginLoss, name: SupConLoss}]}\n", "name", "2 and 2"),
        ("enable_cache: true\nparameters: {}\nenable_cache: false\n", "enable_cache", "1 and 3"),
    ],
)
def test_a_key_given_twice_is_named_with_both_lines(tmp_path: Path, text: str, key: str, lines: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(tmp_path, text)
    assert str(error.value) == f"{tmp_path / 'config.yaml'}: {key} is given twice, in lines {lines}: keep one of them"


def test_the_same_key_in_two_sections_is_allowed(tmp_path: Path) -> None:
    check(tmp_path, "parameters:\n  train: &same {seed: 1}\n  cluster: {seed: 1}\n  sample_triplets: {<<: *same, seed: 2}\n")


@pytest.mark.parametrize("step", ["train", "evaluate"])
@pytest.mark.parametrize("parameters", ["{settings: {epocs: 3}}", "{settings: {epochs: 3}}", "{sauce: 1}", "{}", "3", ""])
def test_parameters_of_a_step_are_refused(tmp_path: Path, step: str, parameters: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(tmp_path, f"steps:\n  {step}:\n    parameters: {parameters}\n")
    assert str(error.value) == f"{tmp_path / 'config.yaml'}: unknown key steps.{step}.parameters; settings go under parameters: alone"


@pytest.mark.parametrize("options", ["3", "[enable_cache]", "off"])
def test_step_options_that_are_no_mapping_are_refused(tmp_path: Path, options: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml: steps\.train: expected keys and values, found"):
        check(tmp_path, f"steps:\n  train: {options}\n")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("parameters: {train: [\n", "is not valid YAML"),
        ("- a\n- b\n", "expected keys and values, found list"),
        ("just words\n", "expected keys and values, found str"),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=rf"config\.yaml.*{complaint}"):
        check(tmp_path, text)


def test_a_step_of_another_pipeline_is_unknown(tmp_path: Path) -> None:
    check_config(write(tmp_path / "a.yaml", "steps: {retraining_due: {enable_cache: false}}\n"), retraining.entrypoint)
    with pytest.raises(ConfigError, match=r"unknown key steps\.retraining_due; known: cluster, drift, "):
        check(tmp_path, "steps: {retraining_due: {enable_cache: false}}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parameters: {train: {patience: 3}}\n", "unknown key parameters.train.patience: it was renamed to "),
        ("parameters: {due: {min_new_images: 3}}\n", "unknown key parameters.due: it was renamed to parameters.retraining_due"),
        ("steps: {due: {enable_cache: false}}\n", "unknown key steps.due: it was renamed to steps.retraining_due"),
        ("parameters: {leakage: {on_leak: leave_out}}\n", "parameters.leakage.on_leak: write exclude instead of leave_out"),
    ],
)
def test_a_renamed_word_is_named_with_the_new_one(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path / "config.yaml", text)
    with pytest.raises(ConfigError) as error:
        check_config(file, retraining.entrypoint)
    assert str(error.value).startswith(f"{file}: {message}")


def test_an_error_in_an_extended_file_names_that_file(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", "parameters: {train: {epocs: 3}}\n")
    config = write(tmp_path / "config.yaml", "extends: base.yaml\nparameters: {train: {seed: 3}}\n")
    with pytest.raises(ConfigError) as error:
        check_config(config, training.entrypoint)
    assert str(error.value) == f"{base}: unknown key parameters.train.epocs; did you mean epochs?"


def test_zenml_reads_a_config_without_extends(tmp_path: Path) -> None:
    write(tmp_path / "plain.yaml", "parameters: {train: {epochs: 3}}\n")
    config = write(tmp_path / "config.yaml", "extends: plain.yaml\nenable_cache: false\nparameters: {train: {seed: 1}}\n")
    resolved = resolved_config(config)
    assert resolved.name == "config.yaml"
    assert read_yaml(resolved) == {"parameters": {"train": {"epochs": 3, "seed": 1}}, "enable_cache": False}


@pytest.mark.parametrize("text", ["", "parameters:\n", "parameters:\nsteps:\nsettings:\nenable_cache: false\n"])
def test_zenml_accepts_a_config_with_empty_sections(tmp_path: Path, text: str) -> None:
    config = write(tmp_path / "config.yaml", text)
    check_config(config, training.entrypoint)
    # ZenML reads the parameters of a file in with_options, and those of the file alone in a call.
    pipeline = Pipeline.with_options(training, config_path=str(resolved_config(config)))
    assert pipeline._apply_config_parameters({}) == {}


def test_an_empty_section_keeps_the_extended_one(tmp_path: Path) -> None:
    write(tmp_path / "plain.yaml", "parameters: {train: {epochs: 3}}\n")
    config = write(tmp_path / "config.yaml", "extends: plain.yaml\nparameters:\n")
    assert read_yaml(resolved_config(config)) == {"parameters": {"train": {"epochs": 3}}}


def test_an_unset_environment_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigError, match=r"config\.yaml: ZenML replaces \$\{NOT_SET\} by an environment variable, and NOT_SET is not set"):
        check(tmp_path, "parameters: {ingest: {source: '/data/${NOT_SET}'}}\n")


def test_a_missing_folder_is_refused_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPRANK_DATA", raising=False)
    missing, file = tmp_path / "missing", write(tmp_path / "image.jpg", "")
    for source, problem in ((missing, "does not exist"), (file, "is a file")):
        base = write(tmp_path / "base.yaml", f"parameters: {{ingest: {{source: {source}}}}}\n")
        config = write(tmp_path / "config.yaml", "extends: base.yaml\n")
        for path in (base, config):
            with pytest.raises(ConfigError) as error:
                check_source(path)
            assert str(error.value) == f"{path}: {source} {problem}; ingest.source must be a folder of <class>/<image>"


def test_a_missing_folder_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for folder, expected in (("other", ""), ("missing", "does not exist; evaluate.other must be a folder of <class>/<image>")):
        other = tmp_path / folder
        config = write(tmp_path / "config.yaml", f"parameters: {{ingest: {{source: synthetic}}, evaluate: {{other: {other}}}}}\n")
        if expected:
            with pytest.raises(ConfigError, match=f"{other} {expected}"):
                check_source(config)
        else:
            check_source(config)


def test_the_folder_of_the_environment_variable_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPRANK_DATA", str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match="missing does not exist; the environment variable DEEPRANK_DATA must be a folder"):
        check_source(write(tmp_path / "config.yaml", ""))
    check_source(write(tmp_path / "config.yaml", "parameters: {ingest: {source: synthetic}}\n"))
    monkeypatch.setenv("DEEPRANK_DATA", str(tmp_path))
    check_source(write(tmp_path / "config.yaml", "parameters:\n"))


def test_a_folder_that_is_not_read_may_be_missing(tmp_path: Path) -> None:
    check_source(write(tmp_path / "config.yaml", f"parameters: {{ingest: {{source: {tmp_path}}}}}\n"))
    check_source(write(tmp_path / "config.yaml", f"parameters: {{ingest: {{source: {tmp_path / 'missing'}, version: 1}}}}\n"))
