"""The Jinja environment of the report and of the model card."""

import re
from html import escape
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def create_environment(autoescape: bool) -> Environment:
    """Return an environment of the templates in this folder, with the filters `markdown` and `decision_title`.

    Args:
        autoescape: whether values are escaped for HTML.

    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"markdown": _escape_markdown, "decision_title": _decision_title}
    return environment


def _decision_title(state: str) -> str:
    """Return the words for a state of the gate."""
    return "first champion, provisional" if state == "provisional" else state.replace("-", " ")


def _escape_markdown(text: object) -> str:
    """Return text on one line that Markdown displays unchanged, also in a table."""
    return re.sub(r"([\\`*\[\]|]|(?<!\w)_|_(?!\w))", r"\\\1", escape(" ".join(str(text).split()), quote=False))
