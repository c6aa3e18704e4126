"""The forbidden words of docs/glossary.md, and the names and texts of the project in which they are searched."""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from deeprank.home import PROJECT

GLOSSARY = PROJECT / "docs" / "glossary.md"
SCOPES = {"not anywhere": "anywhere", "not in a name": "in_name", "not as a name": "as_name"}
# Methods of a `Reporter` whose first argument is a name in MLflow.
REPORTER_METHODS = ("metric", "note", "figure", "attach")


@dataclass(frozen=True)
class Rule:
    """A forbidden word.

    Attributes:
        parts: the word in lower case, split at spaces, hyphens and underscores.
        scope: anywhere; in_name: as a part of a name; as_name: as a whole name.
        use: the term to use instead.

    """

    parts: tuple[str, ...]
    scope: str
    use: str


@dataclass(frozen=True)
class Text:
    """A name or a text, with the file and line where it starts."""

    file: str
    line: int
    text: str


def read_rules(markdown: str) -> list[Rule]:
    """Return the forbidden words in the tables of a glossary."""
    rules: list[Rule] = []
    header: list[str] = []
    for line in markdown.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells or not header:
            header = cells
        elif not set(line) <= set("|-: "):
            for column in set(header) & set(SCOPES):
                words = [split_name(word) for word in cells[header.index(column)].split(",") if word.strip()]
                rules += [Rule(parts, SCOPES[column], cells[0]) for parts in words]
    return rules


@cache
def split_name(name: str) -> tuple[str, ...]:
    """Return the words of a snake_case, camelCase, dotted, hyphenated or spaced name in lower case."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return tuple(word.lower() for word in re.findall(r"[A-Za-z']+", spaced))


def project_files(*folders: str, suffixes: Iterable[str]) -> list[Path]:
    """Return the files of the working tree that git does not ignore, by folder and end of the name."""
    command = ["git", "-C", str(PROJECT), "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [PROJECT / name for name in sorted(set(names)) if name.endswith(tuple(suffixes)) and (PROJECT / name).is_file()]


@cache
def _nodes(file: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


def defined_names(file: Path) -> Iterator[Text]:
    """Yield the names that a Python file defines, its own included; names of other packages are not among them."""
    where = str(file.relative_to(PROJECT))
    yield Text(where, 1, file.stem)
    for node in _nodes(file):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield Text(where, node.lineno, node.name)
        elif isinstance(node, ast.arg):
            yield Text(where, node.lineno, node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield Text(where, node.lineno, node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield Text(where, node.lineno, node.attr)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield Text(where, node.lineno, node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (Text(where, node.lineno, alias.asname) for alias in node.names if alias.asname)


def strings(file: Path) -> Iterator[Text]:
    """Yield the string constants of a Python file: messages, docstrings, keys, and the constant parts of f-strings."""
    where = str(file.relative_to(PROJECT))
    for node in _nodes(file):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(where, node.lineno, node.value)


def comments(file: Path) -> Iterator[Text]:
    """Yield the comments of a Python file."""
    where = str(file.relative_to(PROJECT))
    for token in tokenize.generate_tokens(io.StringIO(file.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield Text(where, token.start[0], token.string)


def option_names(file: Path) -> Iterator[Text]:
    """Yield the command-line options in the string constants of a Python file."""
    return (text for text in strings(file) if re.fullmatch(r"--[a-z][a-z_-]*", text.text))


def reported_names(file: Path) -> Iterator[tuple[str, Text]]:
    """Yield the `Reporter` method and the name of each metric, note, figure and file that a Python file reports.

    A `*` stands for each part of a name that varies.
    """
    where = str(file.relative_to(PROJECT))
    for node in _nodes(file):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in REPORTER_METHODS
            and len(node.args) > 1
        ):
            yield node.func.attr, Text(where, node.lineno, _pattern(node.args[0]))


def _pattern(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return re.sub(r"\*+", "*", "".join(_pattern(value) for value in node.values))
    return "*"


def patterns(file: Path) -> set[str]:
    """Return the f-strings of a Python file, with `*` for each part that varies."""
    return {_pattern(node) for node in _nodes(file) if isinstance(node, ast.JoinedStr)}


def config_keys(file: Path) -> Iterator[Text]:
    """Yield the keys of a YAML file."""
    where = str(file.relative_to(PROJECT))
    nodes = [yaml.compose(file.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            yield from (Text(where, key.start_mark.line + 1, str(key.value)) for key, _ in node.value)
            nodes += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
