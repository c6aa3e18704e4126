"""Settings from YAML files: errors name file, key and the nearest known key; a config may extend another one."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from deeprank.errors import ConfigError
from deeprank.settings import Settings, parse_settings, read_config, read_yaml

FILE = Path("a.yaml")


class Part(Settings):
    name: str = "x"
    kwargs: dict[str, int] = Field(default_factory=dict)


class Example(Settings):
    size: int = Field(1, ge=1)
    mode: Literal["auto"] | Part = "auto"
    parts: tuple[Part, ...] = ()


def errors(values: object, section: str = "", prefix: str = "") -> list[str]:
    with pytest.raises(ConfigError) as error:
        parse_settings(Example, values, FILE, section, prefix)
    return str(error.value).splitlines()


def test_valid_values_become_settings() -> None:
    settings = parse_settings(Example, {"size": 3, "mode": {"name": "a"}, "parts": [{"name": "b"}]}, FILE)
    assert settings == Example(size=3, mode=Part(name="a"), parts=(Part(name="b"),))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"siz": 3}, "unknown key siz; did you mean size?"),
        ({"qqqq": 3}, "unknown key qqqq; known: size, mode, parts"),
        ({"mode": {"nam": "a"}}, "unknown key mode.nam; did you mean name?"),
        ({"parts": [{}, {"nam": "a"}]}, "unknown key parts.1.nam; did you mean name?"),
        ({"size": 0}, "size: Input should be greater than or equal to 1, found 0"),
        (
            {"mode": {"kwargs": {"a": "b"}}},
            "mode.kwargs.a: Input should be a valid integer, unable to parse string as an integer, found 'b'",
        ),
        ({"mode": 3}, "mode: Input should be 'auto'; or Input should be a valid dictionary or instance of Part, found 3"),
    ],
)
def test_a_wrong_key_or_value_is_explained_in_one_line(values: dict[str, object], message: str) -> None:
    assert errors(values) == [f"a.yaml: {message}"]


def test_all_errors_are_listed_with_section_and_prefix() -> None:
    assert errors({"siz": 3, "size": "many"}, "train", "parameters.") == [
        "a.yaml: parameters.train.size: Input should be a valid integer, unable to parse string as an integer, found 'many'",
        "a.yaml: unknown key parameters.train.siz; did you mean size?",
    ]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    file = tmp_path / "base.yaml"
    file.write_text("enable_cache: true\nparameters:\n  train: {epochs: 21, sizes: [1, 2], augment: {flip: 0.5, shear: 1}}\n")
    return file


def extending(base: Path, text: str, name: str = "base.yaml") -> Path:
    file = base.parent / "config.yaml"
    file.write_text(f"extends: {name}\n{text}")
    return file


def test_a_config_is_merged_over_the_one_it_extends(base: Path) -> None:
    config = extending(base, "parameters:\n  train: {epochs: 3, sizes: [4], augment: {flip: 0}}\n  register: {name: a}\n")
    assert read_config(config) == {
        "enable_cache": True,
        "parameters": {"train": {"epochs": 3, "sizes": [4], "augment": {"flip": 0, "shear": 1}}, "register": {"name": "a"}},
    }


def test_a_config_that_extends_nothing_is_read_as_it_is(base: Path) -> None:
    assert read_config(base) == read_yaml(base)


def test_the_extended_file_is_relative_to_the_config(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = extending(base, "")
    monkeypatch.chdir("/")
    assert read_config(config) == read_yaml(base)


@pytest.mark.parametrize("name", ["other.yaml", "3", "[base.yaml]", "''"])
def test_a_wrong_extends_is_named(base: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml: extends: expected a YAML file, its path relative to .*, found "):
        read_config(extending(base, "", name))


def test_an_extended_file_may_not_extend_another(base: Path) -> None:
    base.with_name("middle.yaml").write_text("extends: base.yaml\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: extends: middle\.yaml extends another file itself"):
        read_config(extending(base, "", "middle.yaml"))
