"""The documents of the project: their code blocks, links and settings."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from deeprank.home import PROJECT

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")


def documents() -> list[Path]:
    """Return the Markdown files that people read."""
    return [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", PROJECT / "CHANGELOG.md", *sorted((PROJECT / "docs").rglob("*.md"))]


def shell_lines(markdown: str) -> Iterator[str]:
    """Yield the commands in the bash blocks of a document, in order."""
    for language, block in FENCE.findall(markdown):
        if language == "bash":
            yield from (line for line in block.splitlines() if shlex.split(line, comments=True))


def shell_commands(markdown: str) -> Iterator[list[str]]:
    """Yield the words of each command in the bash blocks of a document."""
    yield from (shlex.split(line, comments=True) for line in shell_lines(markdown))


def commands_in_text(markdown: str) -> Iterator[list[str]]:
    """Yield the words of each command in single backticks; it may lack arguments."""
    for span in spans(markdown):
        if span.startswith(("deeprank ", "zenml ", "make ", "python -m ")) and not re.search("[…<]|KEY=VALUE", span):
            yield shlex.split(span)


def prose(markdown: str) -> str:
    """Return a document without its code blocks."""
    return FENCE.sub("", markdown)


def spans(markdown: str) -> list[str]:
    """Return the texts in single backticks."""
    return SPAN.findall(prose(markdown))


def links(markdown: str) -> list[str]:
    """Return the targets of the links of a document."""
    return LINK.findall(prose(markdown))


def anchors(markdown: str) -> set[str]:
    """Return the anchors of the headings of a document, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", prose(markdown), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())) for heading in headings}
