"""The table of renamed settings names existing settings, and no existing setting as old."""

import inspect
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from deeprank.renamed_settings import RENAMED_KEYS, REPLACED_VALUES, renamed_words
from deeprank.serving.service import ServeSettings
from pipelines.retraining import retraining

SECTIONS = {name: parameter.annotation for name, parameter in inspect.signature(retraining.entrypoint).parameters.items()}
SECTIONS |= {name: field.annotation for name, field in ServeSettings.model_fields.items()}


def exists(key: str) -> bool:
    """Return whether there is such a setting; the keys below `kwargs` are free."""
    section, *path = key.partition(".kwargs.")[0].split(".")
    annotations: list[Any] = [SECTIONS[section]] if section in SECTIONS else []
    for part in path:
        models = [model for annotation in annotations for model in models_in(annotation)]
        annotations = [model.model_fields[part].annotation for model in models if part in model.model_fields]
    return bool(annotations)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_the_new_key_exists_and_the_old_one_does_not(old: str, new: str) -> None:
    assert exists(new)
    assert ".kwargs." in old or not exists(old)


@pytest.mark.parametrize("key", REPLACED_VALUES)
def test_a_replaced_value_belongs_to_an_existing_key(key: str) -> None:
    assert exists(key)


@pytest.mark.parametrize(
    ("values", "messages"),
    [
        ({"train": {"epochs": 3}, "leakage": {"on_leak": "exclude"}}, []),
        (
            {"train": {"network": {"general": 0}}},
            [
                "unknown key train.network: it was renamed to train.model",
                "unknown key train.model.general: it was renamed to train.model.pretrained_share",
            ],
        ),
        ({"train": {"losses": [{"arguments": {}}]}}, ["unknown key train.losses.arguments: it was renamed to train.losses.kwargs"]),
        (
            {"train": {"head_start": False}},
            [
                "unknown key train.head_start: it was renamed to train.init_head",
                "train.init_head: write random instead of false",
            ],
        ),
        ({"leakage": {"on_leak": "leave_out"}}, ["leakage.on_leak: write exclude instead of leave_out"]),
        (None, []),
    ],
)
def test_every_renamed_word_has_a_message(values: Any, messages: list[str]) -> None:
    assert renamed_words(values) == messages


def test_a_message_has_section_and_prefix() -> None:
    assert renamed_words({"patience": 3}, "train", "parameters.") == [
        "unknown key parameters.train.patience: it was renamed to parameters.train.early_stopping_patience"
    ]
