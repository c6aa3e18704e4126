"""The Jinja environment of the report and of the model card."""

import re
from html import escape
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def create_environment(autoescape: bool) -> Environment:
    """Return an environment of the templates in this folder, with the filter `markdown`.

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
    environment.filters["markdown"] = _escape_markdown
    return environment


def _escape_markdown(text: object) -> str:
    """Return text on one line that Markdown displays unchanged, also in a table."""
    return re.sub(r"([\\`*\[\]|]|(?<!\w)_|_(?!\w))", r"\\\1", escape(" ".join(str(text).split()), quote=False))
