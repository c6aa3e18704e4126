"""The URI of a registered model: parsed into name and version or alias, and written back."""

import pytest

from deeprank.registry.model_uri import ModelUri


@pytest.mark.parametrize(
    ("text", "uri", "alias"),
    [
        ("models:/animals/3", ModelUri("animals", "3"), ""),
        ("models:/animals@champion", ModelUri("animals", "champion"), "champion"),
        ("models:/animals/champion", ModelUri("animals", "champion"), "champion"),
        ("models:/animals", ModelUri("animals", ""), ""),
        ("models:/animals@", ModelUri("animals", ""), ""),
        ("models:/", ModelUri("", ""), ""),
    ],
)
def test_uri_is_parsed_into_name_and_version_or_alias(text: str, uri: ModelUri, alias: str) -> None:
    parsed = ModelUri.parse(text)
    assert parsed == uri
    assert parsed.alias == alias


@pytest.mark.parametrize("text", ["some/folder", "/models:/animals/3", ""])
def test_other_text_is_not_a_uri(text: str) -> None:
    assert ModelUri.parse(text) is None


@pytest.mark.parametrize("text", ["models:/animals/3", "models:/animals@champion"])
def test_uri_is_written_as_it_was_parsed(text: str) -> None:
    assert str(ModelUri.parse(text)) == text
