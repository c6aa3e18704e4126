"""docs/settings.md lists every setting, with its meaning, and is current."""

import pytest
from pydantic import Field

from deeprank.settings import Settings
from pipelines.settings_docs import FILE, Setting, attribute_docs, settings_docs, settings_of


class Inner(Settings):
    """An inner model.

    Attributes:
        low, high: bounds of the range; a long text
            goes on in the next line.

    """

    low: float = Field(0.1, ge=0, lt=1)
    high: int | None = None


class Outer(Settings):
    """An outer model.

    Attributes:
        inner: not listed itself.
        items: a list.

    """

    inner: Inner = Inner(low=0.2)
    items: tuple[Inner, ...] = Field((), min_length=1)


def test_settings_md_is_current() -> None:
    assert FILE.read_text() == settings_docs(), "run `make settings-docs`"


def test_every_setting_has_a_meaning() -> None:
    rows = [line for line in settings_docs().splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    assert not [row for row in rows if row.endswith("|  |")]


def test_a_meaning_may_be_shared_and_have_several_lines() -> None:
    meaning = "bounds of the range; a long text goes on in the next line."
    assert attribute_docs(Inner) == {"low": meaning, "high": meaning}


@pytest.mark.parametrize(
    "row",
    [
        Setting("a.inner.low", "number", "`0.2`", "≥ 0, < 1", "bounds of the range; a long text goes on in the next line."),
        Setting("a.items", "list of keys below", "`[]`", "length ≥ 1", "a list."),
        Setting("a.items[].low", "number", "`0.1`", "≥ 0, < 1", "bounds of the range; a long text goes on in the next line."),
        Setting("a.items[].high", "integer or null", "`null`", "", "bounds of the range; a long text goes on in the next line."),
    ],
    ids=lambda row: row.key,
)
def test_a_row_has_key_type_default_range_and_meaning(row: Setting) -> None:
    assert row in list(settings_of(Outer, "a"))
